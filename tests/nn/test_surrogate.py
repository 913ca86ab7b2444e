import errno
import json

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

import flare_geo.nn.checkpoint as checkpoint_module
from flare_geo.nn import Flare, PointModel, Scaler, Surrogate
from flare_geo.nn.surrogate import Field

INPUTS = [Field("pos", "x", "m"), Field("pos", "y", "m"), Field("x", "a", "1")]
OUTPUTS = [Field("y", "p", "Pa")]


def make(seed=0):
    torch.manual_seed(seed)
    model = Flare(3, 1, 16, 1, 2, 4, init="default")
    scalers = (
        Scaler(torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 2, 2])),
        Scaler(torch.tensor([50.0]), torch.tensor([7.0])),
    )
    return Surrogate(model, INPUTS, OUTPUTS, *scalers, info={"dataset": {"name": "toy"}})


def cloud(n):
    return Data(pos=torch.rand(n, 2), x=torch.rand(n, 1))


def test_physical_units_in_and_out():
    surrogate, case = make(), cloud(9)
    x = (torch.cat([case.pos, case.x], 1) - torch.tensor([1.0, 2, 3])) / 2
    torch.testing.assert_close(surrogate(case), surrogate.model(x) * 7 + 50)


def test_predict_works_on_a_case_and_on_a_batch():
    surrogate, clouds = make().train(), [cloud(5), cloud(1), cloud(30)]
    together = surrogate.predict(Batch.from_data_list(clouds)).pred
    alone = torch.cat([surrogate.predict(c).pred for c in clouds])
    torch.testing.assert_close(together, alone)
    assert not together.requires_grad
    assert surrogate.training


def test_each_submodule_keeps_the_mode_it_was_in():
    surrogate, case = make().train(), cloud(9)
    surrogate.model.blocks[0].eval()
    modes = [module.training for module in surrogate.modules()]
    assert len(set(modes)) == 2
    surrogate.predict(case)
    surrogate.predict(case, 4)
    states = surrogate.encode(case)
    surrogate.answer(case, states)
    with pytest.raises(ValueError, match="not finite"):
        surrogate.predict(Data(pos=case.pos / 0, x=case.x))
    assert [module.training for module in surrogate.modules()] == modes


def test_an_answer_in_chunks_is_the_same():
    surrogate, clouds = make(), Batch.from_data_list([cloud(5), cloud(1), cloud(30)])
    states = surrogate.encode(clouds)
    whole = surrogate.answer(clouds, states).pred
    torch.testing.assert_close(surrogate.answer(clouds, states, 4).pred, whole)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        surrogate.answer(clouds, states, 0)
    assert surrogate.predict(cloud(0)).pred.shape == (0, 1)


class Mine(PointModel):
    """A model of a user's own, which remembers its arguments."""

    def __init__(self, in_channels, out_channels, width=5):
        super().__init__(in_channels, out_channels)
        self.config = {"in_channels": in_channels, "out_channels": out_channels, "width": width}
        self.layers = nn.Sequential(nn.Linear(in_channels, width), nn.Linear(width, out_channels))

    def forward(self, x, ptr=None, batch=None):
        return self.layers(x)


def test_a_model_of_ones_own_is_given_as_a_class_or_an_instance(tmp_path):
    torch.manual_seed(0)
    surrogate, case = Surrogate(Mine(3, 1, width=7), INPUTS, OUTPUTS).eval(), cloud(9)
    surrogate.save_pretrained(tmp_path)
    for given in (Mine, Mine(3, 1, 7)):
        assert torch.equal(Surrogate.from_pretrained(tmp_path, given)(case), surrogate(case))
    with pytest.raises(ValueError, match="pass model=Mine, your class, or an instance of it"):
        Surrogate.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not fit its model: size mismatch"):
        Surrogate.from_pretrained(tmp_path, Mine(3, 1, 6))
    with pytest.raises(ValueError, match="holds a Mine, which Linear does not fit"):
        Surrogate.from_pretrained(tmp_path, nn.Linear)


def test_arguments_that_json_cannot_hold_ask_for_an_instance(tmp_path):
    model = Mine(3, 1)
    model.config = {"act": nn.ReLU()}
    Surrogate(model, INPUTS, OUTPUTS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not hold the arguments of its Mine: pass model=Mine\("):
        Surrogate.from_pretrained(tmp_path, Mine)
    assert Surrogate.from_pretrained(tmp_path, Mine(3, 1)).model.layers[0].in_features == 3


def test_save_and_load(tmp_path):
    surrogate, case = make(), cloud(9)
    surrogate.save_pretrained(tmp_path / "model")
    again = Surrogate.from_pretrained(tmp_path / "model")
    assert torch.equal(again(case), surrogate.eval()(case))
    assert again.inputs == INPUTS
    assert again.info["dataset"] == {"name": "toy"}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architecture"]["class"] == "Flare"
    again.save_pretrained(tmp_path / "copy")
    files = [(tmp_path / f / "config.json").read_text() for f in ("model", "copy")]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["save", "json.dumps"])
def test_a_full_disk_keeps_the_former_checkpoint_whole(tmp_path, monkeypatch, name):
    make(0).save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    target, _, attribute = f"checkpoint_module.{name}".rpartition(".")
    owner = checkpoint_module if target == "checkpoint_module" else checkpoint_module.json
    monkeypatch.setattr(owner, attribute, full)
    with pytest.raises(OSError, match="No space left"):
        make(1).save_pretrained(tmp_path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Data(pos=torch.rand(9, 2)), r"reads 'x' with 1 channels \(a\), got no such field"),
        (
            Data(pos=torch.rand(9, 3), x=torch.rand(9, 1)),
            r"reads 'pos' with 2 channels \(x, y\), got \[9, 3\]",
        ),
        (
            Data(pos=torch.tensor([[0.0, float("nan")]]), x=torch.rand(1, 1)),
            r"input 'pos' \(y\) is not finite at point 0",
        ),
    ],
)
def test_wrong_inputs_are_named(case, message):
    with pytest.raises(ValueError, match=message):
        make().predict(case)


def test_scalers_must_fit_the_channels():
    with pytest.raises(ValueError, match="input_scaler has 2 channels, but there are 3"):
        Surrogate(Flare(3, 1), INPUTS, OUTPUTS, Scaler.identity(2))


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match=r"has format 99, flare_geo .* reads format 1"):
        Surrogate.from_pretrained(tmp_path)


def test_scaler_streams_what_a_whole_pass_gives():
    x = torch.randn(1000, 3, dtype=torch.float64) * torch.tensor([1, 1e-3, 1e3]) + 1e4
    parts = x.split([1, 0, 399, 600])
    scaler = Scaler.fit(parts)
    torch.testing.assert_close(scaler.mean, x.mean(0).float())
    torch.testing.assert_close(scaler.std, x.std(0, correction=0).float(), rtol=1e-5, atol=0)


def test_scaler_of_a_constant_channel_keeps_its_unit():
    scaler = Scaler.fit([torch.full((10, 1), 3.3), torch.full((5, 1), 3.3)])
    assert scaler.std.tolist() == [1]
    assert torch.isfinite(scaler(torch.full((1, 1), 4.0))).all()


def test_scaler_refuses_what_is_no_number():
    with pytest.raises(ValueError, match="must be finite"):
        Scaler.fit([torch.tensor([[1.0], [float("inf")]])])
    with pytest.raises(ValueError, match="no point in the training data"):
        Scaler.fit([])
