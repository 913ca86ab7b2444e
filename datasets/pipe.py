"""The Geo-FNO pipe set: laminar flow through curved pipes."""

from __future__ import annotations

from typing import ClassVar

from flare_geo.datasets.base import Channel
from flare_geo.datasets.grids import HOW_TO_GET, GridDataset

FIELDS = (
    Channel("ux", "1", "velocity along x"),
    Channel("uy", "1", "velocity along y"),
    Channel("pressure", "1", "pressure"),
)
CHANNELS = {
    "pos": (
        Channel("x", "1", "along the straight pipe"),
        Channel("y", "1", "across the straight pipe"),
    ),
    "y": FIELDS[:1],
}


class PipeDataset(GridDataset):
    r"""Incompressible flow through 2310 plane pipes with random centre lines, on 129 x 129 points.

    From `Geo-FNO <https://arxiv.org/abs/2207.05209>`_ (Li, Huang, Liu, Anandkumar, 2022): the
    Google Drive folder named in its `repository <https://github.com/neuraloperator/Geo-FNO>`_
    (MIT; the data carry no licence of their own), also in ``Geo-FNO.tar.gz`` (8.6 GB, all six
    benchmarks) at https://huggingface.co/datasets/vedantpuri/PDESurrogates.

    No slip at the walls, where the velocity is exactly zero; the inflow is the parabola
    :math:`u_x = \tfrac14\, 4t(1-t)` of the fraction :math:`t` of the width. No units are stated.

    ::

        root/Pipe_X.npy   [n, 129, 129]      points, 308 MB
        root/Pipe_Y.npy   [n, 129, 129]      308 MB
        root/Pipe_Q.npy   [n, 3, 129, 129]   velocity and pressure, 923 MB
        root/processed/pipe_{train,val,test}.h5

    They may lie in ``root``, ``root/raw`` or anywhere below, and are read through a memory map.
    Officially n = 2310, but one rule serves any n:

    ======  =======================================  ==============
    split   samples                                  at n = 2310
    ======  =======================================  ==============
    train   the first n // 2, at most 1000           0 ... 999
    test    the n // 10 that follow, at most 200     1000 ... 1199
    val     as many again                            1200 ... 1399
    ======  =======================================  ==============

    The literature trains on the first 1000, tests on the next 200 and leaves the rest unused; 200
    of those choose checkpoints here. It predicts ``ux`` from the coordinates: the default. The
    arguments are those of :class:`GridDataset`.

    Shapes:
        ``pos [16641, 2]``, grid point (i, j) in row 129 i + j; ``y [16641, 1]`` or one column for
        each of ``targets``; ``face [3, 32768]``, two triangles for every four neighbours,
        counter-clockwise; ``name`` like ``"pipe_0042"``. No ``x``.

    Raises:
        ValueError: no such target, an array of another shape, a pickled or broken file,
            non-finite values.
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> train = PipeDataset("data/pipe", targets=["ux", "uy", "pressure"])
        >>> train[0]
        Data(face=[3, 32768], pos=[16641, 2], y=[16641, 3], name='pipe_0000')
    """

    name: ClassVar[str] = "pipe"
    files: ClassVar[tuple[str, str, str]] = ("Pipe_X.npy", "Pipe_Y.npy", "Pipe_Q.npy")
    shape: ClassVar[tuple[int, int]] = (129, 129)
    fields: ClassVar[tuple[Channel, ...]] = FIELDS
    channels = CHANNELS
    how_to_get: ClassVar[str] = HOW_TO_GET.format(archive="Geo-FNO.tar.gz (8.6 GB)", name=name)
