"""Files that are never half-written: written aside, then renamed over the former one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to `path` when the block ends, removed if it fails.

    A full disk, a crash or an interrupt leaves the former file as it was. Several processes may
    write the same path: the last one to finish wins. The suffix is kept, so that writers which go
    by it work.

    Example:
        >>> with write_aside("table.csv") as aside:
        ...     _ = aside.write_text("case,error")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        mask = os.umask(0)  # mkstemp makes files private; give them the mode of any new file
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
