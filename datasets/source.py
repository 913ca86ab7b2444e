"""Where the raw files of a data set lie and where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOURCE = "SOURCE.json"


def find_files(root: Path, filename: str) -> list[Path]:
    """The files of this name in ``root`` or ``root/raw``, or else anywhere below ``root``."""
    hits = [p for p in (root / filename, root / "raw" / filename) if p.is_file()]
    if not hits:
        for folder, below, files in os.walk(root):
            below[:] = sorted(n for n in below if n != "processed" and n[0] != ".")
            hits += [Path(folder, filename)] if filename in files else []
    return hits


def read_source(files: Sequence[Path], root: Path) -> dict[str, Any]:
    """What SOURCE.json says, beside the first of the files or in a folder above, up to ``root``.

    Returns:
        At least ``{"generated": bool}``.

    Raises:
        ValueError: SOURCE.json is not a JSON object.
    """
    source: dict[str, Any] = {"generated": False}
    for folder in files[0].resolve().parents if files else ():
        path = folder / SOURCE
        if path.is_file():
            try:
                return source | json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}: not a JSON object ({error})") from None
        if folder == root.resolve():
            break
    return source
