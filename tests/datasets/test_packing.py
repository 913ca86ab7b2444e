"""Packing in blocks: cut anywhere, in any number of processes, the same file comes out."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from slow import SlowDataset

from flare_geo.datasets import PackedStore, packing

HERE = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path):
    np.save(tmp_path / "slow.npy", np.arange(12.0))
    return tmp_path


def blocks(root):
    return sorted(p.name for p in root.glob("processed/.slow_*.blocks/*.h5"))


def contents(path):
    store = PackedStore(path)
    return store.names, store.sha256, store.ptr.tolist(), store.find_damage()


@pytest.fixture
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "slow.npy", np.arange(12.0))
    return contents(SlowDataset(folder).path)


def test_goes_on_where_it_was_cut(root, whole, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_BYTES", 1)  # every case a block
    monkeypatch.setattr(SlowDataset, "cut_at", 7)
    with pytest.raises(KeyboardInterrupt):
        SlowDataset(root)
    assert blocks(root) == [f"{i:06d}.h5" for i in range(7)]
    monkeypatch.setattr(SlowDataset, "cut_at", None)
    SlowDataset.read_count = 0
    data = SlowDataset(root)
    assert SlowDataset.read_count == 5
    assert contents(data.path) == whole
    assert blocks(root) == []
    assert not list(root.glob("processed/.*.blocks"))


def test_blocks_of_other_data_are_not_used(root, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_BYTES", 1)
    monkeypatch.setattr(SlowDataset, "cut_at", 7)
    with pytest.raises(KeyboardInterrupt):
        SlowDataset(root)
    monkeypatch.setattr(SlowDataset, "cut_at", None)
    np.save(root / "slow.npy", np.arange(12.0) + 100)
    assert [c.y[0].item() for c in SlowDataset(root)] == list(np.arange(12.0) + 100)
    assert blocks(root) == []


@pytest.mark.slow
def test_processes_that_are_killed(root, whole):
    script = root / "pack.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(HERE)!r})
            from flare_geo.datasets import packing
            from slow import SlowDataset
            if __name__ == "__main__":
                packing.BLOCK_BYTES = 1
                SlowDataset({str(root)!r}, pause=0.5, workers=2, log=False)
            """
        )
    )
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, script], start_new_session=True)
    while len(blocks(root)) < 4 and time.monotonic() - started < 120:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {p: p.stat().st_mtime_ns for p in root.glob("processed/.slow_*.blocks/0*.h5")}
    assert 4 <= len(kept) < 12
    assert not list(root.glob("processed/slow*.h5"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    SlowDataset.read_count = 0
    data = SlowDataset(root, pause=0.5)
    assert SlowDataset.read_count == 0
    assert contents(data.path) == whole


def test_a_process_that_dies_is_said(root, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_SECONDS", -1)  # the first block holds one case
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


def test_no_case_at_all(root):
    np.save(root / "slow.npy", np.zeros(0))
    assert len(SlowDataset(root)) == 0
    assert torch.equal(SlowDataset(root).store.ptr, torch.tensor([0]))
