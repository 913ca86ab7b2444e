"""What all generators do: claim a folder, solve cases in parallel, show progress."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from flare_geo.datasets.source import SOURCE
from flare_geo.files import write_aside

Item = TypeVar("Item")
Result = TypeVar("Result")


def claim(root: Path, record: dict[str, Any]) -> bool:
    """Write ``SOURCE.json`` into a folder that holds nothing yet, or find the same record there.

    It is written before the first case, so data are never without their mark; a generator that
    was interrupted resumes in its own folder.

    Args:
        root: Folder, made if missing.
        record: What decides the numbers, as JSON: generator, version, seed, physics, counts.

    Returns:
        Whether the folder had been claimed before.

    Raises:
        FileExistsError: the folder holds something else, such as the official files.
    """
    record = json.loads(json.dumps({"generated": True, **record}))
    path = root / SOURCE
    root.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        there = there if isinstance(there, dict) else {}
        there.pop("tools", None)
        if there == record:
            return True
        changed = sorted(k for k in {*there, *record} if there.get(k) != record.get(k))
        raise FileExistsError(
            f"{root} holds another set ({', '.join(changed)} differ): choose another folder"
        )
    if others := sorted(p.name for p in root.iterdir() if not p.name.startswith(".")):
        raise FileExistsError(
            f"{root} holds {others[0]} and no {SOURCE}: choose an empty folder to generate into"
        )
    tools = {name: version(name) for name in ("flare-geo", "numpy", "scipy")}
    with write_aside(path) as aside:
        aside.write_text(json.dumps({**record, "tools": tools}, indent=2) + "\n")
    return False


def run_cases(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    unit: str = "case",
    log: bool = True,
) -> Iterator[Result]:
    """``map(task, items)`` in order, in processes of one BLAS thread each, with a progress bar.

    Args:
        task: A function that can be pickled.
        items: One argument a case.
        workers: Processes; 1 stays in this one; None: one per core, if there are that many cases.
            If several, they are spawned: a script needs ``if __name__ == "__main__":``.
        unit: Word in the progress bar.
        log: Show the bar, on a terminal.
    """
    workers = workers or max(1, min(os.cpu_count() or 1, len(items)))
    quiet = not (log and sys.stderr.isatty())
    with tqdm(total=len(items), unit=unit, disable=quiet) as bar:
        if workers == 1 or len(items) < 2:
            for item in items:
                yield task(item)
                bar.update()
            return
        with one_thread_each(), ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for result in pool.map(task, items, chunksize=max(1, len(items) // (32 * workers))):
                yield result
                bar.update()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes spawned inside use one BLAS thread: that is read from the environment at start."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
