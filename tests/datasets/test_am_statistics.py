import csv
import inspect
import math
from pathlib import Path

import numpy as np
import pytest

from flare_geo.datasets.am_statistics import (
    COLUMNS,
    CaseStatistics,
    aspect_ratios,
    case_statistics,
    filter_cases,
    measure_case,
    summary_table,
)
from flare_geo.datasets.lpbf import LPBFDataset
from flare_geo.datasets.readers.lpbf_format import write_lpbf

PUBLISHED = Path(__file__).parents[1] / "data" / "lpbf_meta"
LIMITS = {
    "num_vertices": "max_nodes",
    "num_edges": "max_edges",
    "max_aspect_ratio": "max_aspect_ratio",
    "max_disp": "max_displacement",
    "max_vmstr": "max_von_mises",
}


def bar(path, cells=2, size=(1.0, 1.0, 0.6), disp=0.5, vmstr=900.0):
    """A column of hexahedra, the upper ones twice as high."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size[:2]
    heights = size[2] * np.array([0, *range(1, 2 * cells, 2)])
    pos = np.array([[*c, h] for h in heights for c in corners], dtype=np.float32)
    elems = np.arange(8) + 4 * np.arange(cells)[:, None]
    n = len(pos)
    fields = {"disp": np.zeros((n, 3)), "vmstr": np.full((n, 1), vmstr), "temp": np.ones((n, 1))}
    fields["disp"][:, 2] = -3.0
    fields["disp"][n // 2] = [9.0, 9.0, disp]
    write_lpbf(path, pos, elems, fields, {"case_name": path.stem})


def published(name):
    header, *rows = (PUBLISHED / name).read_text().splitlines()
    table = {row.split()[0]: [float(v) for v in row.split()[1:]] for row in rows}
    return header.split(), {k: dict(zip(COLUMNS, v, strict=True)) for k, v in table.items()}


def test_one_case(tmp_path):
    bar(tmp_path / "a.npz", cells=2, size=(1.0, 1.0, 0.6))
    row = measure_case(tmp_path / "a.npz")
    assert row.num_vertices == 12
    assert row.num_edges == 40
    assert row.edges_per_vert == pytest.approx(40 / 12)
    assert row.avg_aspect_ratio == pytest.approx((1 / 0.6 + 1.2 / 1.0) / 2, rel=1e-6)
    assert row.max_aspect_ratio == pytest.approx(1 / 0.6, rel=1e-6)
    assert row.max_z == pytest.approx(1.8)
    assert (row.max_disp, row.max_vmstr) == (0.5, 900.0)  # u_z alone, with its sign


def test_aspect_ratio_of_the_published_mesh():
    """0.6 mm layers on 60 mm / 128: the modal ratio of the set, 1.28."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]] * 2, dtype=np.float32)
    corners[4:, 2] = 1
    pos = corners * np.float32([60 / 128, 60 / 128, 0.6])
    assert aspect_ratios(pos, np.arange(8)[None]) == pytest.approx([1.28], rel=1e-5)
    assert aspect_ratios(corners * np.float32([1, 1, 0]), np.arange(8)[None])[0] == math.inf


def test_columns_and_limits_are_the_published_ones():
    header, everything = published("dataset_statistics_all3398.txt")
    _, kept = published("dataset_statistics_filtered1390.txt")
    assert header == list(COLUMNS)
    rows = [CaseStatistics("x", *(float(i + k) for k in range(8))) for i in range(5)]
    ours = summary_table(rows).splitlines()
    assert ours[0].split() == header
    assert [line.split()[0] for line in ours[1:]] == list(everything) == list(kept)
    defaults = {k: p.default for k, p in inspect.signature(filter_cases).parameters.items()}
    for column, argument in LIMITS.items():
        assert kept["max"][column] <= defaults[argument] < everything["max"][column]
        assert kept["max"][column] > 0.95 * defaults[argument]  # none tighter than published


def test_summary_figures():
    values = [4.0, 1.0, 2.0, 8.0, math.nan]
    rows = [CaseStatistics("x", 1, 1, 1.0, 1.0, 1.0, 1.0, v, 1.0) for v in values]
    table = {r.split()[0]: float(r.split()[7]) for r in summary_table(rows).splitlines()[1:]}
    assert table == {
        **dict(zip(["count", "mean", "std"], [4, 3.75, 3.095696], strict=True)),
        **dict(zip(["min", "25%", "50%", "75%", "max"], [1, 1.75, 3, 5, 8], strict=True)),
    }


def test_statistics_of_a_folder(tmp_path, capsys):
    bar(tmp_path / "train" / "a.npz", cells=2)
    bar(tmp_path / "test" / "b.npz", cells=5, vmstr=100.0)
    bar(tmp_path / "a_series" / "step_0001.npz")  # a state, not a case
    rows = case_statistics(tmp_path, table=tmp_path / "table.csv", workers=1)
    assert [r.case_name for r in rows] == ["b", "a"]
    assert capsys.readouterr().out == summary_table(rows) + "\n"
    with (tmp_path / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["case_name"] for row in table] == ["b", "a"]
    assert float(table[0]["max_vmstr"]) == 100.0
    assert list(table[0]) == ["case_name", *COLUMNS]
    case_statistics(tmp_path, workers=1, log=False)
    assert capsys.readouterr().out == ""


def test_filter(tmp_path, capsys):
    bar(tmp_path / "good.npz")
    bar(tmp_path / "just.npz", disp=1.0, vmstr=2000.0)
    bar(tmp_path / "big.npz", cells=40)
    bar(tmp_path / "thin.npz", size=(1.0, 0.3, 0.6))
    bar(tmp_path / "bent.npz", disp=1.001)
    bar(tmp_path / "hot.npz", vmstr=2001.0)
    bar(tmp_path / "both.npz", disp=5.0, vmstr=math.nan)
    kept = filter_cases(tmp_path, max_nodes=100, workers=1)
    assert kept == ["good", "just"]
    assert (tmp_path / "include_list.txt").read_text() == "good\njust\n"
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"2 of 7 cases kept, listed in {tmp_path / 'include_list.txt'}"
    counts = {line.split()[2]: int(line.split()[0]) for line in out[1:]}
    assert counts == dict(zip(LIMITS, [1, 0, 1, 2, 2], strict=True))
    data = LPBFDataset(tmp_path, num_val=0)
    names = data.store.names + data.with_split("test").store.names
    assert sorted(names) == ["good", "just"]
    more = filter_cases(
        tmp_path, max_displacement=math.inf, max_von_mises=math.inf, workers=1, out=tmp_path / "o"
    )
    assert sorted(more) == ["bent", "big", "both", "good", "hot", "just"]


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.npz files in"):
        case_statistics(tmp_path)
    bar(tmp_path / "a" / "x.npz")
    bar(tmp_path / "b" / "x.npz")
    with pytest.raises(ValueError, match="are called x"):
        filter_cases(tmp_path, workers=1)
    np.savez(tmp_path / "z.npz", pos=np.zeros((3, 3)), elems=np.arange(8)[None])
    with pytest.raises(ValueError, match=r"z\.npz: it has no hexahedra"):
        case_statistics(tmp_path, workers=1)
