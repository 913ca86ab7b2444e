"""A verb is a function: its signature is the options, and some of them need no flag."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from flare_geo.cli import main as entry
from flare_geo.cli.verb import Verb

CLI = Path(entry.__file__).parent


def called(verb, *words):
    assert verb.run("toy", words) == 0


@pytest.fixture
def seen():
    return []


@pytest.fixture
def toy(seen):
    def toy(run: Path, mesh: Path | None = None, size: float = 1.0, out: Path | None = None):
        """Do nothing.

        Args:
            run: Folder of the run.
            mesh: A mesh.
            size: Its size.
            out: Where to write.
        """
        seen.append((str(run), mesh and str(mesh), size, out and str(out)))

    return Verb(toy, positional=("run", "mesh"))


def test_words_without_a_flag_are_the_positional_parameters(toy, seen):
    called(toy, "r", "m", "-o", "o", "--size", "-3")
    called(toy, "--size=2", "r", "-o", "o", "m")
    called(toy, "--mesh", "m", "r")
    called(toy, "--run", "r")
    assert seen == [
        ("r", "m", -3.0, "o"), ("r", "m", 2.0, "o"), ("r", "m", 1.0, None), ("r", None, 1.0, None),
    ]  # fmt: skip


def test_the_last_one_may_take_all_words():
    seen = []

    def join(files: list[Path], out: Path):
        seen.append(([str(f) for f in files], str(out)))

    called(Verb(join, positional=("files+",)), "a", "b", "--out", "o", "c")
    assert seen == [(["a", "b", "c"], "o")]


def test_one_parameter_may_receive_the_yaml():
    seen = []

    def keep(size: int = 3, text: str = ""):
        seen.append(text)

    called(Verb(keep, yaml="text"), "--size", "5")
    assert seen == ["size: 5\n"]
    assert Verb(keep, yaml="text").run("keep", ["--text", "a"]) == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "required: run"),
        (["r", "m", "n"], 2, "unrecognized arguments: n"),
        (["r", "--size", "big"], 2, "size"),
        (["r", "--size"], 2, "expected one argument"),
    ],
)
def test_wrong_use_is_one_line(toy, words, status, message, capsys):
    assert toy.run("toy", words) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flare-geo toy: ")
    assert message in line


def test_help_shows_how_it_is_called(toy, capsys):
    with pytest.raises(SystemExit):
        toy.run("toy", ["--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: flare-geo toy RUN [MESH] [options]\n\nDo nothing.\n")


def test_every_verb_of_the_list_is_a_module(capsys):
    for name in entry.VERBS:
        with pytest.raises(SystemExit) if name != "data" else pytest.MonkeyPatch.context():
            entry.main([name, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: flare-geo {name} ")


def test_verbs_share_rooms_and_do_not_import_each_other():
    verbs = {f"flare_geo.cli.{name}" for name in entry.VERBS}
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in verbs:
                assert node.module == f"flare_geo.cli.{path.parent.name}", path


def test_help_imports_nothing_large():
    code = (
        "import sys; from flare_geo.cli.main import main; main(['--help']); "
        "print(*(set(sys.modules) & {'torch', 'numpy', 'lightning', 'jsonargparse', 'jinja2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
