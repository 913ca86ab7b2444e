"""Reads the ``.case`` file of EnSight Gold results: which files belong to which state.

VTK reads such results too, but finds a state by its time, so of several states with the same time
(which Netfabb writes) only the last can be had. Here a state is found by its number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flare_geo.datasets.readers.ensight import COMPONENTS


class Files(NamedTuple):
    """A file name with ``*`` for the number, its time set and its file set."""

    pattern: str
    time_set: int | None
    file_set: int | None


class Variable(NamedTuple):
    """What a case file says of a variable: ``Variable("vector", "node", files)``."""

    kind: str
    per: str
    files: Files


class TimeSet(NamedTuple):
    """Times of the states and the numbers in their file names."""

    times: list[float]
    numbers: list[int]


@dataclass(frozen=True)
class EnSightCase:
    """What a ``.case`` file says; no other file is opened for it.

    Args:
        path: The file.
        model: Its geometry.
        variables: By name.
        time_sets: By number.
        file_sets: By number: name index and number of states of each file.
    """

    path: Path
    model: Files
    variables: dict[str, Variable] = field(default_factory=dict)
    time_sets: dict[int, TimeSet] = field(default_factory=dict)
    file_sets: dict[int, list[tuple[int | None, int]]] = field(default_factory=dict)

    def times_of(self, files: Files) -> list[float]:
        """Times of the states of these files; [0.0] if they do not change."""
        return [0.0] if files.time_set is None else self.time_sets[files.time_set].times

    def locate(self, files: Files, step: int) -> tuple[Path, int]:
        """The file that holds a state, and which of the file's states that is."""
        number, within = None, 0
        if files.time_set is not None:
            number = self.time_sets[files.time_set].numbers[step]
        if files.file_set is not None:
            within = step
            for index, count in self.file_sets[files.file_set]:
                number = index if index is not None else number
                if within < count:
                    break
                within -= count
        name = files.pattern
        if number is not None:
            name = re.sub(r"\*+", lambda m: f"{number:0{len(m[0])}d}", name)
        return self.path.parent / name, within

    def meshes_for(self, files: Files, step: int) -> list[int]:
        """States of the geometry that a state of a variable may belong to, the likeliest first.

        That is the last mesh that is not younger; if several have its time, the one with the same
        rank among them. A state written just before a deposition carries the time of the mesh that
        comes with it, so the neighbours follow; the number of values decides.
        """
        meshes = np.array(self.times_of(self.model))
        if len(meshes) == 1 or files.time_set == self.model.time_set:
            return [min(step, len(meshes) - 1)]
        times = np.array(self.times_of(files))
        slack = 1e-6 * max(1.0, abs(times[step]))  # times are printed with few digits
        older = np.flatnonzero(meshes <= times[step] + slack)
        newest = meshes[older[-1]] if len(older) else meshes[0]
        same = np.flatnonzero(np.abs(meshes - newest) <= slack).tolist()
        peers = np.flatnonzero(np.abs(times - times[step]) <= slack).tolist()
        likely = same[peers.index(step)] if len(peers) == len(same) else same[-1]
        around = [likely, *reversed(same), same[0] - 1, same[-1] + 1]
        return [i for i in dict.fromkeys(around) if 0 <= i < len(meshes)]


def read_case(path: str | Path) -> EnSightCase:
    """Read a ``.case`` file of type EnSight Gold.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not one, or names a time or file set that it does not describe.
    """
    path = Path(path)
    model: Files | None = None
    variables: dict[str, Variable] = {}
    raw_times: list[dict[str, str]] = []
    raw_files: list[list[tuple[str, str]]] = []
    section = kind = ""
    for section, key, value in _entries(path):
        if section == "FORMAT" and key == "type":
            kind = value
        elif section == "GEOMETRY" and key == "model":
            if "change_coords_only" in value:
                raise ValueError(f"{path}: a model with change_coords_only is not read")
            model = _files(value.split())
        elif section == "VARIABLE" and " per " in key:
            what, _, per = key.partition(" per ")
            words = value.split()
            if what in COMPONENTS and per in ("node", "element") and len(words) > 1:
                variables[words[-2]] = Variable(what, per, _files([*words[:-2], words[-1]]))
        elif section == "TIME":
            if key == "time set":
                raw_times.append({})
            if raw_times:
                raw_times[-1][key] = value
        elif section == "FILE":
            if key == "file set":
                raw_files.append([])
            if raw_files:
                raw_files[-1].append((key, value))
    if " ".join(kind.split()).lower() != "ensight gold" or model is None:
        raise ValueError(f"{path} is not an EnSight Gold case file (its type is '{kind}')")
    try:
        time_sets = dict(_time_set(entries) for entries in raw_times)
        file_sets = dict(_file_set(entries) for entries in raw_files)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: its TIME or FILE section cannot be read ({error})") from None
    first = min(time_sets, default=None)

    def settled(files: Files) -> Files:
        if files.time_set is None and "*" in files.pattern:
            files = files._replace(time_set=first)
        for what, number, there in (
            ("time", files.time_set, time_sets),
            ("file", files.file_set, file_sets),
        ):
            if number is not None and number not in there:
                raise ValueError(
                    f"{path}: {files.pattern} names {what} set {number}, not described"
                )
        return files

    variables = {k: v._replace(files=settled(v.files)) for k, v in variables.items()}
    return EnSightCase(path, settled(model), variables, time_sets, file_sets)


def _entries(path: Path) -> list[tuple[str, str, str]]:
    """Section, key and value of each line; lines of more numbers belong to the value before."""
    entries: list[tuple[str, str, str]] = []
    section = ""
    for raw in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = raw.split("#")[0].strip()
        key, colon, value = line.partition(":")
        if not line:
            continue
        if colon:
            entries.append((section, " ".join(key.split()), value.strip()))
        elif line.isupper():
            section = line
        elif entries:
            *key_of, before = entries[-1]
            entries[-1] = (key_of[0], key_of[1], f"{before} {line}")
    return entries


def _files(words: list[str]) -> Files:
    numbers = [int(w) for w in takewhile(str.isdigit, words[:-1])]
    time_set, file_set = [*numbers, None, None][:2]
    return Files(words[len(numbers)].strip('"'), time_set, file_set)


def _time_set(entries: dict[str, str]) -> tuple[int, TimeSet]:
    number, count = int(entries["time set"].split()[0]), int(entries["number of steps"])
    times = [float(t) for t in entries["time values"].split()]
    if "filename numbers" in entries:
        numbers = [int(n) for n in entries["filename numbers"].split()]
    else:
        start = int(entries.get("filename start number", 0))
        step = int(entries.get("filename increment", 1))
        numbers = [start + i * step for i in range(count)]
    if not len(times) == len(numbers) == count:
        raise ValueError(f"time set {number}: {count} steps, {len(times)} times")
    return number, TimeSet(times, numbers)


def _file_set(entries: list[tuple[str, str]]) -> tuple[int, list[tuple[int | None, int]]]:
    number, files, index = int(entries[0][1].split()[0]), [], None
    for key, value in entries:
        if key == "filename index":
            index = int(value)
        elif key == "number of steps":
            files.append((index, int(value)))
    return number, files
