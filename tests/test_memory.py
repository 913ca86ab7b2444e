"""Free memory: of this machine, and within the limits of a container."""

import sys

import pytest
import torch

from flare_geo.memory import free_bytes
from flare_geo.nn.surrogate import activations
from flare_geo.nn.surrogate.activations import FileActivations, choose_activations

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def container(tmp_path):
    """A machine with 64 GiB free, where the process may have 2 GiB and has 0.5."""
    group = tmp_path / "sys/fs/cgroup/slurm/job_7"
    files = {
        tmp_path / "proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {64 * GIB // 1024} kB\n",
        tmp_path / "proc/self/cgroup": "0::/slurm/job_7/step\n",
        group / "memory.max": f"{2 * GIB}\n",
        group / "memory.stat": f"anon {GIB // 2}\nfile {3 * GIB}\n",
        group.parent / "memory.max": "max\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_of_this_machine():
    free = free_bytes(CPU)
    if sys.platform.startswith("linux"):
        assert 2**20 < free < 2**50
    assert free_bytes(torch.device("mps")) is None


def test_a_container_has_less_than_the_machine(container):
    assert free_bytes(CPU, container) == 1.5 * GIB
    (container / "proc/self/cgroup").write_text("0::/\n")
    assert free_bytes(CPU, container) == 64 * GIB
    assert free_bytes(CPU, container / "nowhere") is None


def test_activations_go_to_a_file_where_the_container_has_no_room(container, monkeypatch):
    monkeypatch.setattr(activations, "free_bytes", lambda device: free_bytes(device, container))
    like = torch.zeros(1, 1024)
    place = choose_activations(300_000, like)  # 1.14 GiB
    assert isinstance(place, FileActivations)
    place.close()
