import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.mesh import read_mesh, to_pyvista
from flare_geo.viz.movie import video as module
from flare_geo.viz.movie.movie import _turn, animate, orbit
from flare_geo.viz.movie.series import captions, survey
from flare_geo.viz.movie.video import video
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.scene import scene

pv = pytest.importorskip("pyvista")
Image = pytest.importorskip("PIL.Image")
MESHES = Path(__file__).parents[1] / "data" / "meshes"
SMALL = (160, 120)


def ffmpeg(*words):
    exe = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    return subprocess.run([exe, "-hide_banner", *words], capture_output=True, check=True)


def frames_of(path):
    """All frames of a video, int `[t, h, w, 3]`, and its seconds; a GIF holds no frame twice."""
    if path.suffix == ".mp4":
        about = ffmpeg("-i", path, "-f", "null", "-").stderr.decode()
        assert "h264" in about
        assert "yuv420p(tv, bt709" in about
        width, height = map(int, re.search(r", (\d+)x(\d+)", about).groups())
        seconds = float(re.search(r"Duration: 00:00:([\d.]+)", about).group(1))
        raw = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
        return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3).astype(int), seconds
    frames, seconds = [], 0.0
    with Image.open(path) as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
            seconds += gif.info["duration"] / 1000
    return np.stack(frames), seconds


@pytest.fixture
def panels(monkeypatch):
    """The panels of each movie, before they are set into a page and written."""
    seen = []
    real = module.write_panels

    def spy(path, fps, panels, count, **words):
        def kept():
            for panel in panels:
                seen.append(panel.astype(int))
                yield panel

        spy.words = words
        real(path, fps, kept(), count, **words)

    monkeypatch.setattr("flare_geo.viz.movie.movie.write_panels", spy)
    return seen, spy


def colored(image):
    """Columns and rows that hold something else than white, grey or black."""
    spread = image.max(axis=-1) - image.min(axis=-1)
    return np.flatnonzero((spread > 40).any(axis=0)), np.flatnonzero((spread > 40).any(axis=1))


@pytest.mark.parametrize("kind", [".gif", ".mp4"])
def test_a_turn_has_its_frames_its_length_and_one_size(tmp_path, kind):
    if kind == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    mesh = read_mesh(MESHES / "f1_part.vtp")
    path = tmp_path / "new" / f"car{kind}"
    words = {"label": "pressure [Pa]", "title": "a car", "note": "OpenFOAM"}
    assert orbit(mesh, "p", path=path, seconds=0.5, fps=12, size=SMALL, **words) == path
    frames, seconds = frames_of(path)
    assert len(frames) == 6
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert os.listdir(path.parent) == [path.name]
    moving = (np.ptp(frames, axis=0) > 60).any(axis=-1)
    rows, columns = np.flatnonzero(moving.any(axis=1)), np.flatnonzero(moving.any(axis=0))
    assert 100 < columns[-1] - columns[0] <= SMALL[0]  # the bar and the texts stand still
    assert 30 < rows[-1] - rows[0] <= SMALL[1]


def test_a_turn_is_whole_and_everything_stays_in_sight(bar):
    bar.pos += torch.tensor([100.0, -7.0, 3.0])
    mesh = to_pyvista(bar)
    for view, eyes in (("x", [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]), ("iso", None)):
        poses = list(_turn(scene(mesh, view, SMALL), 4, SMALL))
        for pose, eye in zip(poses, eyes or 4 * [None]):
            frame = pose.frame
            assert (frame.size, frame.pixel) == (poses[0].frame.size, poses[0].frame.pixel)
            assert eye is None or frame.towards == pytest.approx(eye, abs=1e-12)
            assert frame.towards[2] == pytest.approx(poses[0].frame.towards[2])
            axes = np.stack([np.cross(frame.up, frame.towards), frame.up])
            reach = np.abs((mesh.points - frame.centre) @ axes.T).max(axis=0) / frame.pixel
            assert np.all(reach <= np.array(frame.size) / 2)
    # Seen from above the axis is the one that is upright in the picture.
    eyes = [pose.frame.towards for pose in _turn(scene(mesh, "z", SMALL), 4, SMALL)]
    np.testing.assert_allclose(eyes, [[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0]], atol=1e-12)


def test_the_last_frame_is_one_step_before_the_first(tmp_path, bar, panels):
    bar.pos -= bar.pos.mean(dim=0)
    mesh, count = to_pyvista(bar), 5
    for angle in (0, 360 / count):
        turned = mesh.rotate_z(angle)
        orbit(turned, bar.pos[:, 0], path=tmp_path / "a.gif", seconds=1, fps=count, size=SMALL)
    drawn = panels[0]
    assert len(drawn) == 2 * count
    # A body that is turned by one step looks to the camera like it did one step before.
    for number in range(count):
        same = np.abs(drawn[count + number] - drawn[(number - 1) % count]).mean()
        other = np.abs(drawn[count + number] - drawn[number]).mean()
        assert same < 1.5 < 5 < other


@pytest.mark.parametrize("kind", [".gif", ".mp4"])
def test_one_value_is_one_colour_in_all_frames(tmp_path, square, kind):
    if kind == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    path, values = tmp_path / f"a{kind}", (-1.0, 2.0, 0.5, 2.0, -1.0)
    animate([(square, torch.full((441, 1), v)) for v in values], path=path, size=SMALL)
    frames, seconds = frames_of(path)
    assert (len(frames), seconds) == (5, pytest.approx(0.5))
    assert all(side % 2 == 0 for side in frames.shape[1:3]) or kind == ".gif"
    middle = frames[:, frames.shape[1] // 2, 50 + SMALL[1] // 2]  # the panel is square
    scale = field_scale(np.array([-1.0, 2.0]))
    slack = 6 if kind == ".mp4" else 4
    for color, value in zip(middle, values):
        np.testing.assert_allclose(color, scale.rgb(value), atol=slack)
    np.testing.assert_allclose(middle[1], middle[3], atol=0 if kind == ".gif" else 2)
    np.testing.assert_allclose(frames[:, 5, 5], 255, atol=0 if kind == ".gif" else 2)


def test_limits_can_be_given_and_are_those_of_all_frames(square):
    x = square.pos[:, 0]
    found = survey([(square, x), (square, 3 * x), (square, -2 * x)], None, SMALL, None)
    assert (found.sample.min(), found.sample.max(), found.count) == (-2, 3, 3)
    spike = x.clone()
    spike[17] = 1e6  # one of 441 values does not take the colours of all others
    scale = field_scale(survey([(square, x), (square, spike)], None, SMALL, None).sample)
    assert scale.high == pytest.approx(1, abs=0.01)
    assert scale.above


class Growing:
    """A build that computes its layers when asked, and knows how many are alive at once."""

    def __init__(self, layers):
        self.layers, self.made, self.most = layers, [], 0

    def __iter__(self):
        for k in range(1, self.layers + 1):
            mesh = pv.ImageData(dimensions=(5, 3, k + 1)).cast_to_unstructured_grid()
            self.made.append(weakref.ref(mesh))
            self.most = max(self.most, sum(ref() is not None for ref in self.made))
            yield mesh, 1.0 + mesh.points[:, 0]
            del mesh


def test_a_part_grows_before_a_camera_that_stands_still(tmp_path, panels):
    series = Growing(8)
    heights = [0.5 * k for k in range(1, 9)]
    words = {"times": heights, "time_label": "height [mm]", "view": "-y", "cmap": "plasma"}
    animate(series, path=tmp_path / "a.gif", size=(100, 200), **words)
    drawn = panels[0]
    tops = []
    for panel in drawn:
        columns, rows = colored(panel[module.LINE :])
        tops.append(int(rows[0]))
        assert (columns[0], columns[-1], rows[-1]) == pytest.approx((4, 95, 188), abs=5)
    pixel = (drawn[0].shape[1] - 2 * theme.PADDING) / 4
    np.testing.assert_allclose(np.diff(tops), -pixel, atol=1.1)
    assert series.most <= 3  # one here, the one before, and the largest


def test_all_is_in_front_of_the_eye(tmp_path, panels):
    ball = pv.Sphere()
    moved = [(ball.translate((0, 0, z)), ball.points[:, 0]) for z in (0.0, 50.0, -50.0)]
    animate(moved, path=tmp_path / "a.gif", view="z", size=SMALL)
    first, *others = panels[0]
    for panel in others:
        assert np.abs(panel[module.LINE :] - first[module.LINE :]).mean() < 1


def test_balls_of_a_cloud_keep_their_size(tmp_path, panels):
    points = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij"), -1)
    points = points.reshape(-1, 2)
    few = torch.tensor([0, 5, 30, 35])
    frames = [(Data(pos=points), torch.ones(36)), (Data(pos=points[few]), torch.ones(4))]
    animate(frames, path=tmp_path / "a.gif", size=(120, 120))
    all_of_them, corners = (
        int((panel[module.LINE :] < 200).any(axis=-1).sum()) for panel in panels[0]
    )
    assert all_of_them / corners == pytest.approx(9, rel=0.03)


def test_deformed_frames_share_one_magnification_which_is_printed(tmp_path, square, panels):
    drawn, spy = panels
    steps = [torch.tensor([u, 0.0]).expand(441, 2) for u in (0.0, 0.005, 0.01)]
    x = 1 + square.pos[:, 0]
    animate([(square, x, u) for u in steps], path=tmp_path / "a.gif", warp="auto", size=(120, 120))
    assert spy.words["subtitle"] == "deformation × 10    min 1    max 2"  # 0.1 of 1.4
    width = drawn[0].shape[1]
    for panel, share in zip(drawn, (0.0, 0.05, 0.1)):
        columns, _ = colored(panel[module.LINE :])
        assert columns[0] / width == pytest.approx(0.03 + share / 1.1, abs=0.02)
    animate([(square, u) for u in steps], path=tmp_path / "a.gif", warp=3, size=(120, 120))
    assert spy.words["subtitle"].startswith("deformation × 3    min 0    max 10 [10")


def test_a_real_displacement_moves(tmp_path, panels):
    mesh = read_mesh(MESHES / "can_part.vtu")
    frames = [(mesh, "EQPS", share * mesh["DISPL"]) for share in (0, 0.5, 1)]
    animate(frames, path=tmp_path / "a.gif", warp=1, label="EQPS [-]", size=SMALL)
    first, _, last = panels[0]
    assert np.abs(first - last).mean() > 2
    assert mesh == read_mesh(MESHES / "can_part.vtu")


def test_a_mesh_that_the_caller_moves_is_drawn_where_it_is(tmp_path, panels):
    class Moving:
        def __iter__(self):
            mesh = pv.Sphere()
            for _ in range(3):
                mesh.points += np.array([1.0, 0, 0])
                yield mesh, mesh.points[:, 2] + 2

    animate(Moving(), path=tmp_path / "a.gif", view="-y", size=SMALL)
    places = [colored(panel[module.LINE :])[0].mean() for panel in panels[0]]
    assert np.diff(places) == pytest.approx([152 / 3] * 2, abs=2)


def test_what_is_printed_on_the_frames():
    assert captions(None, "frame", 2) == ["frame 1 of 2", "frame 2 of 2"]
    assert captions([0, 0.5, 1], "time [s]", 3) == ["time 0.0 s", "time 0.5 s", "time 1.0 s"]
    assert captions(np.linspace(0, 1, 4), "t [s]", 4)[1] == "t 0.333 s"
    assert captions([3, 7], "layer", 2) == ["layer 3", "layer 7"]
    assert captions([1e-9, 2e-9], "time [s]", 2) == ["time 1e-09 s", "time 2e-09 s"]
    assert captions(["cold", "removed"], "time", 2) == ["cold", "removed"]
    assert captions([0.25], "t", 1) == ["t 0.25"]
    with pytest.raises(ValueError, match=r"one entry per frame \(3\), got 2"):
        captions([1, 2], "t", 3)
    with pytest.raises(ValueError, match="times must be finite, got nan"):
        captions([1, np.nan], "t", 2)


def test_a_gif_keeps_few_colours_exactly_and_its_time(tmp_path):
    rng = np.random.default_rng(0)
    colors = np.array([[255, 255, 255], [255, 0, 200], [0, 0, 0], [31, 120, 180], [27, 31, 36]])
    frames = [colors[rng.integers(0, 5, (21, 33))].astype(np.uint8) for _ in range(4)]
    frames = [*frames, frames[0]]
    with video(tmp_path / "a.gif", 30) as add:
        for frame in [*frames[:4], frames[3], frames[4]]:  # one that changes nothing counts too
            add(frame)
    back, seconds = frames_of(tmp_path / "a.gif")
    np.testing.assert_array_equal(back, np.stack(frames))
    assert seconds == pytest.approx(6 / 30, abs=0.005)  # in steps of 1/100 s


def test_many_colours_become_near_ones(tmp_path):
    ramp = np.stack(np.meshgrid(np.arange(256), np.arange(0, 256, 2), indexing="ij"), axis=-1)
    frame = np.concatenate([ramp, 255 - ramp[..., :1]], axis=-1).astype(np.uint8)
    frame[:2, :2] = [255, 0, 200]
    with video(tmp_path / "a.gif", 10) as add:
        add(frame)
        add(frame[::-1])
    back, _ = frames_of(tmp_path / "a.gif")
    error = np.abs(back[0] - frame)
    assert error.mean() < 6
    np.testing.assert_array_equal(back[0], back[1][::-1])  # wherever it is


def test_the_bar_of_a_gif_has_no_steps_and_missing_values_their_colour(tmp_path):
    mesh = read_mesh(MESHES / "f1_part.vtp")  # lit from all sides: more colours than a GIF has
    values = mesh["p"].astype(float)
    values[:300] = np.nan
    path = tmp_path / "a.gif"
    orbit(mesh, values, path=path, cmap="viridis", seconds=0.5, size=(320, 320))
    frame = frames_of(path)[0][0]
    bar = frame[60:-60, -170]  # 180 pixels wide is the room of the bar
    bar = bar[(bar < 255).any(axis=-1)]
    assert len(np.unique(bar, axis=0)) > 60
    red, green, blue = np.moveaxis(frame, -1, 0)
    assert ((red > 180) & (green < 40) & (blue > 140)).sum() > 100  # lit, but of its kind


@pytest.mark.parametrize("kind", [".gif", ".mp4"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_movie_that_is_cut_off_leaves_the_former_file(tmp_path, square, kind, error):
    if kind == ".mp4":
        pytest.importorskip("imageio_ffmpeg")

    class Broken:
        passes = 0

        def __iter__(self):
            self.passes += 1
            yield square, square.pos[:, 0]
            if self.passes == 2:
                raise error
            yield square, square.pos[:, 1]

    path = tmp_path / f"a{kind}"
    path.write_bytes(b"former")
    with pytest.raises(error):
        animate(Broken(), path=path, size=SMALL)
    assert path.read_bytes() == b"former"
    assert os.listdir(tmp_path) == [path.name]


def test_bad_input_is_named_before_anything_is_drawn(tmp_path, square, monkeypatch):
    monkeypatch.setattr("flare_geo.viz.movie.movie.panel", None)
    gif, x = tmp_path / "a.gif", square.pos[:, 0]
    with pytest.raises(ValueError, match=r"path must end in \.gif or \.mp4, got 'a\.avi'"):
        orbit(square, x, path=tmp_path / "a.avi")
    with pytest.raises(ValueError, match=r"a \.gif has at most 50 frames per second, got 60"):
        orbit(square, x, path=gif, fps=60)
    with pytest.raises(ValueError, match="fps must be a positive number"):
        animate([(square, x)], path=gif, fps=0)
    with pytest.raises(ValueError, match=r"must give 2 frames or more, got 0\.01 s at 20"):
        orbit(square, x, path=gif, seconds=0.01)
    with pytest.raises(ValueError, match="values must have one row per point"):
        orbit(square, x[:5], path=gif)
    with pytest.raises(ValueError, match="frames is empty"):
        animate([], path=gif)
    with pytest.raises(TypeError, match=r"a generator can be only once: pass list\(frames\)"):
        animate(((square, x) for _ in range(2)), path=gif)
    with pytest.raises(ValueError, match="frame 1: values must have one row per point"):
        animate([(square, x), (square, x[:5])], path=gif)
    with pytest.raises(ValueError, match=r"frame 0: expected \(mesh, values\) or .* got 4 values"):
        animate([(square, x, x, x)], path=gif)
    with pytest.raises(ValueError, match=r"frame 0: displacement must be one vector .* or leave"):
        animate([(square, x)], path=gif, warp=2)
    with pytest.raises(ValueError, match="warp must be 'auto' or a finite number, got 'big'"):
        animate([(square, x)], path=gif, warp="big")
    with pytest.raises(ValueError, match="view must be one of"):
        animate([(square, x)], path=gif, view="top")
    with pytest.raises(ValueError, match=r"one entry per frame \(1\), got 2"):
        animate([(square, x)], path=gif, times=[1, 2])
    lost = square.clone()
    lost.pos[7] = torch.nan
    with pytest.raises(ValueError, match="frame 1: points must be finite"):
        animate([(square, x), (lost, x)], path=gif)
    assert os.listdir(tmp_path) == []


def test_an_mp4_without_an_encoder_is_one_line(tmp_path, square, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r'"flare-geo\[movie\]", or write a \.gif') as error:
        orbit(square, square.pos[:, 0], path=tmp_path / "a.mp4")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_broken_encoder_is_one_line_and_leaves_nothing(tmp_path):
    pytest.importorskip("imageio_ffmpeg")

    def write():
        with video(tmp_path / "a.mp4", 1e-9) as add:  # slower than ffmpeg takes
            for _ in range(100):
                add(np.zeros((20, 30, 3), np.uint8))

    with pytest.raises(OSError, match="ffmpeg ended early: ") as error:
        write()
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []
