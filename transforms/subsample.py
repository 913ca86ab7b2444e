"""A random sample of the points of a cloud."""

from __future__ import annotations

import torch

from flare_geo.pyg import Data
from flare_geo.transforms.base import (
    Transform,
    drop_connectivity,
    one_cloud,
    point_fields,
    positions,
    whole_number,
)
from flare_geo.transforms.case_generator import case_generator


class Subsample(Transform):
    """Keeps ``num_points`` points of the cloud, drawn without replacement, in random order.

    With a seed a case gives the same points on every access, whatever the process or the order of
    the cases: they are drawn from the seed and ``data.name``. ``FixedPoints`` of PyG draws from
    global generators of two libraries, with replacement unless told otherwise.

    This reads the whole cloud first. For large clouds in a packed store use ``num_points=`` of
    the data set, which reads only the sample.

    Args:
        num_points: How many to keep. A cloud that has no more is kept whole.
        seed: None draws anew on every access.

    Shapes:
        Fields with one row per point are cut to ``[num_points, .]``, others stay; ``face``,
        ``cells`` and ``edge_index`` are dropped, their points are gone.

    Raises:
        ValueError: num_points below one, batched data, or :meth:`inverse`.

    Example:
        >>> data = Data(pos=torch.rand(50, 3), y=torch.rand(50, 1), name="run_7")
        >>> Subsample(20, seed=0)(data)
        Data(y=[20, 1], pos=[20, 3], name='run_7')
    """

    def __init__(self, num_points: int, seed: int | None = None) -> None:
        self.num_points = whole_number(self, "num_points", num_points, 1)
        self.seed = None if seed is None else whole_number(self, "seed", seed, 0)

    def forward(self, data: Data) -> Data:
        """Draw the sample."""
        pos = positions(self, data)
        one_cloud(self, data)
        generator = case_generator(self.seed, data.get("name", ""))
        chosen = torch.randperm(len(pos), generator=generator)[: self.num_points].to(pos.device)
        for key in point_fields(data):
            data[key] = data[key][chosen]
        drop_connectivity(data)
        return data

    def _inverse(self, data: Data) -> Data:
        raise ValueError("Subsample cannot be undone: the points it left out are not in the data")
