"""Rotation of points together with their vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import Transform, clouds, listing, positions, whole_number
from flare_geo.transforms.case_generator import case_generator
from flare_geo.transforms.channels import Columns

AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


class Rotate(Transform):
    r"""Turns ``pos`` and the vectors at the points about an axis through the origin.

    :math:`p' = R p`, :math:`v' = R v`, :math:`T' = R T R^\top`. ``RandomRotate`` of PyG turns the
    positions only, which leaves velocities, wall shear and normals pointing where they were.

    A random rotation is kept in ``rotation [1, d d]`` for the way back, also after batching, where
    every cloud has its own. What is said of ``y`` holds for ``pred`` too, so that the inverse
    turns a prediction back; both may be missing, all else must be there.

    Args:
        vectors: The columns that form vectors: ``"normal"``, ``"y[1:4]"``, d columns each.
        angle: In degrees: a number, or (low, high) to draw from; None draws from (0, 360).
        axis: ``"x"``, ``"y"``, ``"z"`` or a direction; ``"any"`` draws evenly from all rotations.
            In the plane there is only ``"z"``.
        seed: For random angles. None draws anew on every access; a number always gives a case
            (by ``data.name``) the same rotation.
        tensors: The columns that form d x d tensors, row by row: ``"stress"``, d d columns each.

    Shapes:
        ``pos [n, d]``, d = 2 or 3; all shapes stay.

    Raises:
        ValueError: columns that are missing or of another number, an axis of no length, or data
            which already hold the random rotation of an earlier :class:`Rotate`.

    Example:
        >>> data = Data(pos=torch.tensor([[1.0, 0, 0]]), normal=torch.tensor([[0.0, 1, 0]]))
        >>> turned = Rotate(["normal"], angle=90)(data)
        >>> turned.pos.round().tolist(), turned.normal.round().tolist()
        ([[0.0, 1.0, 0.0]], [[-1.0, 0.0, 0.0]])
    """

    def __init__(
        self,
        vectors: Sequence[str] = (),
        angle: float | Sequence[float] | None = None,
        axis: str | Sequence[float] = "z",
        seed: int | None = None,
        tensors: Sequence[str] = (),
    ) -> None:
        for what, names in (("vectors", vectors), ("tensors", tensors)):
            if isinstance(names, str):
                raise ValueError(f"Rotate: {what} must be a list of names, write ['{names}']")
        self.vectors = tuple(str(Columns.parse(name)) for name in vectors)
        self.tensors = tuple(str(Columns.parse(name)) for name in tensors)
        if "pos" in {Columns.parse(name).field for name in self.vectors + self.tensors}:
            raise ValueError("Rotate: 'pos' is turned in any case, leave it out")
        self.angle = _angle(angle)
        self.axis = _axis(axis)
        if self.axis == "any" and self.angle is not None:
            raise ValueError("Rotate: axis='any' draws the angle too, leave it out")
        self.seed = None if seed is None else whole_number(self, "seed", seed, 0)

    def forward(self, data: Data) -> Data:
        """Turn the points and what belongs to them."""
        d = positions(self, data).shape[1]
        if d == 2 and self.axis != "z":
            raise ValueError(f"Rotate: in the plane the axis is 'z', got {self.axis!r}")
        if not isinstance(self.angle, float):
            if "rotation" in data:
                raise ValueError("Rotate: 'rotation' is there, undo the earlier Rotate first")
            count = len(clouds(data)[1]) - 1
            name = data.get("name", "")
            names = name if isinstance(name, list) else [name] * count
            drawn = torch.stack([self._draw(name, d) for name in names])  # [B, d, d]
            data["rotation"] = drawn.flatten(1).to(data["pos"])
        return self._turn(data, back=False)

    def _inverse(self, data: Data) -> Data:
        positions(self, data)
        if not isinstance(self.angle, float) and "rotation" not in data:
            raise ValueError("Rotate: no field 'rotation', the data were not turned by it")
        data = self._turn(data, back=True)
        if not isinstance(self.angle, float):
            del data["rotation"]
        return data

    def _draw(self, name: object, d: int) -> Tensor:
        generator = case_generator(self.seed, name)
        if self.axis == "any":
            return from_quaternion(torch.randn(4, generator=generator, dtype=torch.float64))
        low, high = self.angle if isinstance(self.angle, tuple) else (0.0, 360.0)
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return rotation_matrix(low + (high - low) * share, self.axis, d)

    def _turn(self, data: Data, back: bool) -> Data:
        pos = data["pos"]
        d = pos.shape[1]
        if isinstance(self.angle, float):
            matrix = rotation_matrix(self.angle, self.axis, d).to(pos.device).unsqueeze(0)
        else:
            matrix = data["rotation"].double().reshape(-1, d, d)
        matrix = matrix.mT if back else matrix
        if len(matrix) > 1:
            matrix = matrix[clouds(data)[0]]  # [n, d, d]
        data["pos"] = _turn_vectors(pos, matrix)
        for names, width, turn in (
            (self.vectors, d, _turn_vectors),
            (self.tensors, d * d, _turn_tensors),
        ):
            for name in names:
                for columns in self._present(data, Columns.parse(name)):
                    value = columns.read(data)
                    if value.shape != (len(pos), width):
                        raise ValueError(
                            f"Rotate: '{columns}' has shape {list(value.shape)}, "
                            f"expected [{len(pos)}, {width}]"
                        )
                    whole = data[columns.field].clone()
                    whole[:, columns.part] = turn(value, matrix)
                    data[columns.field] = whole
        return data

    def _present(self, data: Data, columns: Columns) -> list[Columns]:
        wanted = [columns]
        if columns.field == "y":
            wanted = [c for c in (columns, columns._replace(field="pred")) if c.field in data]
        elif columns.field != "pred" and columns.field not in data:
            raise ValueError(f"Rotate: no field '{columns.field}'; there are {listing(data)}")
        return [c for c in wanted if c.field in data]


def rotation_matrix(degrees: float, axis: str | Sequence[float] = "z", d: int = 3) -> Tensor:
    """The matrix ``[d, d]`` that turns by an angle, counter-clockwise seen from the axis' tip."""
    half = math.radians(degrees) / 2
    direction = AXES[axis] if isinstance(axis, str) else axis
    unit = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0)
    quaternion = torch.cat([unit.new_tensor([math.cos(half)]), math.sin(half) * unit])
    return from_quaternion(quaternion)[:d, :d]


def from_quaternion(quaternion: Tensor) -> Tensor:
    """The rotation ``[3, 3]`` of a quaternion (w, x, y, z) of any length but zero."""
    w, x, y, z = (quaternion / quaternion.norm()).tolist()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _turn_vectors(value: Tensor, matrix: Tensor) -> Tensor:
    """``[n, d]`` by ``[1, d, d]`` or ``[n, d, d]``."""
    if len(matrix) == 1:
        return (value.double() @ matrix[0].T).to(value.dtype)
    return (matrix @ value.double().unsqueeze(-1)).squeeze(-1).to(value.dtype)


def _turn_tensors(value: Tensor, matrix: Tensor) -> Tensor:
    d = matrix.shape[-1]
    tensor = value.double().reshape(-1, d, d)
    return (matrix @ tensor @ matrix.mT).reshape(-1, d * d).to(value.dtype)


def _angle(angle: Any) -> float | tuple[float, float] | None:
    if angle is None:
        return None
    try:
        values = [float(a) for a in ([angle] if isinstance(angle, int | float) else angle)]
    except (TypeError, ValueError):
        values = []
    if len(values) not in (1, 2) or not all(map(math.isfinite, values)) or values[0] > values[-1]:
        raise ValueError(f"Rotate: angle must be degrees, (low, high) or None, got {angle!r}")
    return values[0] if isinstance(angle, int | float) else (values[0], values[-1])


def _axis(axis: Any) -> str | tuple[float, ...]:
    if isinstance(axis, str) and axis in ("any", *AXES):
        return axis
    try:
        direction = [] if isinstance(axis, str) else [float(a) for a in axis]
    except (TypeError, ValueError):
        direction = []
    length = math.hypot(*direction)
    if len(direction) != 3 or not 0 < length < math.inf:
        raise ValueError(f"Rotate: axis must be x, y, z, any or three numbers, got {axis!r}")
    return tuple(direction)
