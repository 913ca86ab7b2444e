"""Variants of the kernels of triple attention."""

from contextlib import contextmanager

import torch
import triton.language as tl

from flare_geo.ops.triton import triple, triple_kernels

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@contextmanager
def tf32(allowed):
    """The torch setting by which the launchers choose blocks for float32."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if allowed else "ieee"
    yield
    torch.backends.cuda.matmul.fp32_precision = before


def signature(kernel, constants, dtype):
    """Types of the arguments that are not constants, by their names."""
    special = {
        "p_ptr": "*i64",
        "p_state": "*fp32",
        "p_part": "*fp32",
        "p_g": "*fp32",
    }
    types = {}
    for name in kernel.arg_names:
        if name not in constants:
            types[name] = special.get(name, f"*{dtype}" if name.startswith("p_") else "i32")
    return types


def triple_variants():
    for dtype, width, precision in [
        ("fp16", 4, "tf32"),
        ("fp16", 8, "tf32"),
        ("fp16", 16, "tf32"),
        ("bf16", 16, "tf32"),
        ("fp32", 16, "tf32"),
        ("fp32", 16, "ieee"),
        ("fp16", 32, "tf32"),
        ("bf16", 32, "tf32"),
        ("fp32", 32, "ieee"),
    ]:
        operand = tl.bfloat16 if dtype == "bf16" else tl.float32
        base = {"D": width, "PRECISION": precision, "OPERAND": operand}
        name = f"{dtype} {precision} D={width}"
        with tf32(precision == "tf32"):
            state, contract = triple.blocks(width, DTYPES[dtype])
        kernel, constants = triple_kernels.triple_state_fwd_kernel, {**base, **state}
        yield kernel, signature(kernel, constants, dtype), constants, 4, 2, name
        kernel = triple_kernels.triple_contract_kernel
        for kind, mean, outer, middle in [
            ("output", False, False, True),
            ("output gradient", False, True, False),
            ("state gradient", True, True, True),
        ]:
            constants = {**base, **contract, "MEAN": mean, "OUTER": outer, "MIDDLE": middle}
            yield kernel, signature(kernel, constants, dtype), constants, 4, 2, f"{name} {kind}"
    kernel, constants = triple_kernels.triple_merge_fwd_kernel, {"BLOCK": 256, "MEAN": True}
    yield kernel, signature(kernel, constants, "fp32"), constants, 4, 2, ""


VARIANTS = list(triple_variants())
