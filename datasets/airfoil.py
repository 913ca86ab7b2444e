"""The Geo-FNO airfoil set: transonic Euler flow past deformed NACA-0012 sections."""

from __future__ import annotations

from typing import ClassVar

from flare_geo.datasets.base import Channel
from flare_geo.datasets.grids import HOW_TO_GET, GridDataset

FIELDS = (
    Channel("density", "1", "density over that of the free stream"),
    Channel("ux", "1", "velocity along the free stream"),
    Channel("uy", "1", "velocity across the free stream"),
    Channel("pressure", "1", "pressure over that of the free stream"),
    Channel("Mach", "1", "Mach number"),
)
CHANNELS = {
    "pos": (
        Channel("x", "1", "along the free stream, in chords"),
        Channel("y", "1", "across the free stream, in chords"),
    ),
    "y": FIELDS[-1:],
}


class AirfoilDataset(GridDataset):
    r"""Inviscid flow at Mach 0.8 without incidence past 2490 airfoils, on C-grids of 221 x 51.

    From `Geo-FNO <https://arxiv.org/abs/2207.05209>`_ (Li, Huang, Liu, Anandkumar, 2022): the
    Google Drive folder named in its `repository <https://github.com/neuraloperator/Geo-FNO>`_
    (MIT; the data carry no licence of their own), also in ``Geo-FNO.tar.gz`` (8.6 GB, all six
    benchmarks) at https://huggingface.co/datasets/vedantpuri/PDESurrogates.

    The steady Euler equations with :math:`\gamma = 1.4`, far field :math:`\rho = p = 1`,
    :math:`M = 0.8`; everything is dimensionless. The first index of a grid runs along the C: from
    the outflow along the wake, around the airfoil and back; the second from the airfoil (0) to the
    far field (50), which is about 40 chords away.

    ::

        root/NACA_Cylinder_X.npy   [n, 221, 51]      points
        root/NACA_Cylinder_Y.npy   [n, 221, 51]
        root/NACA_Cylinder_Q.npy   [n, 5, 221, 51]   density, velocity, pressure, Mach number
        root/processed/airfoil_{train,val,test}.h5

    They may lie in ``root``, ``root/raw`` or anywhere below, and are read through a memory map.
    Officially n = 2490, but one rule serves any n:

    ======  =======================================  ==============
    split   samples                                  at n = 2490
    ======  =======================================  ==============
    train   the first n // 2, at most 1000           0 ... 999
    test    the n // 10 that follow, at most 200     1000 ... 1199
    val     as many again                            1200 ... 1399
    ======  =======================================  ==============

    The literature trains on the first 1000, tests on the next 200 and leaves 1290 unused; 200 of
    those choose checkpoints here. It predicts the Mach number from the bare coordinates: the
    default. The arguments are those of :class:`GridDataset`.

    Shapes:
        ``pos [11271, 2]`` in chords, grid point (i, j) in row 51 i + j; ``y [11271, 1]`` or one
        column for each of ``targets``; ``face [3, 22000]``, two triangles for every four
        neighbours, counter-clockwise (the two banks of the wake are points of their own);
        ``name`` like ``"airfoil_0042"``. No ``x``.

    Raises:
        ValueError: no such target, an array of another shape, a pickled or broken file,
            non-finite values.
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> train = AirfoilDataset("data/airfoil", targets=["pressure", "Mach"])
        >>> train[0]
        Data(face=[3, 22000], pos=[11271, 2], y=[11271, 2], name='airfoil_0000')
    """

    name: ClassVar[str] = "airfoil"
    files: ClassVar[tuple[str, str, str]] = (
        "NACA_Cylinder_X.npy",
        "NACA_Cylinder_Y.npy",
        "NACA_Cylinder_Q.npy",
    )
    shape: ClassVar[tuple[int, int]] = (221, 51)
    fields: ClassVar[tuple[Channel, ...]] = FIELDS
    channels = CHANNELS
    how_to_get: ClassVar[str] = HOW_TO_GET.format(archive="Geo-FNO.tar.gz (8.6 GB)", name=name)
