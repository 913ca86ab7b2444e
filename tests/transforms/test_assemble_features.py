from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Batch, Data

from flare_geo.transforms import AssembleFeatures, FourierFeatures


def case(n=7, offset=0.0):
    rows = torch.arange(float(n))[:, None] + offset
    return Data(
        pos=rows.repeat(1, 3),
        x=torch.cat([rows + 100, rows + 200], dim=1),
        area=rows[:, 0] + 300,
        kind=torch.ones(n, 1, dtype=torch.int64),
        param=torch.tensor([[offset + 1, offset + 2]]),
    )


def test_columns_stand_in_the_order_given():
    data = AssembleFeatures(["x[1]", "param", "area", "pos[0:2]", "kind", "x"])(case())
    assert data.x.dtype == torch.float32
    assert data.x[3].tolist() == [203, 1, 2, 303, 3, 3, 1, 103, 203]


def test_globals_of_a_batch():
    batch = Batch.from_data_list([case(3), case(1, 50.0), case(2, 90.0)])
    data = AssembleFeatures(["param[1]", "pos[0]"], into="features")(batch)
    assert data.features.tolist() == [[2, 0], [2, 1], [2, 2], [52, 50], [92, 90], [92, 91]]


def test_by_channel_names():
    channels = {
        "pos": [SimpleNamespace(name=n) for n in ("x", "y", "z")],
        "x": [SimpleNamespace(name="thickness"), SimpleNamespace(name="load")],
        "param": [SimpleNamespace(name="speed"), SimpleNamespace(name="load")],
    }
    transform = AssembleFeatures.named(channels, ["thickness", "speed", "z", "x", "pos"])
    assert transform.names == ("x[0]", "param[0]", "pos[2]", "x", "pos")
    assert transform(case()).x[2].tolist() == [102, 1, 2, 102, 202, 2, 2, 2]
    with pytest.raises(ValueError, match=r"there is no channel 'mass'; there are pos, x, param, y"):
        AssembleFeatures.named(channels, ["mass"])
    with pytest.raises(ValueError, match=r"channels are called 'load': x\[1\], param\[1\]; write"):
        AssembleFeatures.named(channels, ["load"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["norml", "x", "speed[0]"],
            r"^AssembleFeatures: no norml, speed; there are area \[7\], cube \[7, 2, 2\]",
        ),
        (["x[2]"], r"^'x\[2\]': field 'x' has 2 columns$"),
        (["odd"], r"field 'odd' has 4 rows, expected 7 \(per point\) or 1 \(per case\)$"),
        (["cube"], r"^field 'cube' has shape \[7, 2, 2\], expected \[n, c\]$"),
    ],
)
def test_missing_columns(names, message):
    data = case()
    data.odd, data.cube = torch.ones(4, 1), torch.ones(7, 2, 2)
    with pytest.raises(ValueError, match=message) as caught:
        AssembleFeatures(names)(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "into", "message"),
    [
        ("x", "x", "names must be a list of names, got 'x'"),
        ([], "x", r"names must be a list of names, got \[\]"),
        (["x["], "x", r"'x\[' names no columns"),
        (["x[-1]"], "x", "names no columns"),
        (["x"], "pos", "into must name a field but pos"),
        (["x"], "a b", "into must name a field but pos"),
    ],
)
def test_wrong_arguments(names, into, message):
    with pytest.raises(ValueError, match=message):
        AssembleFeatures(names, into)


def test_fourier_features_are_those_of_the_model():
    from flare_geo.nn import FourierFeatures as InModel

    data = Data(pos=torch.rand(9, 2) * 2 - 1, x=torch.rand(9, 1))
    expected = InModel(5)(data.pos.double()).float()
    torch.testing.assert_close(FourierFeatures(5)(Data(pos=data.pos)).x, expected[:, 2:])
    x = FourierFeatures(5, of="pos[1]")(data).x
    assert torch.equal(x[:, :1], data.x)
    torch.testing.assert_close(x[:, 1:], InModel(5)(data.pos[:, 1:].double()).float()[:, 1:])
    with pytest.raises(ValueError, match="num_frequencies must be a whole number from 1 on"):
        FourierFeatures(0)
    with pytest.raises(ValueError, match="into must name a field but pos"):
        FourierFeatures(2, into="pos")
