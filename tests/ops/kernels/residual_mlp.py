"""Variants of the residual MLP kernels: five layers, each dtype, as the launch functions ask."""

import torch

from flare_geo.ops.triton import residual_mlp_backward, residual_mlp_forward

LAYERS = 5
VARIANTS = []


def add(kernel, mlps, dtype, channels, dots, block, num_warps, num_stages):
    name = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    names = [n for n in kernel.arg_names if n.startswith("p_")]
    signature = {n: "*fp32" if n in ("p_b", "p_dw", "p_db") else f"*{name}" for n in names}
    signature |= {"N": "i32"}
    constants = {"G": mlps, "L": LAYERS, "C": channels, "BLOCK": block, "ACT": "gelu_tanh"}
    title = f"G={mlps} C={channels} {name} {dots}"
    constants["PRECISION"] = dots
    VARIANTS.append((kernel, signature, constants, num_warps, num_stages, title))


for mlps, channels in ((1, 64), (2, 64), (2, 128)):
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for dots in ("tf32", "ieee") if dtype == torch.float32 else ("tf32",):
            block, num_warps = residual_mlp_forward.plan(channels, dtype, dots)
            kernel = residual_mlp_forward.mlp_fwd_kernel
            add(kernel, mlps, dtype, channels, dots, block, num_warps, 2)
            wide, block, num_warps = residual_mlp_backward.plan(LAYERS, channels, dtype, dots)
            kernel = (
                residual_mlp_backward.mlp_bwd_wide_kernel
                if wide
                else residual_mlp_backward.mlp_bwd_kernel
            )
            add(kernel, mlps, dtype, channels, dots, block, num_warps, 1)
