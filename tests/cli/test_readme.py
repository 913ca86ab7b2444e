"""What the README shows runs as it stands there."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import pyvista
from tests_cli import TINY

from flare_geo.cli.main import main
from flare_geo.mesh import read_mesh, write_mesh

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]


@pytest.fixture
def checkout(trained, cells, tmp_path, monkeypatch):
    """A folder that looks like a checkout after the quickstart, with a tiny run."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "data").mkdir()
    os.symlink(trained, tmp_path / "runs" / "elasticity")
    os.symlink(cells, tmp_path / "data" / "elasticity")
    os.symlink(ROOT / "scripts", tmp_path / "scripts")
    for i in range(10):
        sphere = pyvista.Sphere(radius=1 + i, theta_resolution=8, phi_resolution=8)
        sphere["stress"] = sphere.points[:, 2]
        write_mesh(sphere, tmp_path / "data" / "parts" / f"part_{i}.vtp")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_blocks(checkout):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (checkout / "case.png").read_bytes()[:4] == b"\x89PNG"
    assert {"stress", "stress predicted"} <= set(read_mesh(checkout / "part.vtp").point_data)


def test_commands(checkout):
    commands = re.findall(r"^flare-geo (.*)$", README, re.MULTILINE)
    verbs = ["data", "train", "evaluate", "render", "data", "train", "predict", "inspect", "report"]
    assert [c.split()[0] for c in commands] == verbs
    for command in commands:
        arguments = shlex.split(command)
        if arguments[:2] == ["data", "generate"]:
            continue  # it would refuse to go over the set that is there; tested elsewhere
        short = [*TINY, "--epochs", "1"] if arguments[0] == "train" else []
        assert main([*arguments, *short]) == 0


def test_two_commands_are_there_and_well_formed():
    for script in ("quickstart.sh", "test.sh"):
        assert f"bash scripts/{script}" in README
    for path in SCRIPTS:
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_nothing_in_the_readme_waits_for_a_number():
    assert not re.findall(r"QUICK_\w+|TODO", README)
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
