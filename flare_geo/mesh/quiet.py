"""Keep libraries that print off the terminal, and keep what they said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# VTK follows a fault with remarks on its own pipeline, which tell the user nothing.
PIPELINE = re.compile(r"returned failure for request|REQUEST_DATA_OBJECT|A bad type|DATA_OBJECT")


@contextmanager
def vtk_messages() -> Iterator[list[str]]:
    """Collect what VTK says instead of printing it; the list is filled when the block ends.

    Errors come as they are, warnings with "warning: " before them, each in one line.

    Example:
        >>> with vtk_messages() as said:
        ...     reader.Update()
        >>> said
        ['Error parsing XML in stream at line 3, column 1, byte index 40: no element found']
    """
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow

    messages: list[str] = []
    window = vtkStringOutputWindow()
    window_before = vtkOutputWindow.GetInstance()
    verbosity_before = vtkLogger.GetCurrentVerbosityCutoff()
    vtkOutputWindow.SetInstance(window)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield messages
    finally:
        vtkOutputWindow.SetInstance(window_before)
        vtkLogger.SetStderrVerbosity(verbosity_before)
        text = window.GetOutput()  # bytes where a broken file is quoted in it
        messages += _split(text if isinstance(text, str) else text.decode("ascii", "replace"))


def _split(text: str) -> list[str]:
    """VTK's "ERROR: In file, line n / vtkClass (0x1f): words", one after the other."""
    parts = re.split(r"^(ERROR|Warning|Generic Warning): In .*, line \d+$", text, flags=re.M)
    messages = []
    for kind, body in zip(parts[1::2], parts[2::2]):
        body = re.sub(r"^\s*vtk\w+ \((?:0x)?\w+\): ", "", body)
        words = " ".join("".join(c if c.isprintable() else " " for c in body).split())
        messages.append(words if kind == "ERROR" else f"warning: {words}")
    return [m for m in messages if not PIPELINE.search(m)] or messages[:1]
