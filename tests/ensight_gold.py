"""Writes EnSight Gold files as the format's manual describes them, for tests of what reads them."""

import numpy as np

FLAVOURS = ("ascii", "c", "fortran")


class _File:
    """One geometry or variable file being written."""

    def __init__(self, flavour, order="<"):
        self.flavour, self.order, self.content = flavour, order, b""
        if flavour == "fortran":
            self.line("Fortran Binary")

    def line(self, text):
        self._put(text.encode().ljust(80) if self.flavour != "ascii" else f"{text}\n".encode())

    def ints(self, values, per_line=1):
        values = np.asarray(values).reshape(-1)
        if self.flavour == "ascii":
            rows = values.reshape(-1, per_line)
            self._put("".join("".join(f"{v:10d}" for v in row) + "\n" for row in rows).encode())
        else:
            self._put(values.astype(self.order + "i4").tobytes())

    def floats(self, values):
        if self.flavour == "ascii":
            self._put("".join(f"{v:12.5e}\n" for v in np.asarray(values).reshape(-1)).encode())
        else:
            self._put(np.asarray(values).astype(self.order + "f4").tobytes())

    def _put(self, data):
        if self.flavour == "fortran":
            mark = np.array([len(data)], self.order + "i4").tobytes()
            data = mark + data + mark
        self.content += data


def geometry(flavour, parts, node_ids="assign", element_ids="assign", order="<", extents=False):
    """Bytes of a geometry file; parts are ``(number, points [n, 3], {kind: cells [m, k]})``."""
    out = _File(flavour, order)
    if flavour == "c":
        out.line("C Binary")
    out.line("written by a test")
    out.line("second line of description")
    out.line(f"node id {node_ids}")
    out.line(f"element id {element_ids}")
    if extents:
        corners = np.concatenate([points for _, points, _ in parts])
        out.line("extents")
        if flavour == "ascii":
            for low, high in zip(corners.min(0), corners.max(0), strict=True):
                out.content += f"{low:12.5e}{high:12.5e}\n".encode()
        else:
            out.floats(np.stack([corners.min(0), corners.max(0)], axis=1))
    for number, points, blocks in parts:
        out.line("part")
        out.ints([number])
        out.line(f"part {number}")
        out.line("coordinates")
        out.ints([len(points)])
        if node_ids in ("given", "ignore"):
            out.ints(1000 + 7 * np.arange(len(points)))
        for axis in np.asarray(points).T:
            out.floats(axis)
        for kind, cells in blocks.items():
            out.line(kind)
            out.ints([len(cells)])
            if element_ids in ("given", "ignore"):
                out.ints(5000 + np.arange(len(cells)))
            out.ints(np.asarray(cells) + 1, per_line=np.shape(cells)[1])
    return out.content


def variable(flavour, parts, order="<", undefined=None):
    """Bytes of a variable file; parts are ``(number, {"coordinates" or kind: values [n, c]})``."""
    out = _File(flavour, order)
    if flavour == "fortran":
        out.content = b""  # only geometry files say what they are
    out.line("a variable")
    for number, blocks in parts:
        out.line("part")
        out.ints([number])
        for kind, values in blocks.items():
            out.line(kind if undefined is None else f"{kind} undef")
            if undefined is not None:
                out.floats([undefined])
            for component in np.asarray(values).T:
                out.floats(component)
    return out.content
