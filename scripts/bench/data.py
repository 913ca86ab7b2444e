"""What reading from a packed store costs: random samples of large clouds, an epoch of small ones.

    python scripts/bench/data.py --out scripts/bench/results/data.json

Makes its own clouds of random numbers (generated; 20 clouds of 2 million points need about 6 GB in
--folder, removed at the end). Every comparison alternates between the two ways in one process, on
files in the page cache, and reports medians. `--points` and `--clouds` make it smaller.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from flare_geo.datasets import Channel, PackedDataset
from flare_geo.files import write_aside
from flare_geo.provenance import provenance

SAMPLE = 100_000
FIELDS = {"y": 4, "normal": 3, "area": 1}  # as of a car surface: pressure, wall shear, geometry


class Clouds(PackedDataset):
    """Clouds of random numbers, as many and as large as asked for."""

    name = "clouds"
    splits = ("train",)
    channels = {  # noqa: RUF012
        "pos": tuple(Channel(c, "m", "random") for c in "xyz"),
        "y": tuple(Channel(f"u{i}", "1", "random") for i in range(4)),
    }
    how_to_get = "make {root}"

    def __init__(
        self, root: Path, *, count: int, points: int, num_points: int | None = None
    ) -> None:
        self.count, self.points = count, points
        super().__init__(root, num_points=num_points)

    @property
    def options(self) -> dict[str, Any]:
        """How many and how large."""
        return {"count": self.count, "points": self.points}

    def raw_files(self) -> list[Path]:
        """None: the numbers are made."""
        return []

    def cases(self) -> Sequence[int]:
        """Numbers of the clouds."""
        return range(self.count)

    def read_case(self, key: int) -> Data:
        """A cloud; small ones have triangles, as a mesh has."""
        generator = torch.Generator().manual_seed(key)
        data = Data(pos=torch.rand(self.points, 3, generator=generator), name=f"cloud_{key}")
        fields = FIELDS if self.points > SAMPLE else {"y": 4}
        for field, width in fields.items():
            data[field] = torch.rand(self.points, width, generator=generator)
        if self.points <= SAMPLE:
            data.face = torch.randint(self.points, (3, 2 * self.points), generator=generator)
        return data


def alternate(ways: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way(i)
            if i > 0:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def random_samples(folder: Path, clouds: int, points: int, repeats: int) -> dict[str, Any]:
    """One random sample of 100,000 points: from the store, from .npz, from .vtp."""
    dataset = Clouds(folder, count=clouds, points=points)
    samples = Clouds(folder, count=clouds, points=points, num_points=SAMPLE)
    raw = min(clouds, 3)  # the time of a raw file does not depend on how many there are
    for i in range(raw):
        _write_raw(dataset[i], folder / f"raw_{i}")
    rng = np.random.default_rng(0)

    def from_store(i: int) -> Data:
        samples.set_epoch(i)
        return samples[int(rng.integers(clouds))]

    def from_npz(i: int) -> Data:
        with np.load(folder / f"raw_{i % raw}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        pick = rng.choice(points, SAMPLE, replace=False)
        return Data.from_dict({k: torch.from_numpy(v[pick]) for k, v in arrays.items()})

    def from_vtp(i: int) -> Data:
        from flare_geo.mesh import polygon_geometry, polygons_of, read_mesh

        mesh = read_mesh(folder / f"raw_{i % raw}.vtp", list(FIELDS))
        centre, area = polygon_geometry(*polygons_of(mesh))
        pick = rng.choice(len(centre), SAMPLE, replace=False)
        arrays = {"pos": centre, "area_vector": area, **{k: mesh.cell_data[k] for k in FIELDS}}
        return Data.from_dict({k: torch.from_numpy(np.asarray(v)[pick]) for k, v in arrays.items()})

    seconds = alternate({"store": from_store, "npz": from_npz}, repeats)
    seconds |= {"vtp": alternate({"vtp": from_vtp}, max(1, repeats // 10))["vtp"]}
    return {
        "clouds": clouds,
        "points": points,
        "sample": SAMPLE,
        "store_bytes": dataset.store.nbytes,
        "seconds": seconds,
        "npz_over_store": seconds["npz"] / seconds["store"],
        "vtp_over_store": seconds["vtp"] / seconds["store"],
    }


def _write_raw(data: Data, path: Path) -> None:
    """The same cloud as .npz (not compressed) and as .vtp of quadrilaterals (appended, zlib)."""
    from flare_geo.mesh import write_mesh

    np.savez(path.with_suffix(".npz"), **{k: data[k].numpy() for k in ("pos", *FIELDS)})
    import pyvista as pv

    n = data.pos.shape[0]
    side = int(n**0.5) + 1
    corner = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).ravel()[:n]
    quads = np.stack([corner, corner + 1, corner + side + 2, corner + side + 1], axis=1)
    points = np.random.default_rng(0).random(((side + 1) ** 2, 3), dtype=np.float32)
    mesh = pv.PolyData.from_regular_faces(points, quads)
    for field in FIELDS:
        mesh.cell_data[field] = data[field].numpy()
    write_mesh(mesh, path.with_suffix(".vtp"))


class Watched:
    """A data set that says with every case how much memory its process has for itself."""

    def __init__(self, dataset: PackedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Data:
        data = self.dataset[i]
        data.memory = torch.tensor([memory_of_process()])
        return data


def memory_of_process() -> list[float]:
    """Private and proportional memory of this process in MB (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return [private / 1e3, kilobytes["Pss"] / 1e3]


def memory_of_workers(folder: Path, clouds: int, points: int) -> dict[str, Any]:
    """Largest memory of a loading process over three epochs of random samples."""
    dataset = Clouds(folder, count=clouds, points=points, num_points=SAMPLE)
    loader = DataLoader(Watched(dataset), batch_size=1, num_workers=2, persistent_workers=True)  # type: ignore[arg-type]
    seen = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        seen += [batch.memory for batch in loader]
    private, proportional = torch.cat(seen).max(dim=0).values.tolist()
    return {"workers": 2, "private_megabytes": private, "proportional_megabytes": proportional}


def epoch_of_small_clouds(folder: Path, repeats: int) -> dict[str, Any]:
    """An epoch of 1,000 clouds of 1,000 points, from the store and from a list in memory."""
    dataset = Clouds(folder, count=1000, points=1000)
    listed = [dataset[i] for i in range(1000)]

    def epoch(cases: Any) -> Iterator[Data]:
        yield from DataLoader(cases, batch_size=4, shuffle=True, exclude_keys=["name"])

    ways: dict[str, Callable[[int], Any]] = {
        "store": lambda i: sum(batch.num_graphs for batch in epoch(dataset)),
        "list": lambda i: sum(batch.num_graphs for batch in epoch(listed)),
    }
    seconds = alternate(ways, repeats)
    ratio = seconds["store"] / seconds["list"]
    return {"clouds": 1000, "points": 1000, "seconds": seconds, "store_over_list": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data.json"))
    parser.add_argument("--folder", type=Path, help="where the clouds go; a temporary one if not")
    parser.add_argument("--clouds", type=int, default=20)
    parser.add_argument("--points", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = {"clouds": options.clouds, "points": options.points}
        result = {
            "data": "generated: random numbers",
            "cores": os.cpu_count(),
            **provenance(),
            "random_samples": random_samples(folder, **size, repeats=options.repeats),
            "memory": memory_of_workers(folder, **size),
            "small_clouds": epoch_of_small_clouds(folder, max(3, options.repeats // 5)),
        }
    with write_aside(options.out) as aside:
        aside.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
