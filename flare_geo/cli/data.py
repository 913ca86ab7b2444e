"""`flare-geo data`: download, generate, inspect, convert and filter data sets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flare_geo.cli.pictures import Pictures
from flare_geo.cli.run_folder import make_dataset, source_of
from flare_geo.cli.verb import Verb, Verbs
from flare_geo.datasets import DATASETS, PackedDataset
from flare_geo.datasets.am_statistics import case_statistics, filter_cases
from flare_geo.datasets.readers.netfabb import convert_netfabb
from flare_geo.nn import Scaler

ROWS = 2**20  # points per step of the statistics
SHOWN = 200_000  # points in a histogram
FAR = 10.0  # robust deviations from the other cases at which a case is unusual,
SEEN = 0.05  # if they are also this share of the whole range of the channel


def inspect_verb(name: str) -> Callable[..., None]:
    """The function behind `data inspect NAME`."""

    def inspect(
        root: Path,
        split: str | None = None,
        data: dict[str, Any] | None = None,
        png: Path | None = None,
        check: bool = False,
    ) -> None:
        """Print counts, channels, units, ranges and unusual cases, and draw histograms.

        Cases that are not sound (NaN, missing arrays, broken files) are named and left out.

        Args:
            root: Folder of the data.
            split: Split to inspect; all splits if not given.
            data: Options of the data set, as in `--data.workers 4`.
            png: Picture of the histograms; ROOT/processed/NAME_SPLIT.png if not given.
            check: Compare every case with its checksum.
        """
        for each in [split] if split else DATASETS[name].splits:
            inspect_split(name, root, each, data or {}, png, check)

    return inspect


class Survey(NamedTuple):
    """The statistics of a split, from one pass over its B cases and their C channels per point.

    Shapes: `sizes [B]`, `mean, low, high [B, C]`, `scaler` of C channels, `shown [n, C]` random
    points, `once [B, g]` values of the channels with one value per case.
    """

    labels: list[str]
    meanings: list[str]
    sizes: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    scaler: Scaler
    shown: Tensor
    once_labels: list[str]
    once: Tensor


def inspect_split(
    name: str, root: Path, split: str, options: dict[str, Any], png: Path | None, check: bool
) -> None:
    """Print the statistics of one split, and draw its histograms."""
    cls = DATASETS[name]
    spec = {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {"skip_unsound": True, **options, "root": str(root), "split": split},
    }
    dataset = make_dataset(spec)
    generated = source_of(dataset) == "generated"
    if len(dataset) == 0:
        print(f"{name} {split}: no cases")
        return
    found = survey(dataset)
    print(
        f"{name} {split}{', generated' if generated else ''}: {len(dataset)} cases, "
        f"{int(found.sizes.min())} to {int(found.sizes.max())} points, {int(found.sizes.sum())} "
        "in total"
    )
    low, high = found.low.amin(0), found.high.amax(0)
    for i, label in enumerate(found.labels):
        spread = f"mean {found.scaler.mean[i]:.5g}, std {found.scaler.std[i]:.5g}, "
        spread = "" if low[i] == high[i] else spread
        print(f"  {label}: {found.meanings[i]}; {spread}{low[i]:.5g} to {high[i]:.5g}")
    for i, label in enumerate(found.once_labels):
        values = found.once[:, i]
        print(f"  {label}, one value per case: {values.min():.5g} to {values.max():.5g}")
    for line in unusual(found, dataset.store.names):
        print(f"  unusual: {line}")
    for case, reason in dataset.store.attrs.get("left_out", []):
        print(f"  left out: {case}: {reason}")
    if check:
        damaged = dataset.store.find_damage()
        verdict = f"damaged: {', '.join(damaged)}; delete the file to pack it anew"
        print(f"  checksums: {verdict if damaged else 'correct'}")
    path = png or root / "processed" / f"{name}_{split}.png"
    pictures = Pictures(margin="  ")
    with pictures.drawing("histograms", path):
        _draw(found, path, f"{name}, {split} split ({len(dataset)} cases)", generated)
    if png is not None:
        pictures.finish()
    pictures.mention()


def survey(dataset: PackedDataset) -> Survey:
    """Statistics of a split in one pass, a bounded number of points at a time."""
    first = dataset[0]
    each = [(f, i, c) for f, cs in dataset.channels.items() for i, c in enumerate(cs)]
    per_case = {f for f in dataset.channels if first[f].shape[0] == 1 != first.pos.shape[0]}
    fields = [f for f in dataset.channels if f not in per_case]
    cases: list[tuple[Tensor, Tensor, Tensor]] = []
    shown: list[Tensor] = []
    once: list[Tensor] = []
    sizes: list[int] = []
    generator = torch.Generator().manual_seed(0)

    def chunks() -> Iterator[Tensor]:
        for data in dataset:
            x = torch.cat([data[f] for f in fields], dim=1)  # [n, C]
            n = x.shape[0]
            sizes.append(n)
            once.append(torch.cat([data[f] for f in sorted(per_case)] or [x[:1, :0]], dim=1))
            pick = torch.randint(
                max(n, 1), (min(n, 1 + SHOWN // len(dataset)),), generator=generator
            )
            shown.append(x[pick])
            if n:
                cases.append((x.double().mean(0) if n < ROWS else x.mean(0), x.amin(0), x.amax(0)))
            yield from x.split(ROWS)

    scaler = Scaler.fit(chunks())
    mean, low, high = (torch.stack(values) for values in zip(*cases, strict=True))
    return Survey(
        [_label(*e) for e in each if e[0] not in per_case],
        [c.meaning for f, _, c in each if f not in per_case],
        torch.tensor(sizes),
        mean,
        low,
        high,
        scaler,
        torch.cat(shown),
        [_label(f, i, c) for f, i, c in sorted(each) if f in per_case],
        torch.cat(once),
    )


def unusual(found: Survey, names: Sequence[str], most: int = 10) -> list[str]:
    """Cases whose mean or extremes are far from those of the others, the farthest first."""
    if len(found.mean) < 8:
        return []
    lines = []
    for word, values in (("mean", found.mean), ("least", found.low), ("largest", found.high)):
        values = values.double()
        middle = values.median(dim=0).values
        gap = (values - middle).abs()
        spread = 1.4826 * gap.median(dim=0).values
        far = gap / spread.clamp(min=1e-12 + 1e-6 * middle.abs())
        width = (found.high.amax(0) - found.low.amin(0)).double()
        for case, channel in ((far > FAR) & (gap > SEEN * width)).nonzero().tolist():
            lines.append(
                (
                    -float(far[case, channel]),
                    f"{names[case]}: {word} {found.labels[channel]} is "
                    f"{values[case, channel]:.5g}, of most cases {middle[channel]:.5g}",
                )
            )
    lines.sort()
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [text for _, text in lines[:most]] + more


def _label(field: str, column: int, channel: Any) -> str:
    unit = "" if channel.unit == "1" else f" [{channel.unit}]"
    return f"{field}[{column}] {channel.name}{unit}"


def _draw(found: Survey, path: Path, title: str, generated: bool) -> None:
    from flare_geo.viz import plot_histograms

    columns = dict(zip(found.labels, found.shown.T, strict=True))
    columns |= dict(zip(found.once_labels, found.once.T, strict=True))
    plot_histograms(columns, path, title=title, note="generated data" if generated else None)


VERB: Verbs = {
    "generate": {name: Verb(cls.generate) for name, cls in DATASETS.items()},
    "download": {name: Verb(cls.download) for name, cls in DATASETS.items()},
    "inspect": {name: Verb(inspect_verb(name)) for name in DATASETS},
    "convert": {"netfabb": Verb(convert_netfabb, positional=("case_dirs+",))},
    "statistics": Verb(case_statistics),  # of data sets in the LPBF form, as filter
    "filter": Verb(filter_cases),
}
