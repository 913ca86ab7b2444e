import h5py
import numpy as np
import pytest
from scipy.io import savemat

from flare_geo.datasets.readers.mat import MatFile

A = np.random.default_rng(0).normal(size=(6, 5, 7))
B = A[:, 0].astype(np.float32)


def write(path, kind, **arrays):
    if kind.startswith("5"):
        savemat(path, arrays, do_compression=kind == "5 deflated")
    else:
        options = {"chunks": True, "compression": "gzip"} if kind == "7.3 deflated" else {}
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, array in arrays.items():  # MATLAB is column-major, HDF5 row-major
                file.create_dataset(name, data=np.asarray(array).T, **options)
        with path.open("r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


@pytest.fixture(params=["5", "5 deflated", "7.3", "7.3 deflated"])
def kind(request):
    return request.param


def test_both_versions_give_the_same_array(tmp_path, kind):
    file = MatFile(write(tmp_path / "a.mat", kind, a=A, b=B))
    assert file.shapes["a"] == A.shape
    assert file.count("a", (5, 7)) == 6
    for name, array in (("a", A), ("b", B)):
        assert file.read(name).dtype == array.dtype
        np.testing.assert_array_equal(file.read(name), array)
    np.testing.assert_array_equal(file.read("a", slice(2, 4)), A[2:4])
    np.testing.assert_array_equal(file.read("a", np.s_[1:5:2, ::2, ::3]), A[1:5:2, ::2, ::3])


def test_only_the_part_is_read_from_hdf5(tmp_path, monkeypatch):
    asked = []
    getitem = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: asked.append(key) or getitem(self, key)
    )
    MatFile(write(tmp_path / "a.mat", "7.3", a=A)).read("a", slice(2, 4))
    assert asked == [(slice(None), slice(None), slice(2, 4))]


def test_a_wrong_name_or_shape_says_what_there_is(tmp_path, kind):
    path = write(tmp_path / "a.mat", kind, a=A, b=B)
    for ask in (lambda f: f.read("c"), lambda f: f.count("c", (5, 7))):
        with pytest.raises(ValueError) as caught:
            ask(MatFile(path))
        assert str(caught.value) == f"{path}: no array 'c', it holds a, b"
    with pytest.raises(ValueError, match=r"expected 'a' of shape \(samples, 7, 5\), got \(6, 5, 7"):
        MatFile(path).count("a", (7, 5))


def test_what_is_not_numbers_is_refused(tmp_path):
    cells = np.empty((1, 2), dtype=object)
    cells[:] = [[np.zeros(2), np.zeros(3)]]
    savemat(tmp_path / "a.mat", {"a": cells, "text": "words"})
    for name in ("a", "text"):
        with pytest.raises(ValueError, match=rf"'{name}' is .*, expected numbers"):
            MatFile(tmp_path / "a.mat").read(name)


def test_broken_files(tmp_path, kind):
    path = write(tmp_path / "a.mat", kind, a=np.random.default_rng(0).normal(size=(50, 9, 9)), b=B)
    whole = path.read_bytes()
    for length in (0, 60, 200, 700, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.mat is not a MATLAB file .* cut off") as caught:
            MatFile(path).read("b")
        assert "\n" not in str(caught.value)
    path.write_bytes(b"not a matrix at all, " * 100)
    with pytest.raises(
        ValueError, match=r"is not a MATLAB file of version 5 or 7\.3, or it is cut"
    ):
        MatFile(path)
    with pytest.raises(FileNotFoundError):
        MatFile(tmp_path / "nowhere.mat")
