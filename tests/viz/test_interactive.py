import base64
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from flare_geo.mesh import read_mesh, to_pyvista
from flare_geo.viz import window
from flare_geo.viz.html.buffers import LOST
from flare_geo.viz.html.viewer import html_page, write_comparison_html, write_html
from flare_geo.viz.render import graphics, theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.window import show

pv = pytest.importorskip("pyvista")
MESHES = Path(__file__).parents[1] / "data" / "meshes"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")


def opened(text):
    """The facts of a page, and its buffers as arrays."""
    facts = json.loads(re.search(r'id="scene">(.*?)</script>', text, re.S)[1])
    raw = zlib.decompress(base64.b64decode(re.search(r'id="blob">(.*?)</script>', text, re.S)[1]))
    kinds = {"index": "<u4", "place": "<u2", "outline": "<u2", "normal": "i1"}
    blocks = {}
    for name, (offset, length) in facts["blocks"].items():
        block = np.frombuffer(raw[offset : offset + length], kinds.get(name, "<f4"))
        wide = {"place": 3, "outline": 3, "normal": 4}.get(name)
        blocks[name] = block.reshape(-1, wide) if wide else block
    low, high = np.array(facts["low"]), np.array(facts["high"])
    blocks["at"] = low + blocks["place"] / 65535 * (high - low)
    return facts, blocks


def run_browser(tmp_path, page, *flags, steps=""):
    """Open a page in headless Chromium, with software OpenGL; what it printed.

    The browser's clock runs fast but stands still for no thread: what waits must ask by `until`.
    """
    script = f"""<script>
      const until = (ready, next) => ready() ? next() : setTimeout(() => until(ready, next), 50);
      until(() => document.getElementById("strip")?.style.background, () => {{ {steps} }});
    </script>"""
    text = page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>")
    (tmp_path / "run.html").write_text(text, encoding="utf-8")
    command = f"""{CHROMIUM} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run
        --disable-background-networking --disable-component-update --disable-sync
        --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader
        --virtual-time-budget=4000000 --window-size=900,700"""
    flags = (*flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "run.html").as_uri())
    return subprocess.run(
        [*command.split(), *flags], capture_output=True, text=True, timeout=100
    ).stdout


def asked_for(log):
    """Addresses that a page itself asked for; the browser's own housekeeping has no initiator."""
    found = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    found = [params for params in found if params.get("initiator", "not an") in ("null", "file://")]
    return sorted({params["url"] for params in found if params.get("url", "").startswith("http")})


def test_the_page_holds_the_values_at_their_places(tmp_path):
    mesh = read_mesh(MESHES / "f1_part.vtp")
    before = mesh.copy()
    fields = {"p [m²/s²]": mesh["p"], "speed [m/s]": "U"}
    path = write_html(mesh, fields, tmp_path / "new" / "f1.html", title="nose", note="part")
    facts, blocks = opened(path.read_text(encoding="utf-8"))
    assert (facts["title"], facts["note"], facts["kind"]) == ("nose", "part", "triangles")
    assert [field["name"] for field in facts["fields"]] == ["p", "speed"]
    assert facts["count"] == 3 * mesh.n_cells
    from scipy.spatial import KDTree

    off, nearest = KDTree(mesh.points).query(blocks["at"])
    assert off.max() < 3e-5
    np.testing.assert_array_equal(blocks["v0"], mesh["p"].astype(np.float32)[nearest])
    speed = np.linalg.norm(mesh["U"], axis=1)[nearest]
    np.testing.assert_allclose(blocks["v1"], speed, rtol=1e-6)
    triangles = blocks["at"][blocks["index"].reshape(-1, 3)]
    np.testing.assert_allclose(triangles, mesh.points[mesh.regular_faces], atol=3e-5)
    scale = field_scale(mesh["p"].astype(float))
    assert facts["fields"][0]["span"] == [scale.low, scale.high]
    assert facts["fields"][0]["bar"] == "p [m²/s²]"
    assert facts["fields"][0]["unit"] == "m²/s²"
    assert mesh == before
    assert [file.name for file in path.parent.iterdir()] == ["f1.html"]


def test_cell_values_quadratic_cells_and_missing_values(bar):
    values = np.arange(32.0)
    values[3] = np.nan
    facts, blocks = opened(html_page(to_pyvista(bar), {"cell": values, "x": bar.pos[:, 0]}))
    np.testing.assert_allclose(blocks["v1"], blocks["at"][:, 0], atol=1e-3)
    centre = blocks["at"].reshape(-1, 3, 3).mean(axis=1)
    mesh = to_pyvista(bar, number=values)
    drawn = blocks["v0"].reshape(-1, 3)
    assert np.all(drawn == drawn[:, :1])
    inside = mesh.find_containing_cell(centre * 0.999 + 0.001 * np.array(mesh.center))
    wanted = np.where(np.isnan(values[inside]), np.float32(LOST), values[inside])
    np.testing.assert_array_equal(drawn[:, 0], wanted.astype(np.float32))
    assert "1 of 32 values are not finite" in facts["fields"][0]["spread"]

    solid = read_mesh(MESHES / "bracket_part.vtu")
    stress = solid["Equivalent (von-Mises) Stress (psi)"]
    facts, blocks = opened(html_page(solid, {"stress": stress, "z": solid.points[:, 2]}))
    np.testing.assert_allclose(blocks["v1"], blocks["at"][:, 2], atol=1e-4)
    assert set(blocks["v0"]) <= set(stress.astype(np.float32))


def test_clouds_curves_planes_and_points(square):
    cloud = pv.PolyData(np.random.default_rng(0).normal(size=(50, 3)))
    facts, blocks = opened(html_page(cloud, {"x": cloud.points[:, 0]}))
    assert (facts["kind"], facts["count"]) == ("points", 50)
    assert facts["ball"] > 0
    np.testing.assert_allclose(blocks["v0"], blocks["at"][:, 0], atol=1e-3)
    curve = pv.Spline(np.eye(3), 20)
    facts, blocks = opened(html_page(curve, {"x": curve.points[:, 0]}))
    assert (facts["kind"], facts["count"]) == ("lines", 38)
    square.y = square.pos[:, :1]
    facts, _ = opened(html_page(square))
    assert not facts["lit"]
    assert facts["R"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert len(facts["fields"]) == 1
    facts, _ = opened(html_page(pv.PolyData(np.ones((1, 3)))))
    assert facts["fields"] == []


def test_a_mesh_far_away_keeps_its_shape_and_polygons_are_cut():
    corners = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [1, 0.5, 0], [0, 2.0, 0]])
    star = pv.PolyData(corners + 1e7, faces=[5, 0, 1, 2, 3, 4])
    facts, blocks = opened(html_page(star, {"n": np.arange(5.0), "cell": np.array([7.0])}))
    assert facts["count"] == 9
    assert set(blocks["v1"]) == {7}
    near = blocks["at"] - 1e7
    np.testing.assert_allclose(near, corners[blocks["v0"].astype(int)], atol=1e-4)


def test_nothing_in_the_page_reaches_out_and_words_are_only_words():
    evil = "</script><img src=x onerror=alert(1)> {{blob}}"
    text = html_page(pv.Sphere(), {evil: np.zeros(842)}, title=evil, note=evil)
    assert "http:" not in text
    assert "https:" not in text
    assert "<img" not in text
    assert text.count("</script>") == 3
    facts, _ = opened(text)
    assert facts["title"] == facts["note"] == facts["fields"][0]["name"] == evil


def test_comparisons_share_their_bar(square, tmp_path):
    truth, wrong = square.pos[:, 0], square.pos[:, 0] + 0.1
    path = write_comparison_html(square, truth, wrong, tmp_path / "a.html", label="p [Pa]")
    facts, blocks = opened(path.read_text(encoding="utf-8"))
    assert [field["bar"] for field in facts["fields"]] == [
        "truth: p [Pa]",
        "prediction: p [Pa]",
        "error [Pa]",
    ]
    assert facts["fields"][0]["span"] == facts["fields"][1]["span"] == [0, 1]
    assert facts["fields"][1]["above"]
    low, high = facts["fields"][2]["span"]
    assert low == -high == pytest.approx(-0.1)
    np.testing.assert_allclose(blocks["v2"], 0.1, atol=1e-6)
    assert facts["title"].startswith("relative L2 17")


def test_a_page_takes_a_dozen_bytes_a_triangle(tmp_path):
    n = 300
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    mesh = pv.StructuredGrid(x.astype(float), y.astype(float), np.sin(x / 20) * np.cos(y / 30))
    path = write_html(mesh, {"z [m]": mesh.points[:, 2]}, tmp_path / "a.html")
    assert path.stat().st_size < 12 * 2 * n * n  # bytes per triangle


def test_bad_input_is_named(square, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.html or \.htm, got 'a\.png'"):
        write_html(square, {}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"'p' must have one row per point \(441\)"):
        write_html(square, {"p": np.zeros(5)}, tmp_path / "a.html")
    with pytest.raises(ValueError, match=r"scales: there is no field 'q', only \['p'\]"):
        write_html(
            square,
            {"p": np.zeros(441)},
            tmp_path / "a.html",
            scales={"q": field_scale(np.zeros(1))},
        )
    with pytest.raises(ValueError, match="must have the same shape"):
        write_comparison_html(square, np.zeros(441), np.zeros(800), tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_show_says_what_to_do_without_a_display(square, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(window.sys, "platform", "linux")
    with pytest.raises(RuntimeError, match="no display to open a window on: write a page"):
        show(square, square.pos[:, 0])
    monkeypatch.setenv("DISPLAY", ":4711")  # nobody answers there
    with pytest.raises(RuntimeError, match="no display"):
        show(square, square.pos[:, 0])


def test_show_draws_the_field_in_a_window(square, monkeypatch):
    monkeypatch.setattr(window, "_has_display", lambda: True)
    monkeypatch.setattr(graphics, "has_window", lambda: True)
    real, seen = pv.Plotter, []

    class Window(real):
        def __init__(self, **words):
            seen.append(words)
            super().__init__(off_screen=True, window_size=[400, 400])

        def show(self):
            seen.append(self.screenshot(None, return_img=True))
            self.close()

    name = graphics.window()
    if name is None:
        pytest.skip("VTK's own window is looked at here, and VTK cannot draw on this machine")
    if name:
        monkeypatch.setenv("VTK_DEFAULT_OPENGL_WINDOW", name)
    monkeypatch.setattr(pv, "Plotter", Window)
    show(square, square.pos[:, 0], label="x [m]", title="a window")
    assert seen[0] == {"title": "a window"}
    spread = seen[1].max(axis=-1).astype(int) - seen[1].min(axis=-1)
    assert np.mean(spread > 40) > 0.3


@browser
def test_the_browser_shows_the_mesh_in_its_colours_without_a_network(square, tmp_path):
    x = square.pos[:, 0]
    page = write_html(square, {"x [m]": x, "minus x [m]": -x}, tmp_path / "a.html", title="Square")
    shot, log = tmp_path / "shot.png", tmp_path / "net.json"
    run_browser(tmp_path, page, f"--screenshot={shot}", f"--log-net-log={log}")
    image = theme.import_matplotlib().image.imread(shot)[..., :3] * 255
    scale = field_scale(x.numpy().astype(float))
    left = image[:, : image.shape[1] * 8 // 10]  # the mesh, not the bar
    colored = np.argwhere(left.max(axis=-1) - left.min(axis=-1) > 40)
    (top, first), (bottom, last) = colored.min(axis=0), colored.max(axis=0)
    assert last - first == pytest.approx(bottom - top, abs=3)  # a square
    assert last - first > 350
    assert len(colored) > 0.98 * (last - first) * (bottom - top)
    for share in (0.1, 0.35, 0.6, 0.9):
        found = image[(top + bottom) // 2, round(first + share * (last - first))]
        np.testing.assert_allclose(found, scale.rgb(share), atol=4)
    bar = image[:, image.shape[1] * 85 // 100 :]
    for end in (0.0, 1.0):
        assert np.any(np.abs(bar - scale.rgb(end)).max(axis=-1) < 6)
    assert np.sum(bar.max(axis=-1) < 90) > 100  # numbers and the unit
    assert asked_for(log) == []
    other = tmp_path / "b.html"  # would it have been noticed?
    other.write_text('<img src="http://127.0.0.1:9/a.png">')
    run_browser(tmp_path, other, f"--log-net-log={log}", "--dump-dom")
    assert asked_for(log) == ["http://127.0.0.1:9/a.png"]


@browser
def test_the_value_under_the_cursor_is_read_and_fields_change(square, tmp_path):
    page = write_html(
        square, {"x [m]": square.pos[:, 0], "y [m]": square.pos[:, 1] + 7}, tmp_path / "a.html"
    )
    steps = """
      const said = [], probe = () => find("probe").textContent;
      const move = (x, y) => {
        const box = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent("pointermove",
          {clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
      };
        move(0.5, 0.5);
        until(() => probe().includes(" at ("), () => {
          said.push(probe());
          find("fields").children[1].click();
          until(() => probe() !== said[0], () => {
            said.push(probe(), find("unit").textContent);
            move(0.01, 0.01);
            until(() => probe() !== said[1], () => {
              said.push(probe());
              document.title = said.join("|");
            });
          });
        });
    """
    title = re.search(
        "<title>(.*?)</title>", run_browser(tmp_path, page, "--dump-dom", steps=steps)
    )[1]
    first, second, unit, outside = title.split("|")
    numbers = [float(part) for part in re.findall(r"[\d.]+", first)]
    np.testing.assert_allclose(numbers, [0.5, 0.5, 0.5, 0], atol=0.005)
    assert " m at (" in first
    assert float(second.split()[0]) == pytest.approx(7.5, abs=0.005)
    assert unit == "y [m]"
    assert outside.startswith("drag: turn")


@browser
def test_dragging_turns_the_mesh_with_the_hand(tmp_path):
    ball = pv.Sphere(theta_resolution=90, phi_resolution=90)
    page = write_html(ball, {"y [m]": ball.points[:, 1]}, tmp_path / "a.html", view="-y")
    steps = """
      const event = (kind, x, y, more) => {
        const box = canvas.getBoundingClientRect();
        const at = {clientX: box.left + x + box.width / 2, clientY: box.top + y + box.height / 2};
        canvas.dispatchEvent(new PointerEvent(kind, {...at, pointerId: 1, ...more}));
      };
      const drag = (x, y, more) => {
        event("pointerdown", 0, 0); event("pointermove", x, y, more); event("pointerup", x, y);
      };
      const said = [], told = find("probe"), read = (x, y, next) => {
        told.textContent = "";
        event("pointermove", x, y);
        until(() => told.textContent, () => { said.push(told.textContent); next(); });
      };
      read(0, 0, () => {
        drag(25, 0);
        read(0, 0, () => {
          canvas.dispatchEvent(new MouseEvent("dblclick"));
          drag(0, 25);
          read(0, 0, () => {
            canvas.dispatchEvent(new MouseEvent("dblclick"));
            drag(40, 30, {shiftKey: true});
            read(40, 30, () => { document.title = said.join("|"); });
          });
        });
      });
    """
    title = re.search(
        "<title>(.*?)</title>", run_browser(tmp_path, page, "--dump-dom", steps=steps)
    )[1]
    places = [
        [float(part) for part in re.search(r"\((.*?)\)", said)[1].replace("−", "-").split(",")]
        for said in title.split("|")
    ]
    side, depth = 0.5 * np.sin(0.2), -0.5 * np.cos(0.2)  # 25 pixels are 0.2
    wanted = [(0, -0.5, 0), (-side, depth, 0), (0, depth, side), (0, -0.5, 0)]
    np.testing.assert_allclose(places, wanted, atol=0.006)
