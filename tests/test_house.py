"""The layout of the package: who imports whom, what the wheel holds."""

import ast
import shutil
import subprocess
import sys
import zipfile
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flare_geo"
BASE = {"flare_geo", "arguments", "files", "memory", "provenance", "pyg"}
ARROWS = {  # room: rooms it may import from
    "ops": set(),
    "distributed": {"ops"},
    "nn": {"ops", "mesh", "transforms", *BASE},
    "metrics": {"ops"},
    "transforms": {"arguments", "pyg"},
    "mesh": {"files", "pyg"},
    "datasets": {"transforms", "mesh", *BASE},
    "viz": {"mesh", *BASE},
    "train": {"ops", "nn", "metrics", "datasets", "distributed", "transforms", *BASE},
    "cli": {"ops", "nn", "metrics", "datasets", "transforms", "mesh", "viz", "train", *BASE},
    "testing": set(),
    "arguments": set(),
    "files": set(),
    "memory": set(),
    "pyg": set(),
    "provenance": {"flare_geo"},
}
NEVER = {  # packages that a room may not import anywhere, not even inside a function
    "ops": {"numpy", "scipy", "h5py", "lightning", "pyvista", "matplotlib"},
    "distributed": {"numpy", "h5py", "lightning", "pyvista", "matplotlib"},
    "nn": {"h5py", "lightning", "pyvista", "matplotlib", "triton", "meshio", "trimesh"},
    "mesh": {"lightning", "h5py", "matplotlib"},
    "viz": {"lightning", "h5py"},
    "datasets": {"lightning", "pyvista", "matplotlib"},
    "testing": {"pytest"},
}


def sources():
    yield from sorted(PACKAGE.rglob("*.py"))
    for link in (p for p in PACKAGE.iterdir() if p.is_symlink()):
        yield from sorted(link.resolve().rglob("*.py"))


def room_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "flare_geo" else parts
    return "flare_geo" if parts == ("__init__",) else parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "flare_geo":
                yield from (f"flare_geo.{a.name}" for a in node.names if a.name != "__version__")
                continue
            yield node.module


def test_every_room_is_there():
    seen = {room_of(path) for path in sources()}
    assert seen >= {
        "ops",
        "distributed",
        "nn",
        "metrics",
        "train",
        "cli",
        "datasets",
        "transforms",
        "mesh",
        "viz",
    }
    assert seen <= ARROWS.keys() | {"flare_geo"}


def test_import_arrows():
    wrong = []
    for path in sources():
        room = room_of(path)
        if room == "flare_geo":
            continue
        for name in imports(path):
            first, *rest = name.split(".")
            target = (rest or ["flare_geo"])[0] if first == "flare_geo" else None
            if target is not None and target != room and target not in ARROWS[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if first in NEVER.get(room, ()) or (first == "torch_geometric" and room != "pyg"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def name_of(path):
    """The module of a file, as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "flare_geo" else ("flare_geo", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules():
    """Every module with all that it imports of ours, inside functions and for types included."""
    modules = {name_of(path): path for path in sources()}
    for module, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                below = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name if name in modules else node.module for name in below}
        yield module, found & modules.keys() - {module}


def test_no_module_imports_itself_by_way_of_others():
    try:
        TopologicalSorter(dict(imported_modules())).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


NN = {  # of the rooms inside nn: what a module of each may not import
    "surrogate": (),
    "models": ("surrogate",),
    "mixers": ("models", "surrogate"),
    "flare": ("models", "surrogate"),
    "explain": (),
    "": ("flare", "mixers", "models", "surrogate"),
}


def test_arrows_inside_nn():
    wrong = []
    for module, found in imported_modules():
        _, room, *inside = [*module.split("."), "", ""][:3]
        if room != "nn" or not inside[0]:
            continue
        for other in NN[inside[0] if inside[0] in NN else ""]:
            prefix = f"flare_geo.nn.{other}"
            wrong += [f"{module} imports {x}" for x in found if f"{x}.".startswith(f"{prefix}.")]
    assert not wrong, "\n".join(wrong)


def test_no_warning_of_another_package_reaches_a_user():
    """As errors warnings are seen whatever filters their authors set."""
    rooms = [f"flare_geo.{room}" for room in ARROWS if room not in ("flare_geo", "testing")]
    program = f"import flare_geo, {', '.join(rooms)}"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["datasets", "transforms", "viz"])
def test_links(name):
    link = PACKAGE / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"


def test_a_checkout_without_links_says_what_to_do(tmp_path):
    """Git's default on Windows: the links are small text files."""

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    for name in ("datasets", "transforms", "viz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "flare_geo").mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "flare_geo")
    for name in ("datasets", "transforms", "viz"):
        (tmp_path / "flare_geo" / name).symlink_to(f"../{name}")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "first")):
        assert run("git", *words).returncode == 0
    assert run("git", "clone", "-q", "-c", "core.symlinks=false", ".", "copy").returncode == 0
    tmp_path = tmp_path / "copy"
    done = run(sys.executable, "-c", "import flare_geo.datasets")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: flare_geo/datasets must be a symbolic link to a folder")
    assert run("bash", "-c", last.split("then run: ")[1]).returncode == 0
    assert run(sys.executable, "-c", "import flare_geo.datasets").returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree") / "flare_geo"
    names = ["pyproject.toml", "setup.cfg", "README.md", "LICENSE"]
    names += ["flare_geo", "datasets", "transforms", "viz"]
    tree.mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tree / "dist").glob("*.whl")
    return path


def test_wheel_holds_every_module(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in sources():
        parts = path.relative_to(ROOT).parts
        name = "/".join(parts if parts[0] == "flare_geo" else ("flare_geo", *parts))
        assert name in inside
    report = {f"flare_geo/cli/report/{name}" for name in ("page.html.j2", "report.css")}
    assert inside >= {"flare_geo/py.typed", "flare_geo/viz/html/viewer.html", *report}
    top = {name.split("/")[0] for name in inside}
    assert {t for t in top if not t.endswith(".dist-info")} == {"flare_geo"}


def test_wheel_works(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch, flare_geo; "
        "from flare_geo.nn import FlareConv; from flare_geo.datasets import ElasticityDataset; "
        "print(flare_geo.__file__, FlareConv(16)(torch.randn(9, 16)).shape[0])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    file, points = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert points == "9"
