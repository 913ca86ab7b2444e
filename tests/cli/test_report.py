"""One page about a run: what is on it, that it needs nothing else, and that a browser shows it."""

import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tests_cli import TINY

from flare_geo.cli import report
from flare_geo.cli.format import duration, percent, rounded
from flare_geo.cli.main import main
from flare_geo.cli.report.images import WIDEST, trimmed
from flare_geo.cli.results import choose_cases, coefficients, ranked
from flare_geo.datasets import DrivAerMLDataset
from flare_geo.mesh import write_mesh

pv = pytest.importorskip("pyvista")
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """The text, tags and tables of a page; raises if an element is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.cells = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def images(self):
        """Text beside each picture, and the picture."""
        for tag, attributes in self.tags:
            if tag == "img":
                head, data = attributes["src"].split(";base64,")
                assert head in ("data:image/png", "data:image/jpeg")
                yield attributes["alt"], Image.open(BytesIO(base64.b64decode(data)))

    def sections(self):
        return [a["id"] for tag, a in self.tags if tag == "section"]


@pytest.fixture(scope="module")
def written(trained):
    assert main(["report", str(trained)]) == 0
    return trained / "report.html"


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cars(tmp_path_factory):
    """Five spheres in the form of DrivAerML, of several sizes, in a list without validation."""
    root = tmp_path_factory.mktemp("cars")
    for run in range(1, 6):
        mesh = pv.Sphere(radius=1 + 0.1 * run, theta_resolution=8 + run, phi_resolution=8)
        mesh = mesh.flip_faces()  # as in DrivAerML: the normals point into the body
        centre = mesh.cell_centers().points
        mesh.cell_data["pMeanTrim"] = (300 * centre[:, 0] - 100 * run).astype(np.float32)
        shear = np.tile([-float(run), 0.0, 0.5], (mesh.n_cells, 1))
        mesh.cell_data["wallShearStressMeanTrim"] = shear.astype(np.float32)
        (root / f"run_{run}").mkdir()
        write_mesh(mesh, root / f"run_{run}" / f"boundary_{run}.vtp")
    (root / "splits.json").write_text(json.dumps({"train": [1, 2, 3], "test": [4, 5]}))
    return root


@pytest.fixture(scope="module")
def car_run(cars, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "cars"
    config = run.parent / "cars.yaml"
    options = {"root": str(cars), "splits": str(cars / "splits.json")}
    options["targets"] = ["pressure", "wall_shear"]
    data = {"class_path": "flare_geo.datasets.DrivAerMLDataset", "init_args": options}
    model = {"class_path": "flare_geo.nn.Flare"}
    config.write_text(json.dumps({"data": data, "model": model, "epochs": 1}))
    assert main(["train", "--config", str(config), "--run", str(run), *TINY]) == 0
    return run


@pytest.fixture
def labels(monkeypatch):
    """What comparisons would be drawn of; drawing many takes long and is tested elsewhere."""
    seen = []
    blank = np.zeros((9, 9, 3), dtype=np.uint8)

    def instead(case, truth, prediction, *, label, note):
        assert truth.shape == prediction.shape == case.pos.shape[:1]
        seen.append(label)
        return blank

    monkeypatch.setattr("flare_geo.cli.report.content.plot_comparison", instead)
    return seen


def test_the_page_needs_nothing_beside_it(written, page):
    text = written.read_text(encoding="utf-8")
    assert len(text.encode()) < 6e6
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    anchors = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert anchors == set(page.sections())


def test_what_is_on_it(page, cells):
    sections = "errors cases training inside-the-model data model timings versions do-it-again"
    assert page.sections() == sections.split()
    text = page.text
    assert text.count("Generated data.") == 1
    assert "generated, not measured or published" in text
    assert "generated by flare_geo.datasets.generators.elasticity" in text
    assert ["von Mises stress", "target", "Pa", "von Mises stress at the point"] in [
        row[:4] for row in page.cells
    ]
    assert ["train", "10", "972", "9,720"] in page.cells
    assert "All cases have 972 points." in text
    assert re.search(r"Flare with [\d,]+ parameters\.", text)
    assert f"flare-geo data generate elasticity --root {cells} --seed 0 --num_samples 20" in text
    assert "hidden_channels: 8" in text  # the configuration
    assert any(row[0] == "git_revision" for row in page.cells)
    assert any(row[0] == "training, 2 epochs" for row in page.cells)


def test_the_numbers_are_those_of_evaluate(page, trained, capsys):
    assert main(["evaluate", str(trained)]) == 0
    with (trained / "evaluation" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((trained / "evaluation" / "test.json").read_text())
    kinds = ("mean", "median", "worst")
    assert ["relative L2", *(percent(summary["rel_l2"][k]) for k in kinds)] in page.cells
    mean = [percent(summary["rel_l2_training_mean"][k]) for k in kinds]
    assert ["relative L2 of the training mean", *mean] in page.cells
    shown = [row for row in page.cells if row[0].startswith("cell_")]
    worst_first = sorted(rows, key=lambda row: -float(row["rel_l2"]))
    assert [row[0] for row in shown] == [row["case"] for row in worst_first]
    assert [row[2] for row in shown] == [percent(float(row["rel_l2"])) for row in worst_first]


def test_pictures_say_what_they_are_and_hold_colours(page):
    images = dict(page.images())
    assert [alt.split(":")[0] for alt in images] == [
        "histogram of the relative L2 error of 2 cases",
        "best",
        "worst",
        "learning curves",
        "eigenvalues of the mixing operator of every block and head",
    ]
    for alt, picture in images.items():
        assert 300 < picture.width <= WIDEST
        pixels = np.asarray(picture.convert("RGB"))
        assert np.ptp(pixels.astype(int), axis=-1).max() > 60, alt
        assert (pixels[:3] == 255).mean() > 0.9  # trimmed, but not into the picture


def test_forces_follow_from_the_fields(cars):
    dataset = DrivAerMLDataset(
        cars, "test", splits=str(cars / "splits.json"), targets=["cp", "wall_shear"]
    )
    case = dataset[1]
    drag, lift, friction = coefficients(dataset.on_mesh, case, case.y)
    mesh = dataset.mesh(1).compute_normals(auto_orient_normals=True, point_normals=False)
    area = mesh.compute_cell_sizes()["Area"]
    pressure = 300 * mesh.cell_centers().points[:, 0] - 500
    inward = -mesh["Normals"]
    force = (pressure * area) @ inward - area.sum() * np.array([-5.0, 0.0, 0.5])
    expected = force / (38.889**2 / 2 * 2.17)
    assert friction
    assert (drag, lift) == pytest.approx((expected[0], expected[2]), rel=1e-4)
    alone = coefficients(dataset.on_mesh | {"outputs": [["pMeanTrim", 0, 1.0]]}, case, case.y)
    assert alone[2] is False
    shear = dataset.on_mesh | {"outputs": [["wallShearStressMeanTrim", 0, 1.0]]}
    assert coefficients(shear, case, case.y) is None


def test_a_run_on_cars_without_a_validation_split(car_run, cars, labels, capsys):
    assert main(["report", str(car_run), "--cases", "1"]) == 0
    page = Page((car_run / "report.html").read_text(encoding="utf-8"))
    assert "forces" in page.sections()
    assert "Generated data" not in page.text
    assert "pressure and friction" in page.text
    forces = {
        row[0]: row[1:] for row in page.cells if len(row) == 5 and row[0] in ("run_4", "run_5")
    }
    dataset = DrivAerMLDataset(
        cars, "test", splits=str(cars / "splits.json"), targets=["pressure", "wall_shear"]
    )
    drag, lift, _ = coefficients(dataset.on_mesh, dataset[0], dataset[0].y)
    assert forces["run_4"][0::2] == [f"{drag:.4f}", f"{lift:.4f}"]
    alts = [alt for alt, _ in page.images()]
    assert sum(alt.startswith("median") for alt in alts) == 4
    assert [label.split()[0] for label in labels] == ["p", "tau_x", "tau_y", "tau_z"]
    assert any("against the number of its points" in alt for alt in alts)
    assert {"relative L2, p", "relative L2, tau_x"} <= {row[0] for row in page.cells if row}
    assert main(["evaluate", str(car_run)]) == 0
    assert "tau_z alone: mean relative L2" in capsys.readouterr().out
    with (car_run / "evaluation" / "test.csv").open() as file:
        assert f"{float(next(csv.DictReader(file))['cd_true']):.4f}" == forces["run_4"][0]


def test_drawn_points_have_no_forces(car_run, labels, tmp_path):
    out = tmp_path / "drawn.html"
    command = ["report", str(car_run), "--data.num_points", "50", "--out", str(out)]
    assert main([*command, "--cases", "1"]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert "forces" not in page.sections()
    assert "seen at 50 points" in page.text


def test_hostile_names_are_only_text(a_run, monkeypatch, tmp_path):
    evil = "<script>alert('1')</script>\"><img src=x onerror=alert(1)>"
    run = shutil.move(a_run, tmp_path / "<b>run&amp;")

    def rename(data):
        data.name = evil
        return data

    real = report.open_data

    def open_renamed(*arguments):
        dataset = real(*arguments)
        dataset.transform = rename
        return dataset

    monkeypatch.setattr(report, "open_data", open_renamed)
    out = tmp_path / "out.html"
    assert main(["report", str(run), "--out", str(out), "--cases", "1"]) == 0
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "<script" not in text
    assert evil in [row[0] for row in page.cells]
    assert "run <b>run&amp; ·" in page.text
    assert f"evaluate '{run}'" in page.text  # quoted for the shell


def test_a_run_without_curves_or_pictures_still_has_a_page(a_run, monkeypatch, tmp_path, capsys):
    (a_run / "metrics.csv").unlink()

    def no_opengl(*arguments, **options):
        raise RuntimeError("no OpenGL to draw with")

    monkeypatch.setattr("flare_geo.cli.report.content.plot_comparison", no_opengl)
    out = tmp_path / "page.html"
    assert main(["report", str(a_run), "--split", "train", "--out", str(out)]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert "of von Mises stress [Pa]): no OpenGL to draw with" in page.text
    assert re.search(r"No picture here \(learning curves.*metrics\.csv", page.text)
    assert "It was trained on these cases." in page.text
    assert f"report: {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "page.pdf"], "out must end in .html, got 'page.pdf'"),
        (["--cases", "0"], "cases must be at least 1, got 0"),
        (["--split", "none"], "elasticity has no split 'none', only train, val, test"),
        (["--data.colour", "red"], "the data set cannot be opened with"),
    ],
)
def test_wrong_use_is_one_line(trained, options, message, capsys):
    assert main(["report", str(trained), *options]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_failed_page_leaves_the_former_one(a_run, monkeypatch, capsys):
    path = a_run / "report.html"
    path.write_text("former")
    monkeypatch.setattr(report, "make_page", lambda *_: "half \udc80")  # cannot be written
    assert main(["report", str(a_run)]) == 1
    assert main(["report", str(a_run), "--out", str(path / "below" / "a.html")]) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert path.read_text() == "former"
    assert not list(a_run.glob(".report*"))


def test_choosing_cases():
    table = [{"case": i, "rel_l2": e} for i, e in enumerate([0.3, float("nan"), 0.1, 0.2, 0.5])]
    assert [row["case"] for row in ranked(table)] == [2, 3, 0, 4, 1]
    assert {k: row["case"] for k, row in choose_cases(table).items()} == {
        "best": 2,
        "median": 0,
        "worst": 1,
    }
    assert list(choose_cases(table, 9)) == [
        "best",
        "25 % of the cases are better",
        "median",
        "75 % of the cases are better",
        "worst",
    ]
    assert list(choose_cases(table[:2])) == ["best", "worst"]
    assert list(choose_cases(table[:1])) == list(choose_cases(table, 1)) == ["median"]
    with pytest.raises(ValueError, match="cases must be at least 1, got 0"):
        choose_cases(table, 0)


def test_wording():
    assert [percent(x) for x in (0.0345, 0.5, 1.0, 12.5, float("nan"))] == [
        *("3.45 %", "50.0 %", "100 %"),
        *("1,250 %", "not finite"),
    ]
    assert [rounded(x) for x in (37, 165_432, 999_999, 2.346e6)] == [
        *("37", "165,000", "1 million", "2.35 million"),
    ]
    assert [duration(x) for x in (0.00588, 2.94, 180, 7500)] == [
        *("5.88 ms", "2.94 s", "3 min", "2 h 5 min"),
    ]


def test_trimming():
    image = np.full((100, 80, 3), 255, dtype=np.uint8)
    assert trimmed(image).shape == (100, 80, 3)
    image[40, 30] = 0
    assert trimmed(image).shape == (25, 25, 3)


def chromium(folder, page, *options):
    """Run the browser without a network; skip where there is none."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser on this machine: apt-get install chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", *options, f"file://{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_browser_shows_it(written, tmp_path):
    dom = chromium(tmp_path, written, "--dump-dom")
    shown = Page(dom)
    assert "von Mises stress on elasticity" in shown.text
    assert "Generated data." in shown.text
    shot = tmp_path / "page.png"
    chromium(tmp_path, written, f"--screenshot={shot}", "--window-size=1100,3600")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (3600, 1100)
    viridis = [torch.tensor(c) for c in ([68, 1, 84], [33, 145, 140], [253, 231, 37])]
    for color in viridis:  # the fields are painted, not only their frames
        assert (np.abs(pixels - color.numpy()).max(axis=-1) < 25).sum() > 20
    amber = np.abs(pixels - np.array([255, 243, 223])).max(axis=-1) < 3
    assert amber.sum() > 20_000  # the word that the data are generated stands out
    narrow = tmp_path / "narrow.png"
    chromium(tmp_path, written, f"--screenshot={narrow}", "--window-size=500,1200")
    right = np.asarray(Image.open(narrow).convert("RGB"))[:, -8:]
    assert (right == 255).all()  # nothing is cut off on a small screen
