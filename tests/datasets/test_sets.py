"""What holds for every data set: its options, its name, its packed file."""

import inspect
import json
import os
import re
import shutil
from io import BytesIO
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from torch_geometric.data import Data

import flare_geo.datasets
from flare_geo.datasets import (
    DATASETS,
    ListOpsDataset,
    LPBFDataset,
    PackedDataset,
    PackedStore,
    Reading,
    write_store,
)
from flare_geo.datasets.store.hooks import identify
from flare_geo.transforms import Normals

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "data" / "stores_8516c32"
PACKED = json.loads((OLD / "packed.json").read_text())
POINTS = 20
STATE = {"disp": 3, "before_disp": 3, "temp": 1, "before_temp": 1}  # of a step of lpbf_series


def stand_in(data):
    """A store in memory with the fields that a set packs, and without raw files."""
    torch.manual_seed(0)
    cases = []
    for i in range(2):
        fields = {k: torch.rand(POINTS, len(v)) for k, v in data.packed_channels.items()}
        if data.name == "lpbf_series":
            fields |= {k: torch.rand(POINTS, width) for k, width in STATE.items()}
        if data.name == "retrieval":
            fields["lengths"] = torch.tensor([[8, POINTS - 8]], dtype=torch.int32)
        cases.append(Data.from_dict(fields | {"name": f"case_{i}"}))
    buffer = BytesIO()
    write_store(buffer, cases, {"source": {"generated": True}})
    return PackedStore(buffer)


def root_of(name, folder):
    if name == "mesh_folder":
        pv = pytest.importorskip("pyvista")
        for i in range(5):
            ball = pv.Sphere(theta_resolution=5, phi_resolution=5)
            ball["h"], ball["U"] = ball.points[:, 2], ball.points
            ball.save(folder / f"b{i}.vtp")
        (folder / "t.csv").write_text("case,speed\n" + "".join(f"b{i},{i}\n" for i in range(5)))
        (folder / "s.json").write_text('{"train": ["b0"], "test": ["b1"]}')
    return folder


@pytest.fixture
def unpacked(monkeypatch):
    monkeypatch.setattr(PackedDataset, "_open_store", stand_in)


def test_one_place_knows_all_sets():
    assert len(DATASETS) == 19
    assert all(name == cls.name for name, cls in DATASETS.items())
    assert {cls.__name__ for cls in DATASETS.values()} <= set(flare_geo.datasets.__all__)
    table = (ROOT / "README.md").read_text().partition("## Data sets\n")[2].partition("\n## ")[0]
    rows = "".join(row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) >= DATASETS.keys()


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_takes_the_common_options(name, tmp_path, unpacked):
    root = root_of(name, tmp_path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=PackedDataset)
    cls = DATASETS[name]
    words = [f"--data={cls.__module__}.{cls.__name__}", f"--data.root={root}", "--data.workers=3"]
    words += ["--data.num_points=10", "--data.skip_unsound=true"]
    data = parser.instantiate(parser.parse_args(words)).data
    assert type(data) is cls
    assert (data.num_points, data.workers, data.skip_unsound) == (10, 3, True)
    case = data[0]
    assert len(case.pos) == case.num_nodes == 10
    assert data.sizes == [10, 10]
    other = data.with_split("test")
    assert (other.num_points, other.workers, other.skip_unsound) == (10, 3, True)
    assert len(cls(root, num_points=None)[0].pos) == POINTS
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_point'"):
        cls(root, num_point=10)


@pytest.mark.parametrize("name", DATASETS)
def test_signatures_hold_the_common_options(name):
    base = inspect.signature(PackedDataset).parameters
    mine = inspect.signature(DATASETS[name]).parameters
    assert list(mine)[:7] == list(base)[:7]
    assert all(mine[key].default == base[key].default for key in base)
    assert mine.keys() >= Reading.__annotations__.keys()


def test_help_says_what_the_common_options_are(capsys):
    parser = ArgumentParser()
    parser.add_argument("--data", type=PackedDataset)
    for name in ("DarcyDataset", "ElasticityDataset"):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--data.help=flare_geo.datasets.{name}"])
        text = " ".join(capsys.readouterr().out.split())
        for words in (
            "--data.num_points NUM_POINTS Draw this many random points",
            "--data.skip_unsound {true,false} Leave out cases that are not sound",
            "--data.workers WORKERS Processes that read the raw files when they are packed",
            "--data.root ROOT Folder of the raw files",
        ):
            assert words in text


def test_a_sample_of_a_pair_says_how_many_points_of_each_are_in_it(tmp_path, unpacked):
    data = DATASETS["retrieval"](tmp_path, num_points=11)
    shards = [data.shard(0, rank, 3) for rank in range(3)]
    whole = data[0]
    assert int(whole.lengths.sum()) == 11
    assert torch.equal(torch.cat([shard.pos for shard in shards]), whole.pos)
    assert torch.equal(sum(shard.lengths for shard in shards), whole.lengths)
    first = DATASETS["retrieval"](tmp_path)[0].pos[:8]
    held = int(whole.lengths[0, 0])
    assert [bool((point == first).any()) for point in whole.pos] == [i < held for i in range(11)]


@pytest.mark.parametrize(("name", "options", "file", "hashed"), PACKED)
def test_packed_files_of_an_older_revision_keep_name_and_content(
    name, options, file, hashed, tmp_path, unpacked
):
    data = DATASETS[name](root_of(name, tmp_path), **options)
    assert data.path.name == file
    assert data._content_hash() == hashed
    if not {"resolution", "splits", "split"} & options.keys():  # these know no such split
        other = data.with_split("test")
        assert other.path.name == file.replace("_train.h5", "_test.h5")
        assert other.channels == data.channels


@pytest.mark.parametrize(
    ("cls", "options"), [(ListOpsDataset, {"max_length": 20}), (LPBFDataset, {"num_val": 0})]
)
def test_a_store_of_an_older_revision_is_not_packed_again(cls, options, tmp_path, monkeypatch):
    root = Path(shutil.copytree(OLD / cls.name, tmp_path / "root"))
    (root / "packed").rename(root / "processed")
    for path in root.rglob("*.*"):
        if path.suffix in (".npz", ".tsv"):
            os.utime(path, ns=(1_700_000_000 * 10**9,) * 2)
    monkeypatch.setattr(cls, "read_case", None)
    data = cls(root, **options)
    assert len(data) == 2
    assert data.store.find_damage() == []
    assert data[1].pos.shape[0] == data.sizes[1]


def test_a_transform_is_recognised_by_what_it_keeps():
    given = Normals(neighbors=8)
    text, recognised = identify(given)
    assert recognised
    assert text == identify(Normals(8))[0] != identify(Normals(9))[0]
