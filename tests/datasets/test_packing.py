"""Packing in chunks: interrupted anywhere, in any number of processes, the same file comes out."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from held import HeldDataset

from flare_geo.datasets import PackedStore
from flare_geo.datasets.store import packing

HERE = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path):
    np.save(tmp_path / "held.npy", np.arange(12.0))
    return tmp_path


def chunks(root):
    return sorted(p.name for p in root.glob("processed/.held_*.blocks/*.h5"))


def contents(path):
    store = PackedStore(path)
    return store.names, store.sha256, store.ptr.tolist(), store.find_damage()


@pytest.fixture
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "held.npy", np.arange(12.0))
    return contents(HeldDataset(folder).path)


def test_packing_goes_on_where_it_was_cut(root, whole, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK_BYTES", 1)  # every case a chunk
    monkeypatch.setattr(HeldDataset, "cut_at", 7)
    with pytest.raises(KeyboardInterrupt):
        HeldDataset(root)
    assert chunks(root) == [f"{i:06d}.h5" for i in range(7)]
    monkeypatch.setattr(HeldDataset, "cut_at", None)
    HeldDataset.read_count = 0
    data = HeldDataset(root)
    assert HeldDataset.read_count == 5
    assert contents(data.path) == whole
    assert chunks(root) == []
    assert not list(root.glob("processed/.*.blocks"))


def test_chunks_of_other_data_are_not_used(root, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK_BYTES", 1)
    monkeypatch.setattr(HeldDataset, "cut_at", 7)
    with pytest.raises(KeyboardInterrupt):
        HeldDataset(root)
    monkeypatch.setattr(HeldDataset, "cut_at", None)
    np.save(root / "held.npy", np.arange(12.0) + 100)
    assert [c.y[0].item() for c in HeldDataset(root)] == list(np.arange(12.0) + 100)
    assert chunks(root) == []


def test_processes_that_are_killed_leave_whole_blocks(root, whole, monkeypatch):
    script = root / "pack.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(HERE)!r})
            from flare_geo.datasets.store import packing
            from held import HeldDataset
            if __name__ == "__main__":
                packing.CHUNK_BYTES = 1
                HeldDataset({str(root)!r}, workers=2, log=False)
            """
        )
    )
    (root / "hold").write_text("5")
    words = [sys.executable, script]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:  # both processes are held: what lies before is written
        assert sorted(process.stdout.readline() for _ in range(2)) == ["held at 5\n", "held at 6\n"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert chunks(root) == [f"{i:06d}.h5" for i in range(5)]
    assert not list(root.glob("processed/held*.h5"))
    (root / "hold").unlink()
    monkeypatch.setattr(packing, "CHUNK_BYTES", 1)
    HeldDataset.read_count = 0
    data = HeldDataset(root)
    assert HeldDataset.read_count == 7, "what was written is not read again"
    assert contents(data.path) == whole


def test_a_process_that_dies_is_said(root, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK_SECONDS", -1)  # the first chunk holds one case
    with pytest.raises(OSError, match=r"a packing process died .out of memory.*fewer workers"):
        packing.pack(
            root / "dead.h5",
            8,
            die,
            {"fingerprint": "f" * 20},
            workers=2,
            on_faults=print,
            log=False,
        )


def die(i):
    if i > 0:
        os._exit(9)


def test_a_split_without_cases_is_packed(root):
    np.save(root / "held.npy", np.zeros(0))
    assert len(HeldDataset(root)) == 0
    assert torch.equal(HeldDataset(root).store.ptr, torch.tensor([0]))
