"""`flare-geo data`: generate, download or inspect a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from flare_geo.cli.run import source_of
from flare_geo.datasets import DATASETS
from flare_geo.nn import Scaler

ACTIONS = ("generate", "download", "inspect")


def choose(arguments: Sequence[str]) -> tuple[Callable[..., Any], str, list[str]]:
    """The function behind `data ACTION NAME`, its full name, and the arguments that are left."""
    usage = f"usage: flare-geo data {{{','.join(ACTIONS)}}} {{{','.join(DATASETS)}}} --root FOLDER"
    if len(arguments) < 2 or arguments[0] not in ACTIONS or arguments[1] not in DATASETS:
        raise ValueError(usage)
    action, name = arguments[:2]
    verb, rest = f"data {action} {name}", list(arguments[2:])
    if action == "inspect":
        return inspect_verb(name), verb, rest
    return getattr(DATASETS[name], action), verb, rest


def inspect_verb(name: str) -> Callable[..., None]:
    """The function behind `data inspect NAME`."""

    def inspect(root: Path) -> None:
        """Print the counts, channels, units and statistics of every split.

        Args:
            root: folder of the data.
        """
        inspect_dataset(name, root)

    return inspect


def inspect_dataset(name: str, root: Path) -> None:
    """Print the counts, channels, units and statistics of every split of a data set."""
    for split in DATASETS[name].splits:
        dataset = DATASETS[name](root, split)
        generated = ", generated" if source_of(dataset) == "generated" else ""
        sizes = torch.tensor([case.pos.shape[0] for case in dataset])
        if len(dataset) == 0:
            print(f"{name} {split}: no cases")
            continue
        print(
            f"{name} {split}{generated}: {len(dataset)} cases, "
            f"{int(sizes.min())} to {int(sizes.max())} points"
        )
        for field, channels in dataset.channels.items():
            scaler = Scaler.fit(case[field] for case in dataset)
            low = torch.stack([case[field].amin(0) for case in dataset]).amin(0)
            high = torch.stack([case[field].amax(0) for case in dataset]).amax(0)
            for i, channel in enumerate(channels):
                print(
                    f"  {field}[{i}] {channel.name} [{channel.unit}]: {channel.meaning}; "
                    f"mean {scaler.mean[i]:.5g}, std {scaler.std[i]:.5g}, "
                    f"{low[i]:.5g} to {high[i]:.5g}"
                )
