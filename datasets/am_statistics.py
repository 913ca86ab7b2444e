"""Counts and extremes of LPBF cases, and the selection that made the published set of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flare_geo.datasets.generators.run import run_cases
from flare_geo.datasets.readers.lpbf_format import EDGES, hexahedron_edges, read_lpbf
from flare_geo.files import write_aside

NAN = float("nan")


class CaseStatistics(NamedTuple):
    """One row of the published tables; NaN where the file has no such field."""

    case_name: str
    num_vertices: int
    num_edges: int
    """Directed: each edge counts twice."""
    avg_aspect_ratio: float
    """Of hexahedra: longest over shortest edge."""
    max_aspect_ratio: float
    max_z: float
    """mm"""
    max_disp: float
    """Largest u_z, mm. With its sign, as published: a part that only sinks has less than 0."""
    max_vmstr: float
    """MPa"""
    edges_per_vert: float


COLUMNS = CaseStatistics._fields[1:]


def case_statistics(
    root: Path, *, table: Path | None = None, workers: int | None = None, log: bool = True
) -> list[CaseStatistics]:
    """Print how large, how thin, how warped and how stressed the cases of an LPBF set are.

    The columns are those of the published tables: number of nodes and of directed edges, mean and
    largest aspect ratio (longest over shortest edge of a hexahedron), height in mm, largest
    vertical displacement in mm, largest von Mises stress in MPa, edges per node.

    Args:
        root: Folder of ``.npz`` files, also in folders below.
        table: Also write one row a case to this CSV file.
        workers: Number of processes; None: one per core.
        log: Print the summary, show progress on a terminal.

    Returns:
        One row a case, sorted by file.

    Raises:
        FileNotFoundError: no ``.npz`` files there.
        ValueError: a file is not of the LPBF form.
    """
    rows = _measure(Path(root), workers, log)
    if table is not None:
        with write_aside(table) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(CaseStatistics._fields)
            writer.writerows(rows)
    if log:
        print(summary_table(rows))
    return rows


def filter_cases(
    root: Path,
    *,
    max_nodes: int = 50_000,
    max_edges: int = 250_000,
    max_aspect_ratio: float = 3.0,
    max_displacement: float = 1.0,
    max_von_mises: float = 2000.0,
    out: Path | None = None,
    workers: int | None = None,
    log: bool = True,
) -> list[str]:
    """List the cases of an LPBF set that are neither too large nor too thin nor implausible.

    The limits are those that kept 1390 of 3398 simulations for the published set. The names of the
    cases within all of them are written to ``root/include_list.txt``, by which
    :class:`LPBFDataset` goes where ``root`` has no folders train and test. No case is deleted. A
    case whose displacement or stress is absent or NaN is not kept, unless that limit is infinite
    (``.inf`` on the command line).

    Args:
        root: Folder of ``.npz`` files, also in folders below.
        max_nodes: Most nodes.
        max_edges: Most directed edges.
        max_aspect_ratio: Largest ratio of the longest to the shortest edge of any hexahedron.
        max_displacement: Largest vertical displacement, mm.
        max_von_mises: Largest von Mises stress, MPa.
        out: The list; None: ``root/include_list.txt``.
        workers: Number of processes; None: one per core.
        log: Print how many are kept and why others are not, show progress on a terminal.

    Returns:
        The names of the kept cases.

    Raises:
        FileNotFoundError: no ``.npz`` files there.
        ValueError: a file is not of the LPBF form, or two are called alike.
    """
    rows = _measure(Path(root), workers, log)
    names = [row.case_name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several cases below {root} are called {twice[0]}: filter their folders")
    limits = {
        "num_vertices": max_nodes,
        "num_edges": max_edges,
        "max_aspect_ratio": max_aspect_ratio,
        "max_disp": max_displacement,
        "max_vmstr": max_von_mises,
    }
    beyond = {
        name: {row.case_name for row in rows if not _within(getattr(row, name), limit)}
        for name, limit in limits.items()
    }
    kept = [row.case_name for row in rows if not any(row.case_name in b for b in beyond.values())]
    out = Path(root, "include_list.txt") if out is None else Path(out)
    with write_aside(out) as aside:
        aside.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")
    if log:
        print(f"{len(kept)} of {len(rows)} cases kept, listed in {out}")
        for name, limit in limits.items():
            print(f"  {len(beyond[name])} with {name} above {limit:g} or unknown")
    return kept


def measure_case(path: Path) -> CaseStatistics:
    """The row of one file.

    Raises:
        ValueError: it is not of the LPBF form.
    """
    arrays = read_lpbf(path)
    pos, elems = arrays["pos"], arrays["elems"]
    if not len(pos) or not len(elems) or not 0 <= elems.min() <= elems.max() < len(pos):
        raise ValueError(f"{path}: it has no hexahedra, or they name nodes that are not there")
    ratios = aspect_ratios(pos, elems)
    edges = hexahedron_edges(elems).shape[1]
    return CaseStatistics(
        case_name=path.stem,
        num_vertices=len(pos),
        num_edges=edges,
        avg_aspect_ratio=float(ratios.mean()),
        max_aspect_ratio=float(ratios.max()),
        max_z=float(pos[:, 2].max()),
        max_disp=float(arrays["disp"][:, 2].max()) if "disp" in arrays else NAN,
        max_vmstr=float(arrays["vmstr"].max()) if "vmstr" in arrays else NAN,
        edges_per_vert=edges / len(pos),
    )


def aspect_ratios(pos: NDArray[np.float32], elems: NDArray[np.int64]) -> NDArray[np.float64]:
    """Longest over shortest edge of each hexahedron. ``[n, 3], [m, 8] -> [m]``."""
    start, end = np.array(EDGES).T
    corners = pos.astype(np.float64)[elems]  # [m, 8, 3]
    lengths = np.linalg.norm(corners[:, end] - corners[:, start], axis=2)  # [m, 12]
    with np.errstate(divide="ignore"):  # a collapsed edge: infinite
        return lengths.max(axis=1) / lengths.min(axis=1)


def summary_table(rows: Sequence[CaseStatistics]) -> str:
    """Count, mean, standard deviation, extremes and quartiles of each column, as text.

    The standard deviation is that of a sample (n - 1), quartiles are interpolated linearly, NaN is
    left out: what ``describe()`` of pandas gives.
    """
    names = ("count", "mean", "std", "min", "25%", "50%", "75%", "max")
    columns = {column: _describe([getattr(row, column) for row in rows]) for column in COLUMNS}
    lines = ["".join([" " * 5, *(f"{column:>18}" for column in columns)])]
    for i, name in enumerate(names):
        lines.append("".join([f"{name:<5}", *(f"{c[i]:>18.6f}" for c in columns.values())]))
    return "\n".join(lines)


def _within(value: float, limit: float) -> bool:
    return value <= limit or limit == float("inf")


def _describe(values: Sequence[float]) -> list[float]:
    there = np.array([v for v in values if not np.isnan(v)], dtype=np.float64)
    if not len(there):
        return [0.0] + 7 * [NAN]
    spread = float(there.std(ddof=1)) if len(there) > 1 else NAN
    quartiles = np.quantile(there, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return [float(len(there)), float(there.mean()), spread, *quartiles]


def _measure(root: Path, workers: int | None, log: bool) -> list[CaseStatistics]:
    series = "_series"  # states of a case, not cases
    files = [f for f in sorted(root.rglob("*.npz")) if not f.parent.name.endswith(series)]
    if not files:
        raise FileNotFoundError(f"no .npz files in {root}")
    return list(run_cases(measure_case, files, workers=workers, log=log))
