import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from flare_geo.datasets.npz import json_array, npz_names, read_json_member, read_npz

META = {"metadata": {"case_name": "case_\u00e9", "zmax": 21.6, "time_steps": list(range(200))}}


class Evil:
    """Pickles as a call that makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def member(path, name, payload, shape=(1,), descr="|O"):
    """An .npz whose member `name` is an array header before the given bytes."""
    with zipfile.ZipFile(path, "w") as archive, archive.open(f"{name}.npy", "w") as file:
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(payload)
    return path


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "case.npz"
    text = np.array([json.dumps(META)], dtype=object)
    np.savez_compressed(path, pos=np.arange(12.0).reshape(4, 3), temp=np.ones(4), _metadata=text)
    return path


def test_named_arrays(case):
    arrays = read_npz(case, ["temp", "pos"])
    assert list(arrays) == ["temp", "pos"]
    assert np.array_equal(arrays["pos"], np.arange(12.0).reshape(4, 3))
    assert npz_names(case) == ["pos", "temp", "_metadata"]


def test_missing_names_are_listed_with_those_there_are(case):
    with pytest.raises(ValueError, match=r"holds no 'disp', only 'pos', 'temp', '_metadata'$"):
        read_npz(case, ["pos", "disp"])
    with pytest.raises(ValueError, match=r"holds no 'meta', only 'pos'"):
        read_json_member(case, "meta")
    for read in (lambda p: read_npz(p, []), npz_names, lambda p: read_json_member(p, "x")):
        with pytest.raises(FileNotFoundError):
            read(case.with_name("nowhere.npz"))


@pytest.mark.parametrize("name", ["_metadata", "pos"])
def test_hidden_pickle_is_never_run(tmp_path, name):
    path, proof = tmp_path / "evil.npz", tmp_path / "it_ran"
    arrays = {"temp": np.ones(4), name: np.array([Evil(proof)], dtype=object)}
    np.savez(path, **arrays)
    assert read_npz(path, ["temp"])["temp"].sum() == 4  # the others stay readable
    with pytest.raises(ValueError, match=f"'{name}' holds pickled Python objects"):
        read_npz(path, ["temp", name])
    with pytest.raises(ValueError, match=r"it names (posix|nt)\.mkdir\); not opened"):
        read_json_member(path, name)
    assert not proof.exists()
    np.load(path, allow_pickle=True)[name]  # what the attack would have done
    assert proof.exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_json_in_a_pickled_array(tmp_path, protocol):
    payload = pickle.dumps(np.array([json.dumps(META)], dtype=object), protocol=protocol)
    assert read_json_member(member(tmp_path / "a.npz", "m", payload), "m") == META
    old = payload.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")  # NumPy 1
    old = old.replace(b"\x8c\x16numpy.core", b"\x8c\x15numpy.core")  # a length before the text
    if protocol == 3:
        assert read_json_member(member(tmp_path / "b.npz", "m", old), "m") == META


def test_json_without_a_pickle(tmp_path):
    np.savez(tmp_path / "a.npz", m=json_array(META), scalar=np.array(json.dumps(META)))
    assert read_json_member(tmp_path / "a.npz", "m") == META
    assert read_json_member(tmp_path / "a.npz", "scalar") == META
    official = np.load(tmp_path / "a.npz", allow_pickle=False)["m"]
    assert json.loads(official[0]) == META  # as the official loader reads it


def test_pickles_that_turn_the_allowed_names_against_numpy(tmp_path):
    """Shapes and dtypes that would make the real functions read foreign memory."""
    payload = pickle.dumps(np.array(["{}"], dtype=object), protocol=3)
    as_bytes = payload.replace(b"]q\rX\x02\x00\x00\x00{}q\x0ea", b"C\x08AAAAAAAA")
    assert as_bytes != payload
    with pytest.raises(ValueError, match="its pickle is not an array"):
        read_json_member(member(tmp_path / "a.npz", "m", as_bytes), "m")
    for evil in (b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", b"cnumpy.core.multiarray\nscalar\n."):
        with pytest.raises(ValueError, match="not opened"):
            read_json_member(member(tmp_path / "b.npz", "m", evil), "m")
    bomb = b"\x80\x03X\x01\x00\x00\x00ar\xff\xff\xff\x7f."  # a memo of 16 GB
    with pytest.raises(ValueError, match="its pickle uses LONG_BINPUT"):
        read_json_member(member(tmp_path / "c.npz", "m", bomb), "m")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["[1]"]), "holds JSON of type list, not object"),
        (np.array(["{"]), r"is not one JSON text \(Expecting property name"),
        (np.array(["{}", "{}"]), r"it has shape \(2,\), expected \(1,\)"),
        (np.array([1.0]), "it holds float, expected str"),
        (np.array([7], dtype=object), "it holds int, expected str"),
        (np.array(["x" * 2**20], dtype=object), "it is larger than 1048576 bytes"),
        (np.array(["[" * 100_000], dtype=object), "is not one JSON text"),
    ],
)
def test_anything_else_is_refused(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", m=array)
    with pytest.raises(ValueError, match=message) as caught:
        read_json_member(tmp_path / "a.npz", "m")
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(case):
    whole = case.read_bytes()
    for content in (b"", b"junk", whole[:100], whole[: len(whole) - 30]):
        case.write_bytes(content)
        for read in (npz_names, lambda p: read_npz(p, ["pos"]), lambda p: read_json_member(p, "m")):
            with pytest.raises(ValueError, match=r"case\.npz is not a whole \.npz file") as caught:
                read(case)
            assert "\n" not in str(caught.value)
    flipped = bytearray(whole)
    flipped[80:120] = bytes(40)
    case.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"case\.npz: 'pos' cannot be read .* get it again"):
        read_npz(case, ["pos"])


def test_array_shorter_than_its_header_says(tmp_path):
    path = member(tmp_path / "a.npz", "pos", b"\0" * 64, (10**13, 3), "<f8")
    with pytest.raises(ValueError, match=r"a\.npz: 'pos' cannot be read"):
        read_npz(path, ["pos"])
