"""Kernels go through the compiler, which refuses what the interpreter takes; no GPU is needed."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.version import Version

SCRIPT = Path(__file__).parent / "kernels" / "compile.py"
CASES = {
    "attention": ["float16 D=16 M=128", "float32 tf32 D=8 M=128"],
    "residual_mlp": ["G=2 C=64 fp16"],
    "triple": ["fp16 tf32 D=16"],
}
SPILLED = {"attention": 0, "residual_mlp": 384, "triple": 0}  # bytes per thread
# Triton 3.9 keeps h_j of a tile in registers on sm_80, where 3.6 puts them into shared memory: 600
# bytes per thread go out to L1 and come back, once per tile.
SPILLED_MLP_SM80 = 640
SHARED = {
    "attention": 99,
    "residual_mlp": 163,
    "triple": 99,
}  # KiB per block: sm_89 has 99, sm_80 163
KERNELS = {
    "attention": {"encode_fwd", "decode_fwd", "latents_bwd", "points_bwd"},
    "residual_mlp": {"mlp_fwd", "mlp_bwd"},
    "triple": {"triple_state_fwd", "triple_contract"},
}


def most_spilled(name, cc):
    """Bytes per thread."""
    newer = Version(version("triton")) >= Version("3.9")
    return SPILLED_MLP_SM80 if newer and name == "residual_mlp" and cc == 80 else SPILLED[name]


@pytest.mark.parametrize("name", list(CASES))
def test_kernels_fit_the_gpu(name):
    spec = find_spec("triton")
    if spec is None:
        pytest.skip("triton is not installed")
    tools = Path(spec.submodule_search_locations[0]) / "backends" / "nvidia" / "bin"
    for tool in ("ptxas", "cuobjdump"):
        if not (tools / tool).is_file():
            pytest.skip(f"triton came without {tool}")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, SCRIPT, name, "--cc", "80", "90", "--only", *CASES[name]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for cc in (80, 90):
        kernels = {row["kernel"].removesuffix("_kernel") for row in rows if row["cc"] == cc}
        assert kernels == KERNELS[name]
    for row in rows:
        assert row["spilled"] <= most_spilled(name, row["cc"]), row
        assert row["shared"] <= SHARED[name] * 1024, row
