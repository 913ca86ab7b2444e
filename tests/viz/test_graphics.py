"""Whether VTK can draw: asked in a child, without risk, and answered without waiting twice."""

import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from without_graphics import run_without_graphics

from flare_geo.viz import plot_field
from flare_geo.viz.render import graphics

LINUX = sys.platform.startswith("linux")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is known yet, neither to this process nor to the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graphics.window.cache_clear()
    graphics.works.cache_clear()
    yield tmp_path / "cache"
    graphics.window.cache_clear()
    graphics.works.cache_clear()


@pytest.fixture
def libraries(monkeypatch):
    """As if all libraries could be loaded, so that the child decides."""
    monkeypatch.setattr(graphics, "_loads", lambda name: True)
    monkeypatch.delenv(graphics.CHOICE, raising=False)
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.setattr(graphics.sys, "platform", "linux")


FAULTS = {
    "segmentation fault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "traceback": "raise RuntimeError('no OpenGL')",
    "one colour": "print('blank')",
    "no answer": "import time; time.sleep(60)",
    "end": "print('drawn'); raise SystemExit(3)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_becomes_of_the_child_this_process_goes_on(
    fault, fresh, libraries, monkeypatch, caplog
):
    monkeypatch.setattr(graphics, "TRIAL", FAULTS[fault])
    monkeypatch.setattr(graphics, "PATIENCE", 1.0 if fault == "no answer" else 60.0)
    assert graphics.window() is None
    assert not graphics.can_draw()
    assert [record.getMessage() for record in caplog.records] == [graphics.NOTICE]  # once
    assert not list(fresh.glob("*/*")), "a failure is tried again by the next process"
    sphere = pytest.importorskip("pyvista").Sphere()
    image = plot_field(sphere, sphere.points[:, 2])
    assert np.mean(np.ptp(image.astype(int), axis=-1) > 40) > 0.1


def test_the_first_window_that_draws_is_taken(fresh, libraries, monkeypatch, caplog):
    code = "import sys; print('drawn' if 'OSOpenGL' in sys.argv[1] else 'blank')"
    monkeypatch.setattr(graphics, "TRIAL", code)
    assert graphics.window() == graphics.OSMESA
    monkeypatch.setenv(graphics.CHOICE, "vtkEGLRenderWindow")
    graphics.window.cache_clear()
    assert graphics.window() is None  # the user's choice is VTK's to make, and that is blank
    assert "cannot draw with VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow" in caplog.text


def test_without_the_libraries_no_child_is_started(fresh, libraries, monkeypatch):
    monkeypatch.setattr(graphics, "_loads", lambda name: False)
    monkeypatch.setattr(subprocess, "run", None)
    assert graphics.window() is None


def test_what_worked_is_remembered_until_something_changes(fresh, libraries, monkeypatch):
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (started.append(a), run(*a, **k))[1])
    monkeypatch.setattr(graphics, "TRIAL", "print('drawn')")

    def asked():
        graphics.works.cache_clear()
        before = len(started)
        assert graphics.works(graphics.EGL)
        return len(started) - before

    assert asked() == 1
    assert asked() == 0
    for name, value in (("DISPLAY", ":1"), ("LIBGL_ALWAYS_SOFTWARE", "1")):
        monkeypatch.setenv(name, value)
        assert (asked(), asked()) == (1, 0)
    monkeypatch.setattr(graphics, "version", lambda name: "99.0")
    assert (asked(), asked()) == (1, 0)
    monkeypatch.setattr(graphics, "_changed", lambda folder: 7)
    assert (asked(), asked()) == (1, 0)


def test_a_cache_that_cannot_be_written_is_no_loss(fresh, libraries, monkeypatch):
    fresh.write_text("a file where the folder should be")
    monkeypatch.setattr(graphics, "TRIAL", "print('drawn')")
    assert graphics.window() == graphics.EGL


@pytest.mark.skipif(not LINUX, reason="the libraries of Linux are hidden")
def test_a_picture_and_one_line_without_the_libraries(tmp_path):
    """libEGL alone is there: VTK ends the child with a fault. All is hidden in `tests/cli`."""
    code = """
import logging, sys
import numpy as np, pyvista as pv
from flare_geo.viz import animate, orbit, plot_field, write_html
from flare_geo.viz.render import graphics
mesh = pv.Sphere()
first = plot_field(mesh, mesh.points[:, 2], path=sys.argv[1])
assert np.array_equal(first, plot_field(mesh, mesh.points[:, 2]))
write_html(mesh, {"z": mesh.points[:, 2]}, sys.argv[1] + ".html")
orbit(mesh, mesh.points[:, 2], path=sys.argv[1] + ".gif", seconds=0.2, size=(200, 200))
animate([(mesh, mesh.points[:, 2])] * 2, path=sys.argv[1] + ".2.gif", size=(200, 200))
assert not graphics.can_draw() and not graphics.has_window()
"""
    path = tmp_path / "picture.png"
    done = run_without_graphics("x11", code, str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{graphics.NOTICE}\n")
    image = imread(path)[..., :3]
    assert np.mean(np.ptp(image, axis=-1) > 0.2) > 0.2
    for end in (".html", ".gif", ".2.gif"):
        assert path.with_name(f"picture.png{end}").stat().st_size > 5_000


@pytest.mark.skipif(not LINUX, reason="the libraries of Linux are looked for")
def test_vtk_draws_where_the_libraries_are(monkeypatch, tmp_path):
    """In a process of its own, with an empty cache: the child's answer is right."""
    if not graphics.can_draw():
        pytest.skip("VTK cannot draw on this machine")
    code = "from flare_geo.viz.render import graphics; print(graphics.window())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == (graphics.window(), "")
    assert len(list(tmp_path.glob("flare_geo/vtk_draws_*"))) == 1
