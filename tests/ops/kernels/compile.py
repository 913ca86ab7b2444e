"""Compiles Triton kernels for a GPU that is not there: registers, spills and shared memory of each.

    python tests/ops/kernels/compile.py [attention residual_mlp ...] [--cc 80 90] [--only REGEX ...]

Each file beside this one names the variants of its kernels in `VARIANTS`. Needs triton, no GPU.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel cannot be compiled

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flare_geo.ops.triton.precision import FMA

HERE = Path(__file__).parent


class Variant(NamedTuple):
    """A kernel with the types of its arguments and the values of its constants."""

    kernel: Any
    signature: dict[str, str]  # as "*fp16", "*fp32", "*i64", "i32", "i64", "fp32"
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    name: str = ""  # what tells it from other variants of the kernel


def compile_variant(variant: Variant, cc: int) -> dict[str, Any]:
    """Registers and bytes spilled per thread, and bytes of shared memory per block."""
    names = variant.kernel.arg_names
    missing = set(names) ^ (set(variant.signature) | set(variant.constants))
    if missing:
        raise ValueError(f"{variant.kernel.__name__}: signature and arguments differ in {missing}")
    signature = {n: variant.signature.get(n, "constexpr") for n in names}
    aligned = {  # as the pointers of tensors are when a kernel is launched
        (i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")
    }
    source = ASTSource(variant.kernel, signature, variant.constants, attrs=aligned)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages, **FMA}
    compiled = triton.compile(source, target=GPUTarget("cuda", cc, 32), options=options)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "kernel": variant.kernel.__name__,
        "variant": variant.name,
        "cc": cc,
        "registers": found["REG"],
        "spilled": found["STACK"] + found["LOCAL"],
        "shared": compiled.metadata.shared,
    }


def variants_of(name: str) -> list[Variant]:
    """The list `VARIANTS` of a file beside this one."""
    spec = importlib.util.spec_from_file_location(f"kernels_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [Variant(*v) for v in module.VARIANTS]


def main() -> None:
    """Print one JSON line per variant and architecture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    others = sorted(p.stem for p in HERE.glob("*.py") if p.stem != "compile")
    parser.add_argument("names", nargs="*", default=others)
    parser.add_argument("--cc", type=int, nargs="*", default=[80, 90])
    parser.add_argument("--only", nargs="*", default=[""], help="variants whose name begins so")
    arguments = parser.parse_args()
    for name in arguments.names:
        for variant in variants_of(name):
            if not any(re.match(words, variant.name) for words in arguments.only):
                continue
            for cc in arguments.cc:
                print(json.dumps(compile_variant(variant, cc)), flush=True)


if __name__ == "__main__":
    main()
