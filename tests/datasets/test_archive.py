import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest

from flare_geo.datasets.fetch import archive as module
from flare_geo.datasets.fetch.archive import unpack

FILES = {
    "set/a.npy": os.urandom(20_000),
    "set/sub/b.npy": b"b" * 3_000,
    "set/sub/empty.txt": b"",
    "README": b"read me",
}


def add(tar, name, content=b"x", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content) if info.isreg() else None)


def pack(path, files=FILES):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.mkdir("set")
            for name, content in files.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")) as tar:
            add(tar, "set", b"", type=tarfile.DIRTYPE)
            for name, content in files.items():
                add(tar, name, content)
    return path


def left(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def refuse(path, folder, message, **options):
    folder.mkdir(exist_ok=True)
    (folder / "kept").write_text("before")
    with pytest.raises(ValueError, match=message) as caught:
        unpack(path, folder, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert left(folder) == ["kept"]
    assert left(folder.parent) == sorted([path.name, folder.name, f"{folder.name}/kept"])


@pytest.fixture(params=["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"])
def packed(request, tmp_path):
    return pack(tmp_path / request.param)


def test_all(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README").write_text("older")
    paths = unpack(packed, tmp_path / "out")
    assert paths == [tmp_path / "out" / name for name in FILES]
    assert [p.read_bytes() for p in paths] == list(FILES.values())
    assert len(left(tmp_path / "out")) == len(FILES) + 2


def test_some(packed, tmp_path):
    out = tmp_path / "new" / "out"
    assert unpack(packed, out, "*.npy") == [out / "set/a.npy", out / "set/sub/b.npy"]
    assert unpack(packed, tmp_path / "b", ["README", "*/b.npy"]) == [
        tmp_path / "b" / name for name in ("set/sub/b.npy", "README")
    ]
    message = r"no member matches \*\.mat or y; it holds set/a\.npy, set/sub/b\.npy, set/sub/empty"
    with pytest.raises(FileNotFoundError, match=message):
        unpack(packed, tmp_path / "c", ["*.mat", "y"])
    assert left(tmp_path / "c") == []


def test_the_suffix_does_not_matter(tmp_path):
    path = pack(tmp_path / "x.zip").rename(tmp_path / "data")
    assert len(unpack(path, tmp_path / "out")) == len(FILES)


def test_cut_off_anywhere(packed, tmp_path):
    whole = packed.read_bytes()
    for length in sorted({*range(0, len(whole), 997), 512, 1536, len(whole) - 1}):
        if packed.suffix == ".tar" and length > len(whole) - tarfile.RECORDSIZE + 512:
            continue  # only the padding is missing
        packed.write_bytes(whole[:length])
        refuse(packed, tmp_path / "out", "is cut off or damaged|nor a zip archive, or is cut off")


@pytest.mark.parametrize("packed", ["x.tar.gz", "x.tar.xz", "x.zip"], indirect=True)
def test_damaged(packed, tmp_path):
    whole = bytearray(packed.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    packed.write_bytes(whole)
    refuse(packed, tmp_path / "out", "is cut off or damaged.*; fetch it again")


def test_no_archive(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html>not found</html>" * 100)
    refuse(path, tmp_path / "out", "is neither a tar nor a zip archive")
    with pytest.raises(FileNotFoundError, match=r"there is no archive .*nothing.zip"):
        unpack(tmp_path / "nothing.zip", tmp_path / "out")


NAMES = {
    "/etc/passwd": "has an absolute name",
    "//host/share/x": "has an absolute name",
    "C:\\x": "has an absolute name",
    "C:/x": "has an absolute name",
    "../up": "leads out of the folder",
    "a/../../up": "leads out of the folder",
    "a\\..\\..\\up": "leads out of the folder",
    "..": "leads out of the folder",
}


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path, name, suffix):
    path = pack(tmp_path / f"x{suffix}", {"good": b"good", name: b"bad"})
    refuse(path, tmp_path / "out", f"member '.*' {NAMES[name]}; nothing was unpacked")
    assert unpack(path, tmp_path / "fine", "good") == [tmp_path / "fine" / "good"]


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
@pytest.mark.parametrize("target", ["good", "../..", "/etc/passwd"])
def test_links_and_devices_in_tar(tmp_path, kind, target):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "good")
        add(tar, "bad", b"", type=getattr(tarfile, kind), linkname=target)
        add(tar, "bad/through", b"written outside")
    refuse(tmp_path / "x.tar", tmp_path / "out", "member 'bad' is a link, a device or sparse")


def test_links_in_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        link = zipfile.ZipInfo("bad")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc")
        file.writestr("bad/through", "written outside")
    refuse(tmp_path / "x.zip", tmp_path / "out", "member 'bad' is a link or a device")


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("again", ["a", "./a", "b/../a", "a/b"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twice(tmp_path, suffix, again):
    path = tmp_path / f"x{suffix}"
    message = "leads out" if ".." in again else "comes twice; nothing was unpacked"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "1")
            file.writestr(again, "2")
    else:
        with tarfile.open(path, "w") as tar:
            add(tar, "a")
            add(tar, again)
    refuse(path, tmp_path / "out", message)


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLOOR", 10**6)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        for i in range(5):
            add(tar, f"zeros{i}", bytes(400_000))
    message = r"x.tar.gz \(\d.\d kB\) would unpack to 1.2 MB or more, .* \(limit 1.0 MB\)"
    refuse(tmp_path / "x.tar.gz", tmp_path / "out", message)
    assert len(unpack(tmp_path / "x.tar.gz", tmp_path / "meant", max_bytes=2_000_000)) == 5


def test_a_zip_that_declares_less_than_it_holds(tmp_path):
    path = pack(tmp_path / "x.zip", {"big": bytes(5000)})
    whole = path.read_bytes()
    assert whole.count((5000).to_bytes(4, "little")) == 2  # local header and directory
    path.write_bytes(whole.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    refuse(path, tmp_path / "out", "is cut off or damaged")


def test_sparse_files_are_bombs_too(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "holes", b"x", type=tarfile.GNUTYPE_SPARSE)
    refuse(tmp_path / "x.tar", tmp_path / "out", "member 'holes' is a link, a device or sparse")


def test_encrypted(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("secret", "s")
    whole = bytearray(path.read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        whole[whole.index(mark) + at] |= 1
    path.write_bytes(whole)
    refuse(path, tmp_path / "out", "member 'secret' is encrypted")


def test_no_room(packed, tmp_path, monkeypatch):
    def no_room(size, folder):
        raise OSError("no room")

    monkeypatch.setattr(module, "check_space", no_room)
    with pytest.raises(OSError, match="no room"):
        unpack(packed, tmp_path / "out")
    assert left(tmp_path / "out") == []


def test_interrupted(packed, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(packed, tmp_path / "out")
    assert left(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs GNU or BSD tar")
def test_a_tar_of_the_tar_command(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ("long" * 40)).write_bytes(b"1")
    subprocess.run(["tar", "-C", tmp_path, "-czf", tmp_path / "x.tgz", "./in"], check=True)
    (path,) = unpack(tmp_path / "x.tgz", tmp_path / "out")
    assert path == tmp_path / "out" / "in" / ("long" * 40)
