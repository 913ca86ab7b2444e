import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from flare_geo.datasets.lpbf_series import LPBFSeriesDataset, choose_states
from flare_geo.datasets.readers.lpbf_format import write_lpbf

TIMES = (10.0, 10.0, 20.0, 30.0, 30.0)
LAYERS = (1, 2, 3, 3, 3)  # built at each state
SIZES = (4, 4, 4, 2, 2)  # cells along an edge: coarser at the end


def block(layers, size):
    z, y, x = np.meshgrid(np.arange(layers + 1) / 2, *2 * [np.arange(size + 1) / size])
    z, y, x = (np.moveaxis(a, 1, 0) for a in (z, y, x))
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1).astype(np.float32)
    number = np.arange(len(points)).reshape(x.shape)
    low = [number[:-1, j : j + size, i : i + size] for j, i in ((0, 0), (0, 1), (1, 1), (1, 0))]
    cells = np.stack([c.ravel() for c in low], axis=1)
    return points, np.concatenate([cells, cells + (size + 1) ** 2], axis=1)


def source(points, case):
    """What a step adds: dyadic numbers, so that sums of few of them are exact."""
    return np.stack([points[:, 0] + case, points[:, 1] - 0.5, points[:, 2]], axis=1)


def advance(state, points, case):
    """The law of the toy: u <- u / 2 + f."""
    return (state / 2 + source(points, case)).astype(np.float32)


def write_series(folder, case, stress=True, times=TIMES):
    """States by the law, each on its own mesh, nodes found by their place."""
    known: dict[tuple[float, ...], np.ndarray] = {}
    states = []
    for i, (layers, size) in enumerate(zip(LAYERS, SIZES, strict=True)):
        points, cells = block(layers, size)
        before = np.array([known.get(tuple(p), np.zeros(3)) for p in points.tolist()])
        counts = times is None or i >= len(times) - 2 or times[i] != times[i + 1]
        after = advance(before, points, case) if counts else np.full_like(before, 999)
        if counts:
            known = dict(zip(map(tuple, points.tolist()), after, strict=True))
            states.append(after)
        fields = {"disp": after, "temp": np.full((len(points), 1), 20.0 + i)}
        if stress:
            fields["vmstr"] = 8 * after[:, :1]
        about = {} if times is None else {"time": times[i]}
        write_lpbf(folder / f"step_{i + 1:04d}.npz", points, cells, fields, about)
    return states


@pytest.fixture
def root(tmp_path):
    for i in range(4):
        write_series(tmp_path / f"shape_{i}_series", i)
    return tmp_path


def case_names(data):
    """The simulations of a split, in order."""
    return list(dict.fromkeys(name.rpartition("_step_")[0] for name in data.store.names))


def steps_of(data, case):
    """All steps of a simulation, in order."""
    return [data[i] for i, n in enumerate(data.store.names) if n.startswith(f"{case}_step_")]


def both(root):
    parts = [LPBFSeriesDataset(root, split, num_val=1) for split in ("train", "val", "test")]
    assert [len(case_names(p)) for p in parts] == [2, 1, 1]
    return parts


def test_steps_of_whole_cases(root):
    parts = both(root)
    names = [name for part in parts for name in case_names(part)]
    assert sorted(names) == [f"shape_{i}" for i in range(4)]
    for part in parts:
        for case in case_names(part):
            numbers = [data.step[0].tolist() for data in steps_of(part, case)]
            assert numbers == [[0, 2], [2, 3], [3, 4], [4, 5]]  # state 1 has the time of state 2


def test_state_and_increment(root):
    for part in both(root):
        for case in case_names(part):
            states = write_series(root / "again" / f"{case}_series", int(case[-1]))
            steps = steps_of(part, case)
            for i, (data, after) in enumerate(zip(steps, states, strict=True)):
                points, cells = block(LAYERS[i + 1], SIZES[i + 1])
                assert torch.equal(data.pos, torch.from_numpy(points))
                assert torch.equal(data.cells, torch.from_numpy(cells))
                assert torch.equal(data.x[:, :-1] + data.y, torch.from_numpy(after))
                built = data.pos[:, 2] <= LAYERS[i] / 2 if i else torch.zeros(len(points)) > 0
                if i == 1:  # state 1 was passed over: layers 1 and 2 came with state 2
                    built = data.pos[:, 2] <= 1
                assert torch.equal(data.x[:, -1], built.float())
                assert (data.x[~built, :-1] == 0).all()
                assert (data.previous[:, 0] >= 0).equal(built)
                if i:
                    there = data.previous[built, 0]
                    assert torch.equal(steps[i - 1].pos[there], data.pos[built])


def test_targets(root):
    data = LPBFSeriesDataset(root, targets=("temperature", "von_mises", "displacement_z"))
    case = steps_of(data, case_names(data)[0])[1]
    assert case.x.shape[1] == 4
    old = case.x[:, -1] == 1
    assert (case.x[old, 0] == 21).all()
    assert (case.y[old, 0] == 1).all()
    assert (case.y[~old, 0] == 22).all()
    assert [c.unit for c in data.channels["x"]] == ["C", "MPa", "mm", "1"]
    assert data.path == LPBFSeriesDataset(root).path
    batch = next(iter(DataLoader(data, batch_size=3)))
    assert batch.step.shape == (3, 2)


def test_files_without_stress_or_time(tmp_path):
    write_series(tmp_path / "a_series", 0, stress=False, times=None)
    data = LPBFSeriesDataset(tmp_path)
    assert [d.step[0].tolist() for d in steps_of(data, "a")] == [[i, i + 1] for i in range(5)]
    with pytest.raises(ValueError, match="a_step_0001 holds no von_mises, only displacement_x"):
        LPBFSeriesDataset(tmp_path, targets="von_mises")


def test_choose_states():
    assert choose_states([0, 10, 10, 20, 20, 90, 90]) == [0, 2, 4, 5, 6]
    assert choose_states([1, 1]) == [0, 1]
    assert choose_states([None] * 3) == [0, 1, 2]
    assert choose_states([]) == []


def test_bad_folders(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="flare-geo data convert netfabb CASE_DIR"):
        LPBFSeriesDataset(tmp_path / "nothing")
    (root / "include_list.txt").write_text("shape_1\nshape_2\n")
    kept = [case_names(LPBFSeriesDataset(root, split)) for split in ("train", "test")]
    assert sorted(name for names in kept for name in names) == ["shape_1", "shape_2"]
    broken = root / "shape_1_series" / "step_0004.npz"
    whole = dict(np.load(broken))
    del whole["temp"]
    np.savez(broken, **whole)
    message = r"only one of .*step_0003\.npz and step_0004\.npz holds 'temp'"
    split = "train" if "shape_1" in kept[0] else "test"
    with pytest.raises(ValueError, match=message) as caught:
        LPBFSeriesDataset(root, split)
    assert "\n" not in str(caught.value)
