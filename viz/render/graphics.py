"""Whether VTK can draw on this machine: found out in a child process, where VTK may fail.

Without the libraries of OpenGL VTK does not raise an error, it ends the process with a segmentation
fault. So this process first looks whether the libraries can be loaded at all, and then a child
draws a small picture. What has worked is remembered in the user's cache folder, under a name that
is another one as soon as VTK, the libraries, the devices or the display are others; what has
failed is tried again by the next process, since somebody may have mended it.
"""

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

logger = logging.getLogger(__name__)

EGL, OSMESA, X11 = "vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow", "vtkXOpenGLRenderWindow"
ANY = ""  # whatever VTK takes by itself: elsewhere than on Linux, and where the user has chosen
CHOICE = "VTK_DEFAULT_OPENGL_WINDOW"  # the environment variable by which VTK chooses
# What the render windows of VTK load when they are made; one name of each group must be there.
LIBRARIES = {
    EGL: (("libEGL.so.1", "libEGL.so"),),
    OSMESA: (("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),),
    X11: (("libX11.so.6",), ("libGL.so.1", "libGLX.so.0")),
    ANY: (),
}
PATIENCE = 60.0  # seconds that the child may take; it needs less than one
# Mesa and GLVND write remarks to the standard error of the process unless they are told not to.
QUIET = {"EGL_LOG_LEVEL": "fatal", "LIBGL_DEBUG": "quiet", "MESA_DEBUG": "silent"}
NOTICE = (
    "VTK has no OpenGL to draw with here, so pictures are drawn by a plain renderer. For VTK's: "
    "apt-get install libegl1 libgl1-mesa-dri (Debian, Ubuntu), dnf install mesa-libEGL "
    "mesa-dri-drivers (Fedora), conda install -c conda-forge libegl mesalib (conda)"
)
CHOSEN = (
    "VTK cannot draw with {name}={value}, so pictures are drawn by a plain renderer; without that "
    "variable EGL, OSMesa and X are tried"
)
TRIAL = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
import vtkmodules.vtkRenderingOpenGL2 as opengl
from vtkmodules.vtkFiltersSources import vtkSphereSource
from vtkmodules.vtkRenderingCore import (
    vtkActor, vtkPolyDataMapper, vtkRenderer, vtkRenderWindow, vtkWindowToImageFilter
)
window = getattr(opengl, sys.argv[1])() if sys.argv[1] else vtkRenderWindow()
window.SetOffScreenRendering(1)
window.SetSize(32, 32)
sphere, mapper, actor, scene = vtkSphereSource(), vtkPolyDataMapper(), vtkActor(), vtkRenderer()
mapper.SetInputConnection(sphere.GetOutputPort())
actor.SetMapper(mapper)
scene.AddActor(actor)
window.AddRenderer(scene)
window.Render()
grab = vtkWindowToImageFilter()
grab.SetInput(window)
grab.Update()
low, high = grab.GetOutput().GetScalarRange()
print("drawn" if high > low else "blank")
"""


@cache
def window() -> str | None:
    """The class of VTK's render window that can draw off-screen here; found out once per process.

    On Linux EGL (a graphics card, or Mesa's software renderer) is tried first, then OSMesa, then
    X where there is a display, unless the user has set `VTK_DEFAULT_OPENGL_WINDOW`.

    Returns:
        The name of the class, "" where the choice is VTK's own, None where VTK cannot draw; that
        is logged as a warning, with what to install.
    """
    free = sys.platform.startswith("linux") and CHOICE not in os.environ
    for name in (EGL, OSMESA, X11) if free else (ANY,):
        if works(name):
            return name
    chosen = os.environ.get(CHOICE)
    logger.warning(NOTICE if chosen is None else CHOSEN.format(name=CHOICE, value=chosen))
    return None


def can_draw() -> bool:
    """Whether VTK can draw off-screen here."""
    return window() is not None


def has_window() -> bool:
    """Whether VTK can draw where windows are opened: on Linux by X."""
    return works(X11 if sys.platform.startswith("linux") else ANY)


@cache
def works(name: str) -> bool:
    """Whether a class of VTK's render windows draws a picture; "" is VTK's own choice."""
    if name == X11 and not os.environ.get("DISPLAY"):
        return False
    if not all(any(map(_loads, names)) for names in LIBRARIES[name]):
        return False
    known = _remembered(name)
    if known is not None and known.is_file():
        return True
    drawn = _tried(name)
    if drawn and known is not None:
        _remember(known)
    return drawn


def _tried(name: str) -> bool:
    """Draw in a child process, in which VTK may crash or hang."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", TRIAL, name],
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return child.returncode == 0 and child.stdout.split()[-1:] == [b"drawn"]


def _remembered(name: str) -> Path | None:
    """The file that is there where this has worked before; its name says on what."""
    try:
        vtk = version("vtk")
    except PackageNotFoundError:
        return None  # built by hand, so it may become another one at any time
    folders = {Path(path).parent for path in _loaded_libraries()}
    folders |= {Path("/usr/share/glvnd/egl_vendor.d"), Path("/dev/dri"), Path("/usr/lib/dri")}
    folders |= {folder / "dri" for folder in folders}
    chosen = ("DISPLAY", "LD_LIBRARY_PATH", "LD_PRELOAD", CHOICE)
    drivers = ("EGL_", "LIBGL_", "MESA_", "GALLIUM_", "VTK_", "__EGL_", "__GLX_", "NVIDIA_", "CUDA")
    facts = [
        *(name, vtk, platform.node(), platform.release(), sys.executable),
        *sorted(
            f"{key}={v}"
            for key, v in os.environ.items()
            if key in chosen or key.startswith(drivers)
        ),
        *sorted(f"{folder} {_changed(folder)}" for folder in folders),
        *sorted(map(str, Path("/dev").glob("nvidia*"))),
    ]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
    return Path(base) / "flare_geo" / f"vtk_draws_{digest}"


def _remember(path: Path) -> None:
    """Make an empty file; that is whole at once. A folder that cannot be written is no loss."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        pass


def _changed(folder: Path) -> int:
    """When something was last put into a folder or taken out of it; 0 if there is none."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _loaded_libraries() -> list[str]:
    """The libraries of graphics that this process has loaded, with their paths."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/lib" in line}
    return sorted(
        p for p in paths if Path(p).name.startswith(("libEGL", "libGL", "libX11", "libOSMesa"))
    )


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
