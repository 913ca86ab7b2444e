"""The published numbers of the reference, and every spelling of its checkpoints."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.nn import Flare

HERE = Path(__file__).parents[1] / "data" / "golden"
GOLDEN = Path(os.environ.get("FLARE_GEO_GOLDEN") or HERE)
NAMES = ["flare", "flare_qknorm_rms", "flare_linear_kv"]


def load(name, folder=HERE):
    with np.load(folder / f"{name}.npz") as arrays:
        golden = {key: arrays[key] for key in arrays.files}
    config = json.loads(str(golden["config"]))
    options = {
        "heads": config["num_heads"],
        "scale": config.get("attn_scale", 1.0),
        "act": "silu" if config.get("act") == "silu" else "gelu_tanh",
    }
    state = {k[6:]: torch.tensor(v) for k, v in golden.items() if k.startswith("param/")}
    return golden, options, state


def relative(a, b):
    a, b = (torch.as_tensor(t).detach().double() for t in (a, b))
    return float((a - b).abs().max() / b.abs().max())


def run(model, golden, backend=None):
    x = torch.tensor(golden["x"], requires_grad=True)
    clouds, points, _ = x.shape
    for block in model.blocks:
        block.conv.backend = backend or "auto"
    y = model(x.flatten(0, 1), ptr=torch.arange(clouds + 1) * points).unflatten(0, (clouds, points))
    y.square().sum().backward()
    return y, x.grad


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_reference_numbers(name, backend):
    golden, options, state = load(name, GOLDEN)
    model = Flare.from_official(state, **options)
    y, grad_x = run(model, golden, backend)
    assert relative(y, golden["y"]) < 1e-5
    assert relative(grad_x, golden["grad_x"]) < 1e-4
    for i, block in enumerate(model.blocks):
        expected = golden[f"grad/blocks.{i}.att.latent_q"]  # (C, M): the same memory as [H, M, D]
        assert relative(block.conv.q.grad.reshape(expected.shape), expected) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_files_and_parameter_names(name, tmp_path):
    golden, options, state = load(name)
    torch.save(state, tmp_path / "model.pt")
    y, _ = run(Flare.from_official(tmp_path / "model.pt", **options), golden)
    again, _ = run(Flare.from_official(HERE / f"{name}.npz", **options), golden)
    assert torch.equal(y, again)


def compiled(state):
    """As the trainer saves it: compiled, inside a dictionary."""
    prefixed = {f"_orig_mod.{k}": v for k, v in state.items()}
    return {"model_state": prefixed, "ema_shadow": {}, "step": 3, "epoch": 1}


def autumn_2025(state):
    """ln1, ln2 and out_proj.ln, out_proj.mlp."""

    def rename(key):
        for old, new in (
            ("norm1", "ln1"), ("norm2", "ln2"), ("out_proj.0", "out_proj.ln"),
            ("out_proj.1", "out_proj.mlp"),
        ):  # fmt: skip
            key = key.replace(old, new)
        return key

    return {rename(k): v for k, v in state.items()}


@pytest.mark.parametrize("dialect", [dict, compiled, autumn_2025])
@pytest.mark.parametrize("name", NAMES)
def test_dialects_give_the_same_model(name, dialect):
    golden, options, state = load(name, GOLDEN)
    y, _ = run(Flare.from_official(state, **options), golden)
    spoken, _ = run(Flare.from_official(dialect(state), **options), golden)
    assert torch.equal(y, spoken)


def test_first_week_has_a_narrow_embedding():
    """In the first public week the embedding's hidden width was that of the input."""
    golden, options, state = load("flare")
    width, inputs = state["in_proj.fc2.weight"].shape[0], state["in_proj.fc1.weight"].shape[1]
    generator = torch.Generator().manual_seed(1)
    narrow = dict(state)
    for key in ("fc1", "fcs.0", "fcs.1"):
        narrow[f"in_proj.{key}.weight"] = torch.randn(inputs, inputs, generator=generator)
        narrow[f"in_proj.{key}.bias"] = torch.randn(inputs, generator=generator)
    narrow["in_proj.fc2.weight"] = torch.randn(width, inputs, generator=generator)
    model = Flare.from_official(narrow, **options)
    assert model.config["embed_channels"] == inputs
    h = torch.tensor(golden["x"]).flatten(0, 1)
    gelu = torch.nn.functional.gelu
    first = h @ narrow["in_proj.fc1.weight"].T + narrow["in_proj.fc1.bias"]
    expected = gelu(first, approximate="tanh")
    for key in ("fcs.0", "fcs.1"):
        step = expected @ narrow[f"in_proj.{key}.weight"].T + narrow[f"in_proj.{key}.bias"]
        expected = expected + gelu(step, approximate="tanh")
    expected = expected @ narrow["in_proj.fc2.weight"].T + narrow["in_proj.fc2.bias"]
    assert relative(model.embed(h), expected) < 1e-5


def test_averaged_weights_of_a_trainer_checkpoint():
    _, options, state = load("flare")
    shadow = {f"_orig_mod.{k}": 2 * v for k, v in state.items()}
    model = Flare.from_official({**compiled(state), "ema_shadow": shadow}, ema=True, **options)
    raw = Flare.from_official(compiled(state), **options)
    for a, b in zip(model.parameters(), raw.parameters()):
        assert torch.equal(a, 2 * b)


def test_shared_latents_stay_shared():
    _, options, state = load("flare")
    heads = options["heads"]
    channels = state["blocks.0.norm1.weight"].numel()
    shared = dict(state)
    for i in range(2):
        shared[f"blocks.{i}.att.latent_q"] = torch.randn(channels // heads, 12)
    conv = Flare.from_official(shared, **options).blocks[0].conv
    memory = shared["blocks.0.att.latent_q"].reshape(12, channels // heads)
    assert torch.equal(conv.q, memory[None])
    queries, _ = conv.routing(torch.rand(5, channels))
    assert torch.equal(queries, memory.expand(heads, -1, -1))


def test_what_cannot_be_read_is_said(tmp_path):
    _, options, state = load("flare")
    with pytest.raises(ValueError, match="give heads="):
        Flare.from_official(state)
    with pytest.raises(ValueError, match=r"not a FLARE\.py state dict"):
        Flare.from_official({"weight": torch.zeros(3)})
    extra = {"memory.0.weight": torch.zeros(32)}
    with pytest.raises(ValueError, match=r"memory.*not one that Flare can hold"):
        Flare.from_official({**state, **extra}, **options)
    extra = {"blocks.0.att.latent_blocks.0.norm1.weight": torch.zeros(32)}
    with pytest.raises(ValueError, match=r"does not fit: Missing key.*latent_blocks") as caught:
        Flare.from_official({**state, **extra}, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        Flare.from_official(tmp_path / "nothing.pt", **options)


def test_parameter_count_of_the_paper():
    """592,641 parameters in the paper's elasticity model; 691,009 for Darcy and DrivAerML."""
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(Flare(2, 1)) == 592_641
    assert count(Flare(3, 1, num_latents=256)) == 691_009
