"""Converts results of Autodesk Netfabb (EnSight Gold) to files of the LPBF data set."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flare_geo.datasets.generators.run import run_cases
from flare_geo.datasets.readers.ensight import EnSightMesh, read_geometry, read_variable
from flare_geo.datasets.readers.ensight_case import EnSightCase, read_case
from flare_geo.datasets.readers.lpbf_format import write_lpbf

FIELDS = {"Displacement": "disp", "von_Mises_stress": "vmstr", "Temperature": "temp"}
SUFFIX = "_mechanical"
ABOVE = -1e-3  # mm; the plate ends at z = 0


class State(NamedTuple):
    """The part at one moment: ``pos [n, 3]``, ``elems [m, 8]``, fields ``[n, c]``."""

    pos: NDArray[np.float32]
    elems: NDArray[np.int64]
    fields: dict[str, NDArray[np.float32]]


class Outcome(NamedTuple):
    """What became of a case: its file, or why there is none; and what was unusual."""

    case: str
    path: Path | None
    notes: list[str]


def convert_netfabb(
    case_dirs: Sequence[Path],
    out: Path,
    *,
    series: bool = False,
    workers: int | None = None,
    log: bool = True,
) -> list[Path]:
    """Convert Autodesk Netfabb results (EnSight Gold) to the files of the LPBF set.

    The last state of each case, the part after removal from the plate, becomes ``out/NAME.npz``,
    ready for :class:`LPBFDataset` (``LPBFDataset(out)`` splits them). With ``series`` every state
    also becomes a file ``out/NAME_series/step_0001.npz`` with the mesh it has, ready for
    :class:`LPBFSeriesDataset`. Of each state the part is kept; what lies below z = 0, the plate,
    is left out. A variable whose files are absent is left out with a note. A case that cannot be
    converted does not hold up the others.

    Args:
        case_dirs: Folders that each hold a ``NAME_mechanical.case``, or such files.
        out: Folder for the converted files.
        series: Also write every state.
        workers: Number of processes; None: one per core.
        log: Say what was left out, show progress on a terminal.

    Returns:
        The files of the last states.

    Raises:
        FileNotFoundError: a folder holds no case file.
        ValueError: several case files in a folder, two cases of the same name, or cases that could
            not be converted: all are named, after the others were converted.
    """
    files = [_case_file(Path(place)) for place in case_dirs]
    names = [_name(file) for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several cases are called {twice[0]}: convert them into other folders")
    task = partial(_attempt, out=Path(out), series=series)
    done, failed = [], []
    for outcome in run_cases(task, files, workers=workers, log=log):
        if outcome.path is None:
            failed.append(f"{outcome.case}: {'; '.join(outcome.notes)}")
            continue
        done.append(outcome.path)
        for note in outcome.notes if log else ():
            print(f"{outcome.case}: {note}", file=sys.stderr)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(files)} cases could not be converted, the others were: "
            f"{' | '.join(failed)}"
        )
    return done


def convert_case(case_file: Path, out: Path, series: bool = False) -> Outcome:
    """Convert one case; see :func:`convert_netfabb`.

    Raises:
        FileNotFoundError: the mesh of the last state, or all its variables, are absent.
        ValueError: a file is broken, or there is no part.
    """
    case = read_case(case_file)
    name = _name(case_file)
    notes: Counter[str] = Counter()
    nodal = [key for key in FIELDS if key in case.variables and case.variables[key].per == "node"]
    for key in FIELDS:
        if key not in nodal:
            notes[f"the case file lists no {key} per node: left out"] += 1
    if not nodal:
        raise ValueError(f"{case_file}: none of {', '.join(FIELDS)} among its variables per node")
    times = case.times_of(case.variables[nodal[0]].files)
    about = {"case_name": name, "converted_from": "Autodesk Netfabb", "time_steps": times}
    last = len(times) - 1
    state = None
    for step in range(last + 1) if series else [last]:
        try:
            state = read_state(case, nodal, step, notes)
        except FileNotFoundError as error:
            if step == last:
                raise
            notes[f"state {step + 1} is left out: {error}"] += 1
            continue
        if series and state is not None:  # else only the plate, yet
            path = out / f"{name}_series" / f"step_{step + 1:04d}.npz"
            _write(path, state, {**about, "step": step + 1, "time": times[step]})
    if state is None:
        raise ValueError(f"{case_file}: its last state has no cell above z = 0")
    texts = [f"{text} ({count} times)" if count > 1 else text for text, count in notes.items()]
    return Outcome(name, _write(out / f"{name}.npz", state, about), texts)


def read_state(
    case: EnSightCase, variables: Sequence[str], step: int, notes: Counter[str]
) -> State | None:
    """The part at a step; None if there is only the plate.

    Args:
        case: The case.
        variables: Of those in ``FIELDS``, those to read where there are files.
        step: From 0.
        notes: What is unusual is counted here.

    Raises:
        FileNotFoundError: no variable has a file for this step, or there is no mesh.
        ValueError: a file is broken, or fits no mesh around its time.
    """
    located = {}
    for key in variables:
        path, within = case.locate(case.variables[key].files, step)
        if path.is_file():
            located[key] = (path, within)
        else:
            pattern = case.variables[key].files.pattern
            notes[f"no file {pattern} of {key} for a state: left out"] += 1
    if not located:
        raise FileNotFoundError(f"{case.path.name}: no variable has a file for state {step + 1}")
    first = case.variables[next(iter(located))].files
    problems: list[ValueError] = []
    for index in case.meshes_for(first, step):
        mesh_file, at = case.locate(case.model, index)
        if problems and not mesh_file.is_file():
            continue
        mesh = read_geometry(mesh_file, at)
        try:
            fields = {
                FIELDS[key]: read_variable(path, mesh, case.variables[key].kind, within=within)
                for key, (path, within) in located.items()
            }
        except ValueError as error:  # of another mesh?
            problems.append(error)
            continue
        if mesh.left_out:
            notes[f"cells other than hexa8 ({', '.join(mesh.left_out)}) are left out"] += 1
        return _part_of(mesh, fields)
    raise problems[0]


def _write(path: Path, state: State, metadata: dict[str, Any]) -> Path:
    zmax = float(state.pos[:, 2].max())
    write_lpbf(path, state.pos, state.elems, state.fields, {**metadata, "zmax": zmax})
    return path


def _part_of(mesh: EnSightMesh, fields: dict[str, NDArray[np.float32]]) -> State | None:
    """Without the plate, and without the nodes that only the plate has."""
    above = mesh.points[:, 2] > ABOVE
    cells = mesh.cells[above[mesh.cells].all(axis=1)]  # [m, 8]
    if len(cells) == 0:
        return None
    nodes, flat = np.unique(cells, return_inverse=True)
    kept = {name: values[nodes] for name, values in fields.items()}
    return State(mesh.points[nodes], flat.reshape(cells.shape), kept)


def _attempt(case_file: Path, out: Path, series: bool) -> Outcome:
    """The outcome also of files that are broken."""
    try:
        return convert_case(case_file, out, series)
    except (ValueError, OSError) as error:
        return Outcome(_name(case_file), None, [" ".join(str(error).split())])


def _case_file(place: Path) -> Path:
    if place.is_file():
        return place
    found = sorted(place.glob(f"*{SUFFIX}.case")) or sorted(place.glob("*.case"))
    if not found:
        where = "" if place.is_dir() else " (there is no such folder)"
        raise FileNotFoundError(f"no NAME{SUFFIX}.case in {place}{where}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{place} holds several case files, name the one to convert: {names}")
    return found[0]


def _name(case_file: Path) -> str:
    return case_file.stem.removesuffix(SUFFIX)
