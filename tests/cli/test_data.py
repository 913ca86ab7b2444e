"""`flare-geo data`: what a person sees of a data set before training on it."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from netfabb_results import netfabb

from flare_geo.cli.main import main
from flare_geo.datasets.readers.lpbf_format import read_lpbf

DARCY = Path(__file__).parents[1] / "data" / "darcy"
SIGMA = "Random_UnitCell_sigma_10.npy"


@pytest.fixture
def raw(cells, tmp_path):
    """A copy of the generated cells that a test may spoil."""
    return shutil.copytree(cells, tmp_path / "cells", ignore=shutil.ignore_patterns("processed"))


@pytest.fixture
def inspect(capsys):
    def run(*arguments):
        capsys.readouterr()
        assert main(["data", "inspect", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def test_inspect_shows_the_statistics_of_each_split(raw, inspect):
    out = inspect("elasticity", "--root", raw)
    assert "elasticity train, generated: 10 cases, 972 to 972 points, 9720 in total" in out
    assert "elasticity test, generated: 2 cases" in out
    sigma = np.load(raw / SIGMA)[:, :10]
    words = next(line for line in out.splitlines() if "von Mises stress [Pa]" in line)
    words = words.replace(",", "").split("; ")[1].split()
    assert [float(words[i]) for i in (1, 3, 4, 6)] == pytest.approx(
        [sigma.mean(), sigma.std(), sigma.min(), sigma.max()], rel=1e-4
    )
    for split in ("train", "val", "test"):
        path = raw / "processed" / f"elasticity_{split}.png"
        assert f"histograms: {path}" in out
        assert imread(path).std() > 0.05


def test_inspect_points_out_what_is_unusual_or_unsound(raw, inspect, tmp_path):
    sigma = np.load(raw / SIGMA)
    sigma[:, 4] *= 40
    sigma[7, 2] = np.nan
    np.save(raw / SIGMA, sigma)
    out = inspect("elasticity", "--root", raw, "--split", "train", "--png", tmp_path / "a.png")
    assert "elasticity train, generated: 9 cases" in out
    assert "left out: cell_0002: field 'y' holds 1 non-finite values (first at point 7)" in out
    assert "unusual: cell_0004: " in out
    assert out.count("unusual") == out.count("unusual: cell_0004")
    assert "elasticity test" not in out
    assert (tmp_path / "a.png").is_file()


def test_inspect_checks_every_case(raw, inspect):
    arguments = ("elasticity", "--root", raw, "--split", "test", "--check", "true")
    assert "checksums: correct" in inspect(*arguments)
    with h5py.File(raw / "processed" / "elasticity_test.h5", "a") as file:
        file["points/y"][-1, 0] += 1
    assert "checksums: damaged: cell_0019; delete the file" in inspect(*arguments)


def test_inspect_takes_options_of_the_set(inspect, tmp_path):
    darcy = shutil.copytree(DARCY, tmp_path / "darcy")
    out = inspect("darcy_small", "--root", darcy, "--split", "test", "--data.resolution", "32")
    assert "darcy_small test: 50 cases, 1024 to 1024 points" in out


def test_netfabb_results_become_a_set(tmp_path, capsys):
    folders = [str(netfabb(tmp_path / n, name=n)) for n in ("bracket", "post")]
    out = tmp_path / "out"
    assert main(["data", "convert", "netfabb", *folders, "--out", str(out), "--workers", "1"]) == 0
    assert sorted(p.name for p in out.glob("*.npz")) == ["bracket.npz", "post.npz"]
    assert read_lpbf(out / "post.npz")["disp"].shape[1] == 3
    capsys.readouterr()
    assert main(["data", "statistics", "--root", str(out), "--workers", "1"]) == 0
    assert "num_vertices" in capsys.readouterr().out
    limits = ["--max_von_mises", ".inf", "--max_displacement", ".inf", "--workers", "1"]
    assert main(["data", "filter", "--root", str(out), *limits]) == 0
    assert "2 of 2 cases kept" in capsys.readouterr().out
    assert (out / "include_list.txt").read_text().split() == ["bracket", "post"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["inspect", "elasticities", "--root", "x"],
            "data inspect: there is no 'elasticities', choose one of elasticity, darcy,",
        ),
        (["convert", "ansys", "x"], "data convert: there is no 'ansys', choose one of netfabb"),
        (["convert", "netfabb", "nowhere"], "required: out"),
        (["filter"], "required: root"),
    ],
)
def test_wrong_usage(arguments, words, capsys):
    assert main(["data", *arguments]) == 2
    err = capsys.readouterr().err.strip()
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "netfabb", "nowhere", "--out", "x"], "no such folder"),
        (["statistics", "--root", "nowhere"], "nowhere"),
        (["inspect", "elasticity", "--root", "nowhere"], "there is no such folder"),
        (["inspect", "darcy_small", "--root", "x", "--data.size", "3"], "size"),
    ],
)
def test_what_is_not_there(arguments, words, capsys):
    assert main(["data", *arguments]) == 1
    err = capsys.readouterr().err.strip()
    assert words in err
    assert len(err.splitlines()) == 1
