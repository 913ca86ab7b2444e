"""Who imports whom inside nn: no circle, also not by an import inside a function."""

import ast
from pathlib import Path

import flare_geo.nn

NN = Path(flare_geo.nn.__file__).parent
BELOW = ["arguments", "checkpoint", "features", "norm", "scaler", "mixer", "mlp", "attention"]
BELOW += ["block", "latent_blocks", "compile", "model"]
"""Modules of nn that know nothing of FLARE."""


def modules():
    for path in sorted(NN.rglob("*.py")):
        parts = path.relative_to(NN).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(path, names):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("flare_geo.nn"):
            inside = node.module.removeprefix("flare_geo.nn").removeprefix(".")
            deeper = {f"{inside}.{alias.name}".removeprefix(".") for alias in node.names} & names
            found |= deeper or {inside}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("flare_geo.nn") for alias in node.names), path
    return found - {""}


def graph():
    paths = dict(modules())
    names = set(paths)
    return {name: imports_of(path, names) for name, path in paths.items()}


def test_there_is_no_circle():
    left = graph()
    del left[""]
    assert "flare.conv" in left
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these import each other in a circle: {left}"


def test_the_arrows_inside():
    for name, imported in graph().items():
        room = name.split(".")[0]
        for other in imported:
            above = other.split(".")[0]
            assert name not in BELOW or above in BELOW, f"{name} imports {other}"
            if room == "mixers":
                assert above in (*BELOW, "mixers", "flare"), f"{name} imports {other}"
            if room == "flare":
                assert above in (*BELOW, "mixers", "flare"), f"{name} imports {other}"
            if room == "models":
                assert above in (*BELOW, "mixers", "flare", "models"), f"{name} imports {other}"
