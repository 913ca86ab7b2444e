"""Pictures of a verb: each may fail alone, and none takes numbers or files with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Pictures:
    """Draws what is asked for after the results are written, and remembers what failed.

    Args:
        margin: stands before the lines that say what was drawn.

    Example::

        pictures = Pictures()
        with pictures.drawing("picture", path):
            plot_field(mesh, field, path=path)
        pictures.finish()
    """

    def __init__(self, margin: str = "") -> None:
        self._margin = margin
        self._failed: list[tuple[str, Exception]] = []

    @contextmanager
    def drawing(self, what: str, path: Path | None = None) -> Iterator[None]:
        """Say that the picture is there when the block ends; an error waits for `finish`."""
        name = what if path is None else f"{what} {path}"
        try:
            yield
        except Exception as error:
            self._failed.append((name, error))
        else:
            if path is not None:
                print(f"{self._margin}{what}: {path}")

    def finish(self) -> None:
        """Do nothing where all are drawn.

        Raises:
            ValueError: some failed; names them in one line.
        """
        if self._failed:
            raise ValueError(self._words()) from self._failed[0][1]

    def mention(self) -> None:
        """Say on standard error what failed: pictures that nobody asked for by name."""
        if self._failed:
            print(f"warning: {self._words()}", file=sys.stderr)

    def _words(self) -> str:
        words = (
            f"{name} failed: {' '.join(str(error).split()) or type(error).__name__}"
            for name, error in self._failed
        )
        return f"{'; '.join(words)} (everything else is written)"
