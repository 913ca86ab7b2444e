"""CONTRIBUTING says what another mixer, data set, verb and backend take; a toy does each here.

A toy is a module in a folder of its own, entered in the places that the text names and no other.
"""

import importlib
import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from closeness import close
from torch_geometric.data import Data
from toy import make_toy

from flare_geo.cli.main import VERBS, main
from flare_geo.datasets import DATASETS
from flare_geo.nn import MIXERS, Flare, Surrogate
from flare_geo.nn.surrogate import Field
from flare_geo.ops import flare_attention
from flare_geo.ops.dispatch import TABLE
from flare_geo.testing import (
    check_clouds_are_independent,
    check_parts_merge,
    check_permutation_equivariance,
)

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()

MIXER = """
    from torch import nn
    from flare_geo.nn import SumMixer
    from flare_geo.nn.mixer import layout_of
    from flare_geo.ops import merge_sums, ptr_to_batch, segment_sum

    class Mean(SumMixer):
        merges = (merge_sums,)

        def __init__(self, channels, heads=8, *, bias=True):
            super().__init__()
            self.in_channels, self.lin = channels, nn.Linear(channels, channels, bias)

        def encode(self, x, ptr=None, states=()):
            layout = layout_of(x, self.in_channels, ptr)
            return segment_sum(x, layout), layout.ptr.diff().to(x.dtype)

        def decode(self, x, states, ptr=None):
            total, points = states[0]
            mean = total / points.clamp(min=1)[:, None]
            layout = layout_of(x, self.in_channels, ptr)
            return self.lin(x) + mean[ptr_to_batch(layout.ptr, len(x))]
"""

VERB = """
    from pathlib import Path
    from flare_geo.cli.verb import Verb

    def count(file: Path, times: int = 1) -> None:
        '''Count the lines of a file.

        Args:
            file: The file.
            times: Multiplies the result.
        '''
        print(times * len(file.read_text().splitlines()))

    VERB = Verb(count, positional=("file",))
"""

BACKEND = """
    from flare_geo.ops import reference
    from flare_geo.ops.dispatch import Backend, Refusal

    CALLS = []

    def refusal(q):
        return Refusal(ValueError, "takes D = 4", q.shape[-1]) if q.shape[-1] != 4 else None

    class Kernels:
        encode, decode = reference.encode, reference.decode

        @staticmethod
        def attention(*call):
            CALLS.append(call)
            return reference.attention(*call)

    ROW = Backend(lambda: Kernels, refusal)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module into a folder of its own and import it."""
    monkeypatch.syspath_prepend(tmp_path)

    def module(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return module


@pytest.mark.parametrize("what", ["A mixer", "A data set", "A verb", "A backend"])
def test_five_lines_each(what):
    text = re.search(rf"^- \*\*{what}\*\*(.*?)(?=^- |\Z)", TEXT, re.DOTALL | re.MULTILINE)[1]
    assert len(text.strip().splitlines()) <= 5
    for name in re.findall(r"`((?:flare_geo|datasets|tests)/[\w/.]+)`", text):
        assert (Path(__file__).parents[1] / name).exists(), name


def test_a_mixer(write, monkeypatch):
    mean = write("toy_mixer", MIXER).Mean
    monkeypatch.setitem(MIXERS, "mean", mean)
    check_permutation_equivariance(mean(16), 16)
    check_clouds_are_independent(mean(16), 16)
    check_parts_merge(mean(16), 16, (7, 0, 30))
    model = Flare(2, 1, 16, 2, 4, mixer="mean", mixer_args={"bias": False})
    assert model.blocks[0].conv.lin.bias is None
    surrogate = Surrogate(
        model, [Field("pos", "x", "m"), Field("pos", "y", "m")], [Field("y", "p", "Pa")]
    )
    case = Data(pos=torch.rand(50, 2))
    whole, chunks = surrogate.predict(case), surrogate.predict(case, chunk_size=7)
    close(chunks.pred, whole.pred, terms=50, roundings=64)


def test_a_data_set(monkeypatch, tmp_path, capsys):
    from toy import ToyDataset  # a file that holds one data set and no more

    monkeypatch.setitem(DATASETS, "toy", ToyDataset)
    verb = importlib.import_module("flare_geo.cli.data")
    try:
        importlib.reload(verb)
        root = make_toy(tmp_path / "data")
        assert main(["data", "inspect", "toy", "--root", str(root), "--data.num_points", "20"]) == 0
    finally:
        monkeypatch.undo()
        importlib.reload(verb)
    said = capsys.readouterr().out
    assert "wave [Pa]" in said
    assert len(ToyDataset(root, "test", num_points=20)[0].pos) == 20


def test_a_verb(write, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "flare_geo.cli.count", write("toy_verb", VERB))
    monkeypatch.setitem(VERBS, "count", "count the lines of a file")
    (tmp_path / "three").write_text("a\nb\nc\n")
    assert main(["count", str(tmp_path / "three"), "--times", "2"]) == 0
    assert capsys.readouterr().out == "6\n"
    assert main(["count", str(tmp_path / "none")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_backend(write, monkeypatch):
    toy = write("toy_backend", BACKEND)
    monkeypatch.setitem(TABLE["flare"], "toy", toy.ROW)
    q, k, v = torch.randn(2, 3, 4), torch.randn(10, 2, 4), torch.randn(10, 2, 4)
    assert torch.equal(
        flare_attention(q, k, v, backend="toy"), flare_attention(q, k, v, backend="reference")
    )
    assert len(toy.CALLS) == 1
    with pytest.raises(ValueError, match="backend 'toy' takes D = 4, got 8"):
        flare_attention(torch.randn(2, 3, 8), *torch.randn(2, 10, 2, 8), backend="toy")
