import math

import pytest
import torch
from closeness import close
from torch_geometric.data import Batch, Data

from flare_geo.transforms import Rotate
from flare_geo.transforms.rotate import rotation_matrix


def case(n=50, d=3, name="run_1"):
    generator = torch.Generator().manual_seed(n)
    pos = torch.randn(n, d, generator=generator)
    y = torch.randn(n, d + 1, generator=generator)
    stress = torch.randn(n, d * d, generator=generator)
    return Data(pos=pos, y=y, normal=torch.roll(pos, 1, 0), stress=stress, name=name)


def test_right_hand_rule():
    for axis, before, after in (("x", 1, 2), ("y", 2, 0), ("z", 0, 1)):
        turned = Rotate(angle=90, axis=axis)(Data(pos=torch.eye(3)[[before]])).pos
        torch.testing.assert_close(turned, torch.eye(3)[[after]], rtol=0, atol=3e-7)
    turned = Rotate(angle=120, axis=(1, 1, 1))(Data(pos=torch.eye(3))).pos
    torch.testing.assert_close(turned, torch.eye(3)[[1, 2, 0]], rtol=0, atol=3e-7)
    turned = Rotate(angle=30)(Data(pos=torch.tensor([[2.0, 0.0]]))).pos
    torch.testing.assert_close(turned, torch.tensor([[math.sqrt(3), 1.0]]))


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("angle", [37.0, (10, 50), None])
def test_vectors_turn_with_the_points(d, angle):
    """What is made of scalar products stays, and everything comes back."""
    vectors = ["normal", f"y[1:{d + 1}]"]
    transform = Rotate(vectors, angle=angle, tensors=["stress"])
    data = case(d=d)
    turned = transform(data)
    assert (turned.pos - data.pos).abs().max() > 0.1
    for field in ("pos", "normal"):
        torch.testing.assert_close(turned[field].norm(dim=1), data[field].norm(dim=1))
    for one, other in (("pos", "normal"), ("normal", "pos")):
        torch.testing.assert_close(turned[one] @ turned[other].T, data[one] @ data[other].T)
    torch.testing.assert_close(turned.y[:, 1:] @ turned.pos.T, data.y[:, 1:] @ data.pos.T)
    assert torch.equal(turned.y[:, 0], data.y[:, 0])
    form = [
        torch.einsum("ni,nij,nj->n", c.normal, c.stress.reshape(-1, d, d), c.pos)
        for c in (data, turned)
    ]
    torch.testing.assert_close(*form, rtol=1e-5, atol=1e-5)
    back = transform.inverse(turned)
    assert set(back.keys()) == set(data.keys())
    for field in ("pos", "normal", "y", "stress"):
        close(back[field], data[field], terms=3)


def test_a_prediction_is_turned_back():
    data = case()
    transform = Rotate(["y[1:4]"])
    turned = transform(Data(pos=data.pos))  # a case to predict has no targets
    matrix = turned.rotation.reshape(3, 3)
    turned.pred = torch.cat([data.y[:, :1], data.y[:, 1:] @ matrix.T], dim=1)
    close(transform.inverse(turned).pred, data.y, terms=3)


def test_random_angles():
    angles = []
    for i in range(400):
        turned = Rotate(angle=(20, 60), seed=0)(Data(pos=torch.tensor([[1.0, 0.0]]), name=i))
        angles.append(math.degrees(math.atan2(*turned.pos[0].flip(0).tolist())))
    angles = torch.tensor(angles)
    assert angles.min() > 20
    assert angles.max() < 60
    assert abs(float(angles.mean()) - 40) < 2  # standard error 0.6
    kept = Rotate(axis="z", seed=3)(case()).pos[:, 2]
    assert torch.equal(kept, case().pos[:, 2])


def test_any_is_even_over_the_sphere():
    matrices = [Rotate(axis="any", seed=0)(case(1, name=i)).rotation for i in range(1000)]
    matrices = torch.cat(matrices).reshape(-1, 3, 3)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).repeat(1000, 1, 1))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(1000))
    image = matrices[:, :, 2]  # of the z axis
    assert image.mean(dim=0).abs().max() < 0.08  # standard error 0.018
    torch.testing.assert_close(image.T @ image / 1000, torch.eye(3) / 3, rtol=0, atol=0.05)
    # cos of the turning angle has mean -1/2 over all rotations, 0 over all angles
    cosine = (torch.einsum("nii->n", matrices) - 1) / 2
    assert abs(float(cosine.mean()) + 0.5) < 0.06


def test_clouds_of_a_batch_turn_by_themselves():
    cases = [case(n, name=f"run_{n}") for n in (4, 1, 9)]
    transform = Rotate(["normal", "y[1:4]"], axis="any", seed=0, tensors=["stress"])
    one = transform(Batch.from_data_list(cases))
    other = Batch.from_data_list([transform(c) for c in cases])
    assert one.rotation.shape == (3, 9)
    for field in ("pos", "normal", "y", "stress", "rotation"):
        close(one[field], other[field], terms=3)
    back = transform.inverse(one)
    close(back.stress, torch.cat([c.stress for c in cases]), terms=3)


def test_matrix_of_a_known_angle():
    torch.testing.assert_close(
        rotation_matrix(60, "z", 2),
        torch.tensor([[0.5, -math.sqrt(0.75)], [math.sqrt(0.75), 0.5]], dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vectors": "normal"}, r"^Rotate: vectors must be a list of names, write \['normal'\]$"),
        ({"vectors": ["y[a]"]}, r"^'y\[a\]' names no columns; write 'x', 'x\[2\]' or 'x\[0:3\]'$"),
        ({"vectors": ["y[3:3]"]}, "3 is not below 3"),
        ({"vectors": ["pos"]}, "^Rotate: 'pos' is turned in any case, leave it out$"),
        ({"angle": "x"}, "^Rotate: angle must be degrees"),
        ({"angle": (5, 1)}, "^Rotate: angle must be degrees"),
        ({"angle": math.nan}, "^Rotate: angle must be degrees"),
        ({"axis": "w"}, "^Rotate: axis must be x, y, z, any or three numbers, got 'w'$"),
        ({"axis": (0, 0, 0)}, "^Rotate: axis must be"),
        ({"axis": (0, 1)}, "^Rotate: axis must be"),
        ({"axis": "any", "angle": 3}, "^Rotate: axis='any' draws the angle too, leave it out$"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rotate(**arguments)


def test_wrong_data():
    with pytest.raises(ValueError, match=r"no field 'velocity'; there are normal \[50, 3\], pos"):
        Rotate(["velocity"])(case())
    with pytest.raises(ValueError, match=r"'y\[0:2\]' has shape \[50, 2\], expected \[50, 3\]"):
        Rotate(["y[0:2]"])(case())
    with pytest.raises(ValueError, match=r"'y\[2:5\]': field 'y' has 4 columns"):
        Rotate(["y[2:5]"])(case())
    with pytest.raises(ValueError, match="in the plane the axis is 'z', got 'any'"):
        Rotate(axis="any")(case(d=2))
    with pytest.raises(ValueError, match="'rotation' is there, undo the earlier Rotate first"):
        Rotate()(Rotate()(case()))
    with pytest.raises(ValueError, match="no field 'rotation', the data were not turned by it"):
        Rotate().inverse(case())
