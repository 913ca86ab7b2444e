"""LPBF simulations layer by layer: from the state of a part to what the next layer adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.lpbf import POSITION, TARGETS, expand_targets, find_cases, stack_targets
from flare_geo.datasets.readers.lpbf_format import read_lpbf, read_metadata
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

SAME_PLACE = 1e-3  # mm; nodes nearer than this are one
BUILT = Channel("built", "1", "1 where the node was there before this step, else 0")


class LPBFSeriesDataset(PackedDataset):
    r"""Steps of builds by laser powder bed fusion: state before a layer, increment through it.

    For your own simulations: ``flare-geo data convert netfabb CASE_DIR... --out ROOT --series``
    writes one file per state, each with its own mesh. No such set is published.

    ::

        root/<case>_series/step_0001.npz    pos, elems, disp, vmstr, temp and _metadata with the
        root/<case>_series/step_0002.npz    time, as in :class:`LPBFDataset`
        root/processed/lpbf_series_{train,val,test}.h5

    One sample is one step from :math:`u_i` to :math:`u_{i+1}`, on the mesh after it: its nodes are
    all that is built by then. The state before is carried over to the nodes at the same place;
    nodes that are new start from 0, and the column ``built`` of ``x`` tells them apart:

    .. math:: x = [u_i, \text{built}], \qquad y = u_{i+1} - u_i

    The first step of a case starts from nothing. Of states written at the same time the last one
    counts (Netfabb writes just before and just after a deposition), but the last two of a case,
    cooled on the plate and removed from it, are always steps of their own.

    Whole cases are held out: those of val and test are in no step of train. They are dealt out as
    those of :class:`LPBFDataset`, also by folders ``train`` and ``test``.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        targets: What the state consists of, as for :class:`LPBFDataset`.
        num_val: Cases held out of train; None: an eleventh.

    Shapes:
        ``pos [n, 3]`` mm, ``x [n, t + 1]``, ``y [n, t]``, ``cells [m, 8]``; ``previous [n, 1]``
        int64: the node at this place in the step before, -1 if new; ``step [1, 2]`` int64: numbers
        of the states before and after; ``name`` like ``"bracket_step_0007"``.

    Example:
        >>> test = LPBFSeriesDataset("data/mine", "test")
        >>> after = test[0].x[:, :-1] + test[0].y  # the state after the step, [n, t]
    """

    name: ClassVar[str] = "lpbf_series"
    how_to_get: ClassVar[str] = (
        "convert simulations of yours: flare-geo data convert netfabb CASE_DIR... --out {root} "
        "--series"
    )
    shows: ClassVar[tuple[str, ...]] = ("targets",)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: CaseTransform | None = None,
        pre_transform: CaseTransform | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
        log: bool = True,
        *,
        targets: str | Sequence[str] = "displacement",
        num_val: int | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        self.targets, self.num_val = expand_targets(targets), num_val
        state = [TARGETS[target][2] for target in self.targets]
        before = (Channel(c.name, c.unit, f"{c.meaning}, before the step") for c in state)
        change = (Channel(f"change of {c.name}", c.unit, f"{c.meaning}, added") for c in state)
        self.channels = {"pos": POSITION, "x": (*before, BUILT), "y": tuple(change)}
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )
        if len(self.store):
            self.present(self.store[0])  # are the targets there?

    @property
    def options(self) -> dict[str, Any]:
        """What decides which cases are packed."""
        return {k: v for k, v in super().options.items() if v is not None}

    @property
    def packed_channels(self) -> dict[str, tuple[Channel, ...]]:
        """The state before and after is packed whole; what it consists of is up to the files."""
        return {"pos": POSITION, "built": (BUILT,)}

    def raw_files(self) -> list[Path]:
        """All states of the split."""
        return [state for case in self._series() for state in sorted(case.glob("step_*.npz"))]

    def cases(self) -> Sequence[tuple[Path | None, Path]]:
        """The files before and after each step; None before the first."""
        steps: list[tuple[Path | None, Path]] = []
        for case in self._series():
            files = sorted(case.glob("step_*.npz"))
            times = [read_metadata(file).get("time") for file in files]
            chosen = [files[i] for i in choose_states(times)]
            steps += zip([None, *chosen[:-1]], chosen, strict=True)
        return steps

    def read_case(self, key: tuple[Path | None, Path]) -> Data:
        """One step: the state after it, the state before it on the same nodes, and what is new."""
        from scipy.spatial import cKDTree

        before_file, after_file = key
        after = read_lpbf(after_file)
        n = len(after["pos"])
        previous = torch.full((n,), -1)  # [n]
        before: dict[str, Any] = {}
        if before_file is not None:
            before = read_lpbf(before_file)
            if odd := sorted(before.keys() ^ after.keys()):
                raise ValueError(
                    f"only one of {before_file} and {after_file.name} holds '{odd[0]}'"
                )
            _, nearest = cKDTree(before["pos"]).query(after["pos"], distance_upper_bound=SAME_PLACE)
            there = torch.from_numpy(nearest) < len(before["pos"])  # the tree says n for none
            previous[there] = torch.from_numpy(nearest)[there]
        case = after_file.parent.name.removesuffix("_series")
        numbers = [0 if file is None else int(file.stem.rpartition("_")[2]) for file in key]
        data = Data(
            pos=torch.from_numpy(after["pos"]),
            cells=torch.from_numpy(after["elems"]),
            built=(previous >= 0).float()[:, None],
            previous=previous[:, None],
            step=torch.tensor([numbers]),
            name=f"{case}_step_{numbers[1]:04d}",
        )
        for name in sorted(after.keys() - {"pos", "elems"}):
            data[name] = torch.from_numpy(after[name])
            zero = torch.zeros(0, data[name].shape[1])
            state = zero if before_file is None else torch.from_numpy(before[name])
            data[f"before_{name}"] = carry(state, data.previous)
        return data

    def present(self, data: Data) -> Data:
        """Put the chosen targets in ``x`` and ``y``."""
        before = stack_targets(data, self.targets, "before_")
        data.x = torch.cat([before, data.built], dim=1)
        data.y = stack_targets(data, self.targets) - before
        for name in {array for array, *_ in TARGETS.values()}:
            for key in (name, f"before_{name}"):
                if key in data:
                    del data[key]
        del data.built
        return data

    def _series(self) -> list[Path]:
        found = find_cases(Path(self.root), "*_series", self.num_val)
        if found is None:
            how = self.how_to_get.format(root=self.root)
            raise FileNotFoundError(f"{self.name}: no folders NAME_series in {self.root}; {how}")
        return found[self.split]


def carry(state: Tensor, previous: Tensor) -> Tensor:
    """A state on the nodes of the next step, 0 where they are new. ``[p, t], [n, 1] -> [n, t]``."""
    there = previous[:, 0] >= 0
    carried = state.new_zeros(len(previous), state.shape[1])
    carried[there] = state[previous[there, 0]]
    return carried


def choose_states(times: Sequence[float | None]) -> list[int]:
    """The last of each run of equal times, and in any case the last two; all if times are unknown.

    >>> choose_states([0, 10, 10, 20, 20, 90, 90])
    [0, 2, 4, 5, 6]
    """
    n = len(times)
    return [i for i in range(n) if i >= n - 2 or times[i] is None or times[i] != times[i + 1]]
