"""Which cases of a folder belong to which split, and what is known of each case."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def divide(names: Sequence[str], splits: Mapping[str, Any] | None = None) -> dict[str, list[str]]:
    """Names of the cases of each split, sorted.

    Args:
        names: All cases there are; "a/b" is case b in folder a.
        splits: Fractions by split: names are sorted by their SHA-256 and cut. Or lists of names.
            None goes by the folders train, val and test if there is one of them, else 80, 10 and
            10 percent.

    Raises:
        ValueError: another split, fractions above one, names that are not there or named twice.

    Example:
        >>> divide(["a", "b", "c"], {"train": ["a", "c"], "test": ["b"]})
        {'train': ['a', 'c'], 'test': ['b']}
    """
    if splits is None:
        folders = {key: sorted(n for n in names if n.startswith(f"{key}/")) for key in SPLITS}
        if any(folders.values()):
            return folders
        splits = FRACTIONS
    if not isinstance(splits, Mapping) or not splits or not splits.keys() <= set(SPLITS):
        raise ValueError(
            "splits must map train, val, test to fractions or to lists of names, got "
            f"{str(splits)[:200]}"
        )
    if all(isinstance(part, (int, float)) for part in splits.values()):
        return _by_fraction(names, splits)
    if any(isinstance(part, (int, float, str)) for part in splits.values()):
        raise ValueError(
            f"splits must be all fractions or all lists of names, got {str(dict(splits))[:200]}"
        )
    known = set(names)
    for key, listed in splits.items():
        if unknown := [name for name in listed if name not in known]:
            raise ValueError(
                f"{len(unknown)} cases of split '{key}' have no file: {', '.join(unknown[:5])}; "
                f"names are like {', '.join(sorted(names)[:3])}"
            )
    everything = [name for part in splits.values() for name in part]
    if len(set(everything)) < len(everything):
        twice = next(name for name in everything if everything.count(name) > 1)
        raise ValueError(f"splits name the case '{twice}' more than once")
    return {key: sorted(listed) for key, listed in splits.items()}


def _by_fraction(names: Sequence[str], fractions: Mapping[str, float]) -> dict[str, list[str]]:
    total = sum(fractions.values())
    if min(fractions.values()) < 0 or total > 1 + 1e-9:
        raise ValueError(
            f"splits must be fractions from 0 to 1 that sum to 1 at most, got {dict(fractions)}"
        )
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    members, start, reached = {}, 0, 0.0
    for key, fraction in fractions.items():
        reached += fraction
        end = round(reached * len(order))
        members[key] = sorted(order[start:end])
        start = end
    return members


def read_splits(path: Path) -> Mapping[str, Any]:
    """Fractions or lists of names from JSON, or from text with "train name" on each line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() == ".json":
        try:
            splits = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        if not isinstance(splits, dict):
            raise ValueError(f"{path}: expected a JSON object that maps splits to names")
        return splits
    members: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        split, _, name = line.strip().partition(" ")
        if not split or split.startswith("#"):
            continue
        if split not in SPLITS or not name.strip():
            raise ValueError(
                f'{path} line {number}: expected a split and a name, as in "train a", got "{line}"'
            )
        members.setdefault(split, []).append(name.strip())
    return members


def read_table(path: Path) -> dict[str, dict[str, float]]:
    """Values by case and column; empty cells and columns of text are left out."""
    rows: dict[str, dict[str, Any]] = {}
    if path.suffix.lower() == ".json":
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            raise ValueError(f'{path}: expected {{"case": {{"column": value}}}}')
    else:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
        if not lines:
            raise ValueError(f"{path}: the table is empty")
        header = lines[0][1:]
        for number, (name, *cells) in enumerate(lines[1:], 2):
            if name in rows:
                raise ValueError(f"{path}: case '{name}' has two rows")
            if len(cells) != len(header):
                raise ValueError(
                    f"{path} row {number}: {len(cells) + 1} cells, the header has {len(header) + 1}"
                )
            rows[name] = dict(zip(header, cells))
    return {name: _numbers(row) for name, row in rows.items()}


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    values = {}
    for column, value in row.items():
        try:
            values[column] = float(value)
        except (TypeError, ValueError):
            continue  # text: an error says so where a number is asked for
    return values
