import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from closeness import close
from torch.utils.checkpoint import checkpoint

pytest.importorskip("triton")

import flare_geo.ops.triton as fused
from flare_geo.ops import (
    Layout,
    flare_attention,
    flare_encode,
    make_layout,
    merge_encodings,
    reference,
)
from flare_geo.ops.triton import launch
from flare_geo.ops.triton.attention import attention_op, decode_op, encode_op
from flare_geo.ops.triton.clouds import num_tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RAGGED = [0, 0, 1, 40, 40, 62]  # the longest cloud takes two tiles of two blocks each


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles a cloud, several blocks a tile; outputs are NaN until they are written."""
    monkeypatch.setattr(launch, "PROGRAMS_PER_SM", 10**6)
    monkeypatch.setattr(launch, "blocks", lambda *_: launch.Blocks(16, 16, 4, 1))
    empty = torch.empty

    def poisoned(*args, **kwargs):
        x = empty(*args, **kwargs)
        if x.is_floating_point():
            x.detach().fill_(math.nan)  # torch 2.9's checkpoint makes one that needs a gradient
        return x

    monkeypatch.setattr(torch, "empty", poisoned)


def inputs(heads, latents, width, ptr, dtype=torch.float32, per_cloud=False, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    clouds = (len(ptr) - 1,) if per_cloud else ()
    q = draw(*clouds, heads, latents, width)
    k, v = draw(ptr[-1], heads, width) * size, draw(ptr[-1], heads, width)
    layout = make_layout(torch.tensor(ptr), ptr[-1], torch.device("cpu"))
    layout = Layout.of(layout.ptr.to(DEVICE), layout.sizes)
    return *(x.to(DEVICE, dtype).requires_grad_() for x in (q, k, v)), layout


def compare(call, tensors, roundings=8):
    """Values and every gradient of `call(module, tensors)` against the definition in float64."""
    dtype, terms = tensors[0].dtype, max(len(x) for x in tensors)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    outputs, wanted = call(fused, *tensors), call(reference, *exact)
    finite = [torch.where(w.isfinite(), w, 0.0) for w in wanted]
    weights = [torch.randn_like(w) * w.isfinite() for w in wanted]
    loss = sum(
        (torch.where(w.isfinite(), o, 0.0) * g).sum() for o, w, g in zip(outputs, wanted, weights)
    )
    grads = torch.autograd.grad(loss, tensors)
    exact_loss = sum((f * g).sum() for f, g in zip(finite, weights))
    expected = torch.autograd.grad(exact_loss, exact)
    close(outputs, wanted, terms=terms, roundings=roundings, dtype=dtype)
    assert [grad.dtype for grad in grads] == [x.dtype for x in tensors]
    names = ("dq", "dk", "dv")
    grads, expected = (dict(zip(names, g, strict=True)) for g in (grads, expected))
    close(grads, expected, terms=terms, roundings=2 * roundings, dtype=dtype)


def attend(layout, scale, module, *tensors):
    return (module.attention(*tensors, layout, scale),)


def encode(layout, scale, module, *tensors):
    return module.encode(*tensors, layout, scale)


def decode(layout, scale, module, *tensors):
    return (module.decode(*tensors, layout, scale),)


@pytest.mark.parametrize(
    ("heads", "latents", "width", "per_cloud", "scale", "dtype"),
    [
        (2, 7, 4, False, 0.7, torch.float32),
        (1, 33, 5, True, -0.4, torch.float32),
        (1, 7, 8, True, 0.5, torch.float16),
        (2, 16, 16, False, -0.3, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("call", ["attention", "encode", "decode"])
def test_values_and_gradients(call, heads, latents, width, per_cloud, scale, dtype):
    q, k, v, layout = inputs(heads, latents, width, RAGGED, dtype, per_cloud)
    if call == "decode":
        v = torch.randn(layout.num_clouds, *q.shape[-3:]).to(q).requires_grad_()
    function = {"attention": attend, "encode": encode, "decode": decode}[call]
    compare(partial(function, layout, scale), (q, k, v))


@pytest.mark.parametrize(
    ("latents", "width", "dtype"),
    [(33, 16, torch.float16), (7, 64, torch.float16), (5, 128, torch.bfloat16)],
)
def test_more_latents_and_wider_heads(latents, width, dtype):
    q, k, v, layout = inputs(1, latents, width, [0, 3, 40], dtype)
    compare(partial(attend, layout, width**-0.5), (q, k, v))


def test_blocks_as_launched(monkeypatch):
    """The sizes a GPU would take: one block of latents, points inside."""
    monkeypatch.undo()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        q, k, v, layout = inputs(1, 40, 8, [0, 3, 150], dtype)
        compare(partial(attend, layout, 0.5), (q, k, v))


@pytest.mark.parametrize("latents", [8, 20])
def test_large_scores(latents):
    """Scores of several hundred: one weight takes all, and P is not within reach of A."""
    q, k, v, layout = inputs(1, latents, 8, [0, 1, 40], size=60.0)
    # A score of 300 is rounded by 300 eps, and so is the weight that is its exponential.
    compare(partial(attend, layout, 1.0), (q, k, v), roundings=300)
    compare(partial(encode, layout, 1.0), (q, k, v), roundings=300)


def test_scale_zero_is_the_mean():
    q, k, v, layout = inputs(1, 5, 4, [0, 37])
    compare(partial(attend, layout, 0.0), (q, k, v))


def test_small_weights_in_float16(monkeypatch):
    """4,000 weights of 2e-7, the whole of z, behind one that takes nearly everything."""
    monkeypatch.setattr(launch, "blocks", lambda *_: launch.Blocks(16, 64, 4, 1))
    monkeypatch.setattr(launch, "PROGRAMS_PER_SM", 1)
    q, k, v, layout = inputs(1, 8, 8, [0, 4000], torch.float16)
    with torch.no_grad():
        q.fill_(1.0)
        k.zero_()
        k[0] = 15.5 / 8
        v.abs_()
        v[0] = 0.0
    z, _ = fused.encode(q, k, v, layout, 1.0)
    expected, _ = reference.encode(q.double(), k.double(), v.double(), layout, 1.0)
    close(z, expected)


def test_large_latent_gradients_in_float16(monkeypatch):
    """The gradient of z is a sum over points, beyond the range of float16; that of v is not."""
    monkeypatch.setattr(launch, "blocks", lambda *_: launch.Blocks(16, 128, 4, 1))
    q, k, v, layout = inputs(1, 8, 8, [0, 1000], torch.float16, size=0.1)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    dy = torch.full_like(v, 1000.0)
    grads = torch.autograd.grad(fused.attention(q, k, v, layout, 1.0), (q, k, v), dy)
    wanted = torch.autograd.grad(reference.attention(*exact, layout, 1.0), exact, dy.double())
    close(grads[2], wanted[2])
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("ptr", [[0], [0, 0], [0, 0, 0, 1], [0, 16, 32, 48]])
def test_clouds_without_points(ptr):
    q, k, v, layout = inputs(2, 7, 4, ptr)
    y = fused.attention(q, k, v, layout, 1.0)
    assert y.shape == v.shape
    close(y, reference.attention(q, k, v, layout, 1.0), terms=16)
    grads = torch.autograd.grad(y.sum(), (q, k, v))
    assert all(g.isfinite().all() and g.shape == x.shape for g, x in zip(grads, (q, k, v)))
    z, lse = fused.encode(q, k, v, layout, 1.0)
    close((z, lse), reference.encode(q, k, v, layout, 1.0), terms=16)


def test_views_are_read_in_place():
    q, _, _, layout = inputs(2, 7, 8, [0, 3, 40])
    x = torch.randn(40, 3 * 16, device=DEVICE, requires_grad=True)
    k, _, v = x.unflatten(-1, (3, 2, 8)).unbind(1)
    compare(partial(attend, layout, 1.0), (q, k, v))
    k, v = (torch.randn(2, 8, 40, device=DEVICE).permute(2, 0, 1) for _ in range(2))
    compare(partial(attend, layout, 1.0), (q, k.requires_grad_(), v.requires_grad_()))


def test_parts_merge_to_the_whole_and_pass_gradients():
    q, k, v, layout = inputs(2, 7, 8, [0, 50])
    cut = [make_layout(None, n, k.device) for n in (15, 35)]

    def merged(module, q, k, v):
        first = module.encode(q, k[:15], v[:15], cut[0], 1.0)
        return merge_encodings(first, module.encode(q, k[15:], v[15:], cut[1], 1.0))

    compare(merged, (q, k, v))
    close(merged(fused, q, k, v), fused.encode(q, k, v, layout, 1.0), terms=50)


def test_a_launch_repeats_its_bits():
    q, k, v, layout = inputs(1, 20, 8, [0, 3, 40])
    runs = []
    for _ in range(2):
        y = fused.attention(q, k, v, layout, 1.0)
        runs.append((y, *torch.autograd.grad(y.square().sum(), (q, k, v))))
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("sizes", [[5], [0, 0, 7, 16], [16, 16], [1, 0, 31, 2, 0], [0]])
def test_tiles_cover_every_point_once(sizes, size):
    """The rule of `find_tile`, in Python."""
    ptr = [sum(sizes[:b]) for b in range(len(sizes) + 1)]
    first = [p // size + b for b, p in enumerate(ptr)]
    points = []
    for tile in range(num_tiles(ptr[-1], len(sizes), size)):
        b = max(b for b in range(len(sizes)) if first[b] <= tile)
        begin = ptr[b] + (tile - first[b]) * size
        points += range(begin, min(begin + size, ptr[b + 1]))
    assert points == list(range(ptr[-1]))


def test_launch_covers_the_shapes():
    device = torch.device("cpu")
    assert launch.points_of_program(RAGGED[-1], 1, 16, device) == 32
    for points in (0, 1, 1000, 10**9):
        size = launch.points_of_program(points, 8, 64, device)
        assert size % 64 == 0
        assert size >= 128
    assert launch.block_width(5) == 16
    assert launch.block_width(33) == 64


def test_operators_are_registered_properly():
    q, k, v, layout = inputs(1, 5, 4, [0, 3, 20])
    z = torch.randn(2, 1, 5, 4, device=DEVICE, requires_grad=True)
    torch.library.opcheck(attention_op, (q, k, v, layout.ptr, 1.0))
    torch.library.opcheck(encode_op, (q, k, v, layout.ptr, 1.0))
    torch.library.opcheck(decode_op, (q, k, z, layout.ptr, 1.0))


def test_compiles_once_for_all_sizes():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v, ptr: fused.attention(q, k * 2, v, make_layout_of(ptr, k), 1.0).sin(),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    for n in (50, 77):
        q, k, v, layout = inputs(1, 5, 4, [0, 9, n])
        with torch.compiler.set_stance("default" if n == 50 else "fail_on_recompile"):
            y = compiled(q, k, v, layout.ptr)
            grads = torch.autograd.grad(y.sum(), (q, k, v))
        expected = reference.attention(q, k * 2, v, layout, 1.0).sin()
        close(y, expected, terms=n)
        close(grads, torch.autograd.grad(expected.sum(), (q, k, v)), terms=n, roundings=32)


def make_layout_of(ptr, k):
    """Sizes stay on the device: the kernels read `ptr` alone."""
    return Layout(ptr, k.shape[0])


def test_export():
    class Attention(torch.nn.Module):
        def forward(self, q, k, v, ptr):
            return fused.attention(q, k, v, make_layout_of(ptr, k), 1.0)

    q, k, v, layout = inputs(1, 5, 4, [0, 9, 30])
    n = torch.export.Dim("n", min=2)
    arguments = (q.detach(), k.detach(), v.detach(), layout.ptr)
    exported = torch.export.export(Attention(), arguments, dynamic_shapes=({}, {0: n}, {0: n}, {}))
    q, k, v, layout = inputs(1, 5, 4, [0, 20, 45], seed=1)
    y = exported.module()(q, k, v, layout.ptr)
    close(y, fused.attention(q, k, v, layout, 1.0), terms=45)


def test_checkpointing_and_autocast_change_nothing():
    q, k, v, layout = inputs(1, 7, 4, [0, 5, 30])
    y = fused.attention(q, k, v, layout, 1.0)
    grads = torch.autograd.grad(y.sum(), (q, k, v))
    again = checkpoint(lambda *t: fused.attention(*t, layout, 1.0), q, k, v, use_reentrant=False)
    repeated = torch.autograd.grad(again.sum(), (q, k, v))
    assert torch.equal(y, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, repeated))
    # An operator of its own keeps the dtype of its inputs: FlareConv has cast them before.
    with torch.autocast(DEVICE, torch.bfloat16):
        assert torch.equal(fused.attention(q, k, v, layout, 1.0), y)


def test_what_the_kernels_cannot_do_is_said():
    q, k, v, layout = inputs(1, 5, 4, [0, 9], torch.float64)
    with pytest.raises(TypeError, match="float64"):
        flare_attention(q, k, v, layout, backend="triton")
    q, k, v, layout = inputs(1, 5, 256, [0, 9])
    with pytest.raises(ValueError, match="256"):
        flare_encode(q, k, v, layout, backend="triton")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("pass", "ieee"),
        ("matmul.fp32_precision = 'tf32'", "tf32"),
        ("matmul.fp32_precision = 'ieee'", "ieee"),
        ("matmul.allow_tf32 = True", "tf32"),
        ("torch.set_float32_matmul_precision('high')", "tf32"),
    ],
)
def test_float32_is_multiplied_as_torch_was_told(program, expected):
    """In a process of its own: torch refuses to go back from the newer setting to the older."""
    lines = [
        "import torch",
        "from torch.backends.cuda import matmul",
        program,
        "from flare_geo.ops.triton.precision import input_precision",
        "print(input_precision(torch.float32), input_precision(torch.float16))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == [expected, "tf32"], done.stderr
