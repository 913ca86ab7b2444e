"""Variants of the attention kernels to compile without a GPU; block sizes are those of `launch`."""

from itertools import product

import torch
import triton.language as tl

from flare_geo.ops.triton import launch
from flare_geo.ops.triton.backward import latents_bwd_kernel
from flare_geo.ops.triton.decode import decode_fwd_kernel
from flare_geo.ops.triton.encode import encode_fwd_kernel
from flare_geo.ops.triton.merge import merge_kernel
from flare_geo.ops.triton.points_backward import points_bwd_kernel
from flare_geo.ops.triton.precision import input_precision

TYPES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
HEADS = 8


def variant(kernel, name, dtype, width, latents, tf32=True, num_clouds="i32", **extra):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    block = launch.blocks(name, width, latents, dtype)
    constants = {
        "H": HEADS,
        "M": latents,
        "D": width,
        "K_N": HEADS * width,
        "K_H": width,
        "V_N": HEADS * width,
        "V_H": width,
        "Q_PER_CLOUD": False,
        "NEGATIVE": False,
        "HAS_ENCODE": True,
        "HAS_DECODE": True,
        "WIDE": tl.bfloat16 if dtype == torch.bfloat16 else tl.float32,
        "BLOCK_M": block.m,
        "BLOCK_N": block.n,
        "BLOCK_D": launch.block_width(width),
        "PRECISION": input_precision(dtype),
    } | extra
    constants = {n: constants[n] for n in kernel.arg_names if n.isupper()}
    wide = {"p_parts", "p_part_lse", "p_dz", "p_l", "p_r", "p_e"}
    scalars = {"p_ptr": "*i64", "num_clouds": "i32", "size": "i32", "factor": "fp32"}
    scalars |= {"scale": "fp32"} | dict.fromkeys(wide, "*fp32")
    signature = {n: scalars.get(n, TYPES[dtype]) for n in kernel.arg_names if n not in constants}
    kind = "" if dtype != torch.float32 else " tf32" if tf32 else " ieee"
    label = f"{str(dtype).removeprefix('torch.')}{kind} D={width} M={latents} {tuple(block)}"
    return kernel, signature, constants, block.num_warps, block.num_stages, label


KERNELS = {
    "encode_fwd": encode_fwd_kernel,
    "decode_fwd": decode_fwd_kernel,
    "latents_bwd": latents_bwd_kernel,
    "points_bwd": points_bwd_kernel,
}
SHAPES = [(8, 64), (8, 128), (16, 128), (16, 512), (32, 128), (32, 512), (64, 128), (128, 128)]
INPUTS = [
    (torch.float16, True),
    (torch.bfloat16, True),
    (torch.float32, True),
    (torch.float32, False),
]

VARIANTS = [
    variant(kernel, name, dtype, width, latents, tf32)
    for (dtype, tf32), (width, latents), (name, kernel) in product(INPUTS, SHAPES, KERNELS.items())
]
VARIANTS += [
    (
        merge_kernel,
        dict.fromkeys(("p_parts", "p_part_lse", "p_z", "p_out", "p_lse", "p_inner"), "*fp32")
        | {"p_ptr": "*i64", "size": "i32", "factor": "fp32"},
        {"H": HEADS, "M": 128, "D": width, "WEIGHTED": weighted, "HAS_Z": not weighted}
        | {"BLOCK_T": 256 // width, "BLOCK_M": 4, "BLOCK_D": width},
        4,
        2,
        f"D={width} weighted={weighted}",
    )
    for width, weighted in product((16, 128), (True, False))
]
