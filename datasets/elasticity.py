"""The Geo-FNO elasticity set: stress in a stretched unit cell with a void."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.grids import HOW_TO_GET, download_archive, load_npy
from flare_geo.pyg import Data

FILES = tuple(f"Random_UnitCell_{key}_10.npy" for key in ("XY", "sigma", "rr"))
NUM_POINTS, NUM_ANGLES = 972, 42
CENTRE = 0.5
MARGIN = 0.01  # the curve through the radii and the edge of the mesh differ by less
CHANNELS: dict[str, tuple[Channel, ...]] = {
    "pos": (
        Channel("x", "1", "first coordinate in the unit cell"),
        Channel("y", "1", "second coordinate in the unit cell, along the traction"),
    ),
    "y": (Channel("von Mises stress", "Pa", "von Mises stress at the point"),),
}


class ElasticityDataset(PackedDataset):
    r"""Von Mises stress at 972 points of a unit cell with a random void, pulled at its top edge.

    From `Geo-FNO <https://arxiv.org/abs/2207.05209>`_ (Li, Huang, Liu, Anandkumar, 2022): the
    Google Drive folder named in its `repository <https://github.com/neuraloperator/Geo-FNO>`_
    (MIT; the data carry no licence of their own), also in ``Geo-FNO.tar.gz`` (8.6 GB, all six
    benchmarks) at https://huggingface.co/datasets/vedantpuri/PDESurrogates. :meth:`generate`
    computes a set of the same form; ``source["generated"]`` tells the two apart.

    The cell is :math:`[0,1]^2` with a void of radius :math:`r(\varphi) \in [0.2, 0.4]` around its
    centre, clamped at the bottom, under a traction (0, 100) at the top; the material is an
    incompressible Rivlin-Saunders rubber, :math:`C_1 = 1.863\cdot10^5, C_2 = 9.79\cdot10^3`.

    ::

        root/Random_UnitCell_XY_10.npy      [972, 2, n]  points, the sample axis last
        root/Random_UnitCell_sigma_10.npy   [972, n]     stress
        root/Random_UnitCell_rr_10.npy      [42, n]      void radius at 42 angles, optional
        root/SOURCE.json                                 only beside generated files
        root/processed/elasticity_{train,val,test}.h5

    The three may lie in ``root``, ``root/raw`` or together in any folder below. Officially n =
    2000, but one rule serves any n:

    ======  ====================================  ==============
    split   samples                               at n = 2000
    ======  ====================================  ==============
    train   the first n // 2                      0 ... 999
    val     the n // 10 that follow               1000 ... 1199
    test    the last n // 10                      1800 ... 1999
    ======  ====================================  ==============

    The literature trains on the first 1000, tests on the last 200 and leaves the 800 between
    unused. Of those, 200 are held out here for choosing checkpoints, so that nothing is ever
    chosen by looking at the test samples.

    The data set has no mesh. ``face`` is the Delaunay triangulation of the points less the void,
    counter-clockwise, for pictures and integrals; no layer needs it. Where the radii are missing
    the void is found from the points. The arguments are those of :class:`PackedDataset`.

    Shapes:
        ``pos [972, 2]`` in the unit cell; ``y [972, 1]`` von Mises stress. The source states no
        unit; the material constants are those of a rubber in Pa. ``face [3, f]``, f about 1700;
        ``name`` like ``"cell_0042"`` by sample index. No ``x``.

    Raises:
        ValueError: an array of another shape, a pickled or broken file, non-finite values.
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> ElasticityDataset.generate("data/elasticity", num_samples=20)
        >>> train = ElasticityDataset("data/elasticity", "train")
        >>> train[0]
        Data(face=[3, 1728], pos=[972, 2], y=[972, 1], name='cell_0000')
    """

    name: ClassVar[str] = "elasticity"
    channels = CHANNELS
    how_to_get: ClassVar[str] = (
        HOW_TO_GET.format(archive="Geo-FNO.tar.gz (8.6 GB)", name=name)
        + ", or run: flare-geo data generate elasticity --root {root}"
    )

    @classmethod
    def download(cls, root: str | Path, log: bool = True) -> None:
        """Fetch Geo-FNO.tar.gz (8.6 GB) into ``root`` and unpack the files of this set."""
        download_archive("Geo-FNO.tar.gz", "Meshes/Random_UnitCell_*_10.npy", root, log)

    @classmethod
    def generate(
        cls,
        root: str | Path,
        num_samples: int = 2000,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        """Solve ``num_samples`` cells and write them to ``root`` in the official form.

        Args:
            root: Folder for the files.
            num_samples: Officially 2000.
            seed: The same seed gives the same cells.
            workers: Number of processes; None lets the generator choose.
        """
        from flare_geo.datasets.generators.elasticity import generate_elasticity

        generate_elasticity(root, num_samples=num_samples, seed=seed, workers=workers)

    def raw_files(self) -> list[Path]:
        """Points and stress, and the void radii if they lie beside the points."""
        points = self.find_raw(FILES[0])
        radius = points.with_name(FILES[2])
        files = [points, self.find_raw(FILES[1])]
        return [*files, radius] if radius.is_file() else files

    def cases(self) -> range:
        """Indices of the samples of the split."""
        n = self._arrays()[0].shape[2]
        return {
            "train": range(n // 2),
            "val": range(n // 2, n // 2 + n // 10),
            "test": range(n - n // 10, n),
        }[self.split]

    def read_case(self, key: int) -> Data:
        """Sample ``key``, from memory-mapped arrays."""
        points, stress, radius = self._arrays()
        pos = np.array(points[:, :, key], dtype=np.float64)  # [972, 2]
        return Data(
            pos=torch.from_numpy(pos).float(),
            y=torch.from_numpy(np.array(stress[:, key], dtype=np.float32)).unsqueeze(1),
            face=_face(pos, None if radius is None else radius[:, key]),
            name=f"cell_{key:04d}",
        )

    def _arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
        points_file, stress_file, *radius_file = self.raw_files()
        points = load_npy(points_file, (NUM_POINTS, 2, None))
        n = points.shape[2]
        radius = load_npy(radius_file[0], (NUM_ANGLES, n)) if radius_file else None
        return points, load_npy(stress_file, (NUM_POINTS, n)), radius


def _face(pos: NDArray[Any], radius: NDArray[Any] | None) -> torch.Tensor | None:
    from scipy.spatial import QhullError

    if not np.isfinite(pos).all():
        return None  # reported with its field when the case is packed
    if radius is not None and not np.isfinite(radius).all():
        raise ValueError("the void radii hold non-finite values")
    try:
        return torch.from_numpy(triangulate(pos, radius))
    except QhullError:
        raise ValueError("its points span no area") from None


def triangulate(pos: NDArray[Any], radius: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Delaunay triangles of the points of a unit cell, counter-clockwise, without the void.

    The void is what one reaches from the centre through triangles with a large circumscribed
    circle: the circle of a triangle across the void is about as large as the void (Delaunay
    circles hold no points), that of a triangle of the material about as large as the spacing.
    The radii, where given, overrule this for triangles that lie clearly inside or outside.

    Shapes:
        ``pos [n, 2]``, ``radius [42]`` on equal angles from 0 to 2 pi, returns ``[3, f]``.
    """
    from scipy.interpolate import CubicSpline
    from scipy.spatial import Delaunay

    mesh = Delaunay(pos)
    a, b, c = (pos[mesh.simplices[:, i]] for i in range(3))  # [f, 2]
    ab, ac, bc = b - a, c - a, c - b
    twice_area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    edges = np.stack([np.hypot(*e.T) for e in (ab, ac, bc)])  # [3, f]
    flat = np.abs(twice_area) < 1e-4 * edges.max(axis=0) ** 2  # along the straight outer edges
    circumradius = edges.prod(axis=0) / np.maximum(2 * np.abs(twice_area), 1e-300)
    void = _reach(mesh, circumradius, ~flat)
    if radius is not None:
        closed = np.append(radius[:-1], radius[0])
        curve = CubicSpline(np.linspace(0, 2 * np.pi, len(closed)), closed, bc_type="periodic")
        x, y = ((a + b + c) / 3 - CENTRE).T
        depth = curve(np.arctan2(y, x) % (2 * np.pi)) - np.hypot(x, y)
        void = (void & (depth > -MARGIN)) | (depth > MARGIN)
    keep = ~(void | flat)
    face = mesh.simplices.astype(np.int64)
    face[twice_area < 0] = face[twice_area < 0][:, ::-1]
    return np.ascontiguousarray(face[keep].T)


def _reach(mesh: Any, circumradius: NDArray[Any], sound: NDArray[Any]) -> NDArray[np.bool_]:
    """Triangles connected to the one at the centre through circles far above the usual."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    large = circumradius > 2.5 * np.median(circumradius[sound])
    start = int(mesh.find_simplex([CENTRE, CENTRE]))
    large[start] = True
    one = np.repeat(np.arange(len(large), dtype=np.int32), 3)  # csgraph takes no int64
    other = mesh.neighbors.ravel()
    both = (other >= 0) & large[one] & large[other]
    links = coo_array((both[both], (one[both], other[both])), shape=(len(large), len(large)))
    _, label = connected_components(links, directed=False)
    return large & (label == label[start])
