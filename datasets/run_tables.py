"""Numbered runs: published lists of them by split, and the tables with their numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flare_geo.datasets.base import Channel


class Table(NamedTuple):
    """A CSV file: its name in the folder of run {i}, that of the one for all runs, its columns."""

    of_run: str
    of_all: str | None
    columns: tuple[Channel, ...]


class Run(NamedTuple):
    """Where a run lies: the file with its fields and, by field, the table with its numbers."""

    number: int
    path: Path
    tables: dict[str, Path]

    def __str__(self) -> str:
        return f"run_{self.number}"


RunLists = dict[str, tuple[int, ...]]
"""Run numbers by split."""


def run_lists(public: Iterable[int], **held_out: str) -> RunLists:
    """The runs of each split given as text ``"4 22 56"``, and all other public ones to train on."""
    splits = {split: {int(i) for i in text.split()} for split, text in held_out.items()}
    train = set(public).difference(*splits.values())
    return {k: tuple(sorted(v)) for k, v in {"train": train, **splits}.items()}


def own_lists(splits: str | Path | Mapping[str, Sequence[int]], names: Iterable[str]) -> RunLists:
    """A user's lists of runs, from a mapping or a JSON file with one.

    Args:
        splits: ``{"train": [1, 2, ...], "test": [...]}``, or the path of a file with that.
        names: The published lists, for messages.

    Raises:
        ValueError: not of this form, or a run in two splits.
    """
    given: Any = splits
    if isinstance(splits, str | Path):
        try:
            given = json.loads(Path(splits).read_text(encoding="utf-8"))
        except OSError:
            known = ", ".join(f"'{name}'" for name in names)
            raise ValueError(f"splits must be {known} or a JSON file, got '{splits}'") from None
        except ValueError as error:
            raise ValueError(f"{splits} is not JSON ({error})") from None
    try:
        lists = {str(k): tuple(sorted({int(i) for i in v})) for k, v in given.items()}
    except (AttributeError, TypeError, ValueError):
        wanted = '{"train": [1, 2, ...], "test": [...]}'
        raise ValueError(f"splits must be of the form {wanted}, got {given!r:.80}") from None
    seen: dict[int, str] = {}
    for split, numbers in lists.items():
        for i in numbers:
            if i in seen:
                raise ValueError(f"splits: run {i} is in both '{seen[i]}' and '{split}'")
            seen[i] = split
    return lists


def read_row(path: Path, columns: Sequence[str], number: int) -> list[float]:
    """Numbers of a run from a CSV table: of one row, or of many with the run in a column ``run``.

    Blanks around names and the case of letters do not matter: the published tables differ there.

    Raises:
        ValueError: a column or the row is missing, or not numbers; says which there are.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    names = [name.strip().lower() for name in header]
    if absent := [name for name in columns if name.lower() not in names]:
        there = ", ".join(name.strip() for name in header)
        raise ValueError(f"{path} has no column {', '.join(absent)}, only '{there:.200}'")
    if "run" in names:
        place = names.index("run")
        rows = [row for row in rows if "".join(row[place : place + 1]).strip() == str(number)]
    if len(rows) != 1:
        raise ValueError(f"{path}: expected one row for run {number}, got {len(rows)}")
    try:
        return [float(rows[0][names.index(name.lower())]) for name in columns]
    except (ValueError, IndexError):
        got = ",".join(rows[0])
        raise ValueError(f"{path}: expected {len(header)} numbers, got '{got:.200}'") from None


def compact(numbers: Iterable[int]) -> str:
    """Numbers as text, runs of them shortened, at most twenty of them: ``"1-4 7 9-10"``."""
    ranges: list[list[int]] = []
    for i in sorted(numbers):
        if ranges and ranges[-1][-1] == i - 1:
            ranges[-1][1:] = [i]
        else:
            ranges.append([i])
    shown = ["-".join(map(str, ends)) for ends in ranges[:20]]
    return " ".join(shown) + (" ..." if len(ranges) > 20 else "")
