"""Numbers of the reference implementations: tests/data/golden, or the folder FLARE_GEO_GOLDEN.

    golden = load("transformer")
    model = in_flare(golden, "softmax")       # built from the sizes of the file
    check(golden, model)

`check` runs the model in float32 against the file and in float64 against float64_refs.npz (where
the folder has it): the clouds as one batch, each alone, and in a ragged batch with others.
"""

import copy
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from flare_geo.nn import Flare
from flare_geo.nn.flare.official import RENAMES

HERE = Path(__file__).parent / "data" / "golden"
FOLDER = Path(os.environ.get("FLARE_GEO_GOLDEN") or HERE)
# The largest error over the largest number of the array; the README beside the files says why
# the stored float32 numbers of the sharp slices of transolver_conv2d are worth less.
BOUNDS = {"y": 1e-5, "grad": 1e-4}
OTHER_BOUNDS = {"transolver_conv2d": {"y": 3e-5, "grad": 5e-4}}
DOUBLE_BOUND = 1e-9
WAYS = ("batch", "alone", "ragged")


class Golden(NamedTuple):
    """One file: `config`, parameters and buffers under the names of the reference, results."""

    name: str
    config: dict[str, Any]
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    arrays: dict[str, np.ndarray]


def load(name: str, folder: Path = FOLDER) -> Golden:
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    config = json.loads(str(arrays.pop("config"))) if "config" in arrays else {}
    taken = {
        kind: {k.removeprefix(kind): torch.tensor(arrays.pop(k)) for k in list(arrays)
               if k.startswith(kind)}
        for kind in ("param/", "buffer/")
    }  # fmt: skip
    return Golden(name, config, taken["param/"], taken["buffer/"], arrays)


def rename(name: str, rules: Sequence[tuple[Any, Any]] = RENAMES) -> str:
    """The own name of a parameter: each (pattern, replacement) of `re.sub`, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(state: dict[str, Tensor], rules: Sequence[tuple[Any, Any]] = RENAMES) -> dict:
    found = {rename(name, rules): value for name, value in state.items()}
    assert len(found) == len(state), "two parameters of one name"
    return found


def in_flare(
    golden: Golden,
    mixer: str,
    *,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state,
    ffn_act: str = "gelu",
    **mixer_args: Any,
) -> Flare:
    """The wrapper W with PN blocks (baselines.md 1.3, 1.4), with the weights of the file.

    Args:
        golden: the file.
        mixer: a name of MIXERS, with `mixer_args`.
        convert: what changes more than the names of RENAMES; gets and returns own names.
        ffn_act: "gelu" is ffnE, "gelu_tanh" is ffnT.
    """
    config, width = golden.config, golden.params["blocks.0.mlp.fc1.weight"].shape[0]
    model = Flare(
        config["in_dim"],
        config["out_dim"],
        config["channel_dim"],
        config["num_blocks"],
        config["num_heads"],
        ffn_layers=0,
        ffn_channels=width,
        ffn_act=ffn_act,
        mixer=mixer,
        mixer_args=mixer_args,
    )
    model.load_state_dict(convert(renamed(golden.params | golden.buffers)))
    return model


def check(
    golden: Golden,
    model: nn.Module,
    *,
    inputs: Sequence[str] = ("x",),
    own_name: Callable[[str], str] = rename,
    ways: Sequence[str] = WAYS,
) -> None:
    """The model, with the weights of the file loaded, gives its numbers.

    Args:
        golden: the file.
        model: called `model(x, ptr)` in evaluation mode.
        inputs: arrays whose channels, side by side, are x.
        own_name: of the parameters of which the file has gradients, from theirs; the shapes may
            differ, the memory may not.
        ways: without "ragged" where a cloud must have the number of points in the file.
    """
    model = copy.deepcopy(model).eval()
    for way in ways:
        _compare(golden, model, golden.arrays, inputs, own_name, way, torch.float32)
    if not (FOLDER / "float64_refs.npz").is_file():
        return
    with np.load(FOLDER / "float64_refs.npz") as file:
        start = f"{golden.name}/"
        expected = {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}
    assert "y" in expected
    for way in ways:
        _compare(golden, model.double(), expected, inputs, own_name, way, torch.float64)


def relative(a: Any, b: Any) -> float:
    """The largest error over the largest number."""
    a, b = (torch.as_tensor(t).detach().double() for t in (a, b))
    assert a.shape == b.shape, f"shapes differ: {list(a.shape)} and {list(b.shape)}"
    return float((a - b).abs().max() / b.abs().max())


def _compare(golden, model, expected, inputs, own_name, way, dtype):
    model.zero_grad()
    leaves = [torch.tensor(golden.arrays[k], dtype=dtype, requires_grad=True) for k in inputs]
    y = _run(model, torch.cat(leaves, dim=-1), way)
    y.square().sum().backward()
    found = {"y": y} | {f"grad_{k}": leaf.grad for k, leaf in zip(inputs, leaves)}
    own = dict(model.named_parameters())
    for key in (k for k in expected if k.startswith("grad/")):
        found[key] = own[own_name(key.removeprefix("grad/"))].grad.reshape(expected[key].shape)
    bounds = OTHER_BOUNDS.get(golden.name, BOUNDS)
    for key, value in found.items():
        if np.isnan(expected[key]).all():  # the reference could not produce it
            assert dtype == torch.float32, key
            continue
        error = relative(value, expected[key])
        bound = DOUBLE_BOUND if dtype == torch.float64 else bounds[key[:4] if key != "y" else "y"]
        assert error < bound, f"{golden.name}, {way}, {dtype}: {key} is {error:.1e} off"


def _run(model: nn.Module, x: Tensor, way: str) -> Tensor:
    """`[B, N, out]` of the dense `x [B, N, in]`."""
    clouds, points, _ = x.shape
    if way == "alone":
        return torch.stack([model(cloud, torch.tensor([0, points])) for cloud in x])
    if way == "batch":
        ptr = torch.arange(clouds + 1) * points
        return model(x.flatten(0, 1), ptr).unflatten(0, (clouds, points))
    parts = [x[0, :0]]  # after each cloud a part of it, and a cloud of one point
    for cloud in x:
        parts += [cloud, cloud[: points // 3].detach().flip(0), cloud[:1].detach()]
    sizes = [len(part) for part in parts]
    y = model(torch.cat(parts), torch.tensor([0, *sizes]).cumsum(0)).split(sizes)
    return torch.stack(y[1::3])
