"""Pictures of a verb: each may fail alone, and no numbers or files are lost with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from torch import Tensor


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
        """Say on standard error which pictures failed that nobody asked for by name."""
        if self._failed:
            print(f"warning: {self._words()}", file=sys.stderr)

    def _words(self) -> str:
        words = (
            f"{name} failed: {' '.join(str(error).split()) or type(error).__name__}"
            for name, error in self._failed
        )
        return f"{'; '.join(words)} (everything else is written)"


class Field(NamedTuple):
    """A predicted channel on a mesh, `[n]`, and the true one if it is known."""

    mesh: Any
    pred: Tensor
    truth: Tensor | None
    name: str


class Wanted(NamedTuple):
    """The pictures of a prediction that a user asks for, and where they go."""

    png: Path | None = None
    html: Path | None = None
    movie: Path | None = None
    show: bool = False

    def __bool__(self) -> bool:
        return any(self)

    def inside(self, name: str) -> Self:
        """The same in the folders of these names, where each picture is called after a case."""

        def path(folder: Path | None, suffix: str) -> Path | None:
            return None if folder is None else folder / f"{name}{suffix}"

        files = (path(self.png, ".png"), path(self.html, ".html"), path(self.movie, ".gif"))
        return type(self)(*files, self.show)

    def draw(self, pictures: Pictures, field: Field, label: str, note: str | None) -> None:
        """Draw all of them, also if some fail."""
        mesh, pred, truth, name = field
        if self.png is not None:
            with pictures.drawing("picture", self.png):
                from flare_geo.viz import plot_comparison, plot_field

                if truth is not None:
                    plot_comparison(mesh, truth, pred, label=label, path=self.png, note=note)
                else:
                    plot_field(mesh, pred, label=label, path=self.png, note=note)
        if self.html is not None:
            with pictures.drawing("page", self.html):
                from flare_geo.viz import write_comparison_html, write_html

                if truth is not None:
                    write_comparison_html(mesh, truth, pred, self.html, label=label, note=note)
                else:
                    write_html(mesh, {label: pred}, self.html, note=note)
        if self.movie is not None:
            with pictures.drawing("movie", self.movie):
                from flare_geo.viz import orbit

                orbit(mesh, pred, path=self.movie, label=label)
        if self.show:
            with pictures.drawing("window"):
                from flare_geo.viz import show

                show(mesh, pred, label=label, title=name)
