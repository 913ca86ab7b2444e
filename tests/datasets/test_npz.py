import json
import os
import zipfile

import numpy as np
import pytest

from flare_geo.datasets.readers.npz import (
    PickledError,
    json_array,
    npz_names,
    read_json_member,
    read_npz,
)

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
    with pytest.raises(PickledError, match=f"'{name}' holds pickled Python objects"):
        read_json_member(path, name)
    assert not proof.exists()
    np.load(path, allow_pickle=True)[name]  # what the attack would have done
    assert proof.exists()


def test_json_without_a_pickle(tmp_path):
    np.savez(tmp_path / "a.npz", m=json_array(META), scalar=np.array(json.dumps(META)))
    assert read_json_member(tmp_path / "a.npz", "m") == META
    assert read_json_member(tmp_path / "a.npz", "scalar") == META
    official = np.load(tmp_path / "a.npz", allow_pickle=False)["m"]
    assert json.loads(official[0]) == META  # as the official loader reads it


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["[1]"]), "holds JSON of type list, not object"),
        (np.array(["{"]), r"is not one JSON text \(Expecting property name"),
        (np.array(["{}", "{}"]), r"it is <U2 \(2,\), expected one text"),
        (np.array([1.0]), r"it is float64 \(1,\), expected one text"),
        (np.array(["{}"], dtype=object), "'m' holds pickled Python objects"),
        (np.array(["x" * 2**20 + "x"]), "it is longer than 1048576 letters"),
        (np.array(["[" * 100_000]), "is not one JSON text"),
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
