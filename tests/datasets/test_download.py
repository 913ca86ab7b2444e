import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hub_server import commit_of, serve_hub

from flare_geo.datasets.fetch import download
from flare_geo.datasets.fetch.download import (
    RemoteFile,
    check_space,
    fetch,
    in_words,
    missing_bytes,
)

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
FILE = RemoteFile("run_1/a b.npz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    (tmp_path / "served" / "run_1").mkdir(parents=True)
    (tmp_path / "served" / FILE.name).write_bytes(CONTENT)
    with serve_hub({"a/b": tmp_path / "served"}) as hub:
        hub.url = f"{hub}/cdn/a/b/@"
        yield hub


def ranges(hub):
    return [wanted for _, wanted in hub.files_asked()]


def left(root):
    return sorted(p.name for p in root.rglob("*") if p.is_file())


def test_whole(hub, tmp_path):
    done = []
    path = fetch(FILE, hub.url, tmp_path / "root", advance=done.append)
    assert path == tmp_path / "root" / "run_1" / "a b.npz"
    assert path.read_bytes() == CONTENT
    assert left(tmp_path / "root") == ["a b.npz"]
    assert sum(done) == FILE.size
    fetch(FILE, hub.url, tmp_path / "root", advance=done.append)
    assert sum(done) == 2 * FILE.size
    assert ranges(hub) == [None]


def test_git_checksum(hub, tmp_path):
    sha1 = hashlib.sha1(b"blob 10240\0" + CONTENT).hexdigest()
    fetch(RemoteFile(FILE.name, FILE.size, None, sha1), hub.url, tmp_path)
    with pytest.raises(ValueError, match="without a checksum"):
        fetch(RemoteFile(FILE.name, FILE.size, None), hub.url, tmp_path)


def test_broken_connection_is_taken_up_where_it_broke(hub, tmp_path):
    hub.cut[FILE.name] = [1000, 2000, 0, 0]
    done = []
    path = fetch(FILE, hub.url, tmp_path / "root", advance=done.append)
    assert path.read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=1000-", "bytes=3000-", "bytes=3000-", "bytes=3000-"]
    assert sum(done) == FILE.size


def test_a_later_run_goes_on(hub, tmp_path):
    root = tmp_path / "root"
    hub.cut[FILE.name] = [4000, 0, 0, 0, 0, 0]
    with pytest.raises(OSError, match=r"closed; 4.0 kB of 10.2 kB have arrived and are kept"):
        fetch(FILE, hub.url, root)
    assert left(root) == [f".a b.npz.{FILE.sha256[:12]}.part"]
    assert missing_bytes([FILE], root) == FILE.size - 4000
    hub.asked.clear()
    assert fetch(FILE, hub.url, root).read_bytes() == CONTENT
    assert ranges(hub) == ["bytes=4000-"]
    assert left(root) == ["a b.npz"]
    assert missing_bytes([FILE], root) == 0


def test_interrupted(hub, tmp_path):
    def interrupt(count):
        if count:
            raise KeyboardInterrupt

    hub.cut[FILE.name] = [4000]
    with pytest.raises(KeyboardInterrupt):
        fetch(FILE, hub.url, tmp_path / "root", advance=interrupt)
    assert missing_bytes([FILE], tmp_path / "root") == FILE.size - 4000
    assert fetch(FILE, hub.url, tmp_path / "root").read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=4000-"]


def test_killed_before_the_last_step(hub, tmp_path):
    (tmp_path / "run_1").mkdir()
    FILE.part_in(tmp_path).write_bytes(CONTENT)
    assert fetch(FILE, hub.url, tmp_path).read_bytes() == CONTENT
    assert not hub.asked


@pytest.mark.parametrize("began_with", [b"damaged", CONTENT + b"too long"])
def test_what_was_begun_is_not_trusted(hub, tmp_path, began_with):
    root = tmp_path / "root"
    (root / "run_1").mkdir(parents=True)
    FILE.part_in(root).write_bytes(began_with)
    if began_with == b"damaged":
        with pytest.raises(ValueError, match="what came was removed, run it again"):
            fetch(FILE, hub.url, root)
        assert left(root) == []
    assert fetch(FILE, hub.url, root).read_bytes() == CONTENT
    assert left(root) == ["a b.npz"]


def test_a_server_without_parts(hub, tmp_path):
    hub.no_ranges = True
    hub.cut[FILE.name] = [5000]
    done = []
    assert fetch(FILE, hub.url, tmp_path / "root", advance=done.append).read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=5000-"]
    assert sum(done) == FILE.size


def test_busy_server(hub, tmp_path):
    hub.failing += [503, 429]
    assert fetch(FILE, hub.url, tmp_path / "root").read_bytes() == CONTENT
    hub.failing += [503] * 5
    with pytest.raises(OSError, match=r"HTTP 503 .*; 0 B of 10.2 kB have arrived"):
        fetch(FILE, hub.url, tmp_path / "other")
    assert left(tmp_path / "other") == []
    assert len(hub.asked) == 8


@pytest.mark.parametrize("lie", [CONTENT[:-1], CONTENT + b"?", CONTENT[:-1] + b"?", b""])
def test_wrong_content_leaves_nothing(hub, tmp_path, lie):
    hub.lies[FILE.name] = lie
    with pytest.raises(ValueError, match="is not the expected file") as caught:
        fetch(FILE, hub.url, tmp_path / "root")
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "root") == []


def test_a_right_file_is_not_lost_to_a_wrong_one(hub, tmp_path):
    newer = RemoteFile(FILE.name, 3, hashlib.sha256(b"new").hexdigest())
    fetch(FILE, hub.url, tmp_path / "root")
    with pytest.raises(ValueError, match="has 10240 bytes, not 3"):
        fetch(newer, hub.url, tmp_path / "root")
    assert (tmp_path / "root" / FILE.name).read_bytes() == CONTENT


def test_a_shorter_file_than_was_begun(hub, tmp_path):
    root = tmp_path / "root"
    (root / "run_1").mkdir(parents=True)
    FILE.part_in(root).write_bytes(CONTENT[:9000])
    hub.lies[FILE.name] = CONTENT[:8000]
    with pytest.raises(OSError, match="HTTP 416"):
        fetch(FILE, hub.url, root)
    assert left(root) == []


def test_no_server(tmp_path):
    with serve_hub({}) as hub:
        pass
    with pytest.raises(OSError, match=r"cannot fetch http://127.* refused"):
        fetch(FILE, hub, tmp_path / "root")
    assert left(tmp_path / "root") == []


def test_several_at_once(hub, tmp_path):
    content = bytes(range(256)) * 2**14  # 4 MiB
    (tmp_path / "served" / "large.npz").write_bytes(content)
    large = RemoteFile("large.npz", len(content), hashlib.sha256(content).hexdigest())
    hub.cut["large.npz"] = 2**20 + 7
    with ThreadPoolExecutor(4) as pool:
        for path in pool.map(lambda _: fetch(large, hub.url, tmp_path / "root"), range(8)):
            assert path.read_bytes() == content
    assert left(tmp_path / "root") == ["large.npz"]


@pytest.mark.parametrize("name", ["../up.npz", "/etc/up.npz", "a\\..\\..\\up.npz", "C:x", ""])
def test_names_stay_in_the_folder(hub, tmp_path, name):
    with pytest.raises(
        ValueError, match=r"(absolute name|leads out of the folder|no name): it is not"
    ):
        fetch(FILE._replace(name=name), hub.url, tmp_path / "root")
    assert not hub.asked


def test_secrets_stay_with_their_host(hub, tmp_path):
    hub.gated.add("a/b")
    (tmp_path / "served" / "small.txt").write_text("hello")
    small = RemoteFile("small.txt", 5, hashlib.sha256(b"hello").hexdigest())
    page = f"{hub}/datasets/a/b/resolve/{commit_of(tmp_path / 'served')}"
    with pytest.raises(download.RefusedError, match="HTTP 401 Unauthorized"):
        fetch(FILE, page, tmp_path / "root")
    for file in (FILE, small):
        fetch(
            file,
            page,
            tmp_path / "root",
            headers={"Authorization": "Bearer accepted"},
        )
    given = [(a["host"], a["authorization"]) for a in hub.asked if a["path"].startswith("/cdn")]
    assert given == [("localhost", None), ("127.0.0.1", "Bearer accepted")]


def test_room(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    check_space(1_500_000_000, tmp_path / "not" / "there")
    with pytest.raises(OSError, match=r"there has room for 1.5 GB, 2.0 TB are needed: choose"):
        check_space(2 * 10**12, tmp_path / "not" / "there")
    assert [in_words(n) for n in (0, 999, 1000, 26_800_000_000, 3 * 10**16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "26.8 GB",
        "30000 TB",
    ]
