import errno
import os

import pytest

from flare_geo.files import write_aside


def test_a_new_file_and_its_folder(tmp_path):
    with write_aside(tmp_path / "a" / "b.txt") as aside:
        assert aside.suffix == ".txt"
        aside.write_text("new")
        assert not (tmp_path / "a" / "b.txt").exists()
    assert (tmp_path / "a" / "b.txt").read_text() == "new"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


def test_a_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("old")

    def fail():
        with write_aside(path) as aside:
            aside.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_the_mode_is_that_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with write_aside(tmp_path / "aside") as aside:
        aside.write_text("")
    assert (tmp_path / "aside").stat().st_mode == (tmp_path / "plain").stat().st_mode
