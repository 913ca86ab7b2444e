"""Mixers whose state is a plain sum, and Transolver's skeleton, against the reference's numbers."""

import re

import pytest
import torch
from golden import check, in_flare, load, renamed

from flare_geo.nn import Flare, Transolver
from flare_geo.nn.mixers.physicsnemo_flare import PhysicsNeMoFlare


def split_heads_first(state, heads):
    """The fused qkv of linear attention is cut into heads first, then into q, k and v."""
    return split(state, lambda t: t.unflatten(0, (heads, 3, -1)).unbind(1))


def split(state, cut=lambda t: t.chunk(3)):
    found = {}
    for key, value in state.items():
        if ".qkv_proj." not in key:
            found[key] = value
            continue
        for own, part in zip("qkv", cut(value)):
            rows = part.reshape(-1, *value.shape[1:])
            found[key.replace("qkv_proj", f"lin_{own}")] = rows
    return found


def test_linear():
    golden = load("linear_elu")
    heads = golden.config["num_heads"]
    check(golden, in_flare(golden, "linear", convert=lambda s: split_heads_first(s, heads)))


def test_performer():
    golden = load("performer")
    features = golden.buffers["blocks.0.att.proj_matrix"].shape[1]

    def convert(state):
        return {k.replace("proj_matrix", "omega"): v for k, v in split(state).items()}

    check(golden, in_flare(golden, "performer", convert=convert, num_features=features))


def projections(state):
    """q_proj, k_projs.0 and whatever RENAMES made of them, as mlps.q, mlps.k0."""
    found = {}
    for key, value in state.items():
        key = re.sub(r"\.conv\.([qkv]\d?)_(?:proj|mlp)\.", r".conv.mlps.\1.", key)
        key = re.sub(r"\.conv\.([kv])_projs\.(\d+)\.", r".conv.mlps.\1\2.", key)
        found[key] = value
    return found


def gates(state):
    """Four vectors as one matrix."""
    found = projections(state)
    for block in {k.split(".conv.")[0] for k in found if ".conv." in k}:
        rows = [found.pop(f"{block}.conv.g{i}") for i in (1, 2, 3, 4)]
        found[f"{block}.conv.gates"] = torch.stack(rows)
    return found


def count(golden, pattern):
    return sum(bool(re.fullmatch(pattern, key)) for key in golden.params)


def test_multilinear():
    golden = load("multilinear")
    states = count(golden, r"blocks\.0\.att\.k_projs\.\d+\.fc\.weight")
    options = {"ffn_act": "gelu_tanh", "convert": projections, "num_states": states}
    check(golden, in_flare(golden, "multilinear", **options))


def test_triple_with_lengths_and_depth():
    golden = load("triple1")
    depth = count(golden, r"blocks\.0\.att\.q1_proj\.fcs\.\d+\.weight")
    options = {"convert": projections, "num_layers": depth, "normalized": True}
    check(golden, in_flare(golden, "triple", **options))


@pytest.mark.parametrize("name", ["triple", "quad", "strassen"])
def test_higher_order(name):
    golden = load(name)
    convert = gates if name == "strassen" else projections
    check(golden, in_flare(golden, name, ffn_act="gelu_tanh", convert=convert))


TRANSOLVER = [
    (r"^preprocess\.(linear_pre\.0|layers\.0)\.", "embed.layers.0."),
    (r"^preprocess\.(linear_post|layers\.2)\.", "embed.lin_out."),
    (r"\.ln_mlp1\.0\.", ".ln_2."),  # PhysicsNeMo keeps each norm beside its MLP
    (r"\.ln_mlp1\.1\.layers\.0\.", ".mlp.layers.0."),
    (r"\.ln_mlp1\.1\.layers\.2\.", ".mlp.lin_out."),
    (r"\.mlp\.linear_pre\.0\.", ".mlp.layers.0."),
    (r"\.mlp\.linear_post\.", ".mlp.lin_out."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"^blocks\.\d+\.(ln_3|ln_mlp2\.0)\.", "norm."),
    (r"^blocks\.\d+\.(mlp2|ln_mlp2\.1)\.", "head."),
    (r"\.Attn\.", ".conv."),
    (r"\.proj_temperature\.", ".lin_temperature."),
    (r"\.in_project_(fx|slice)\.", r".lin_\1."),
    (r"\.to_([qkv])\.", r".lin_\1."),
    (r"\.to_out\.0\.", ".lin_out."),
    (r"\.conv\.bias$", ".conv.temperature"),
]


def transolver(golden, mixer, rules, **options):
    config = golden.config
    model = Transolver(
        sum(golden.arrays[k].shape[-1] for k in ("x", "embedding") if k in golden.arrays),
        config["out_dim"],
        config["n_hidden"],
        config["n_layers"],
        config["n_head"],
        mlp_ratio=config["mlp_ratio"],
        mixer=mixer,
        **options,
    )
    state = renamed(golden.params, rules)
    for key in [k for k in state if k.startswith("embedding.")]:
        del state[key]  # stored by Transolver++, never used
    for key, value in state.items():
        if key.endswith(".temperature"):
            state[key] = value.view(-1, 1)  # [1, H, 1, 1]
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("name", ["transolver", "transolver_plus"])
def test_transolver(name):
    golden = load(name)
    rules = [*TRANSOLVER, (r"\.in_project_x\.", ".lin_x.")]
    slices = {"num_slices": golden.config["slice_num"]}
    check(golden, transolver(golden, name, rules, mixer_args=slices))


def test_transolver_on_a_grid():
    golden = load("transolver_conv2d")
    config = golden.config
    rules = [*TRANSOLVER, (r"\.in_project_x\.", ".lin_x."), (r"\.conv\.", ".conv.slices.")]
    options = {"grid": [config["H"], config["W"]], "num_slices": config["slice_num"]}
    model = transolver(golden, "transolver_conv2d", rules, mixer_args=options)
    check(golden, model, ways=("batch", "alone"))


def test_physicsnemo_layer():
    golden = load("physicsnemo_flare_layer")
    config = golden.config
    layer = PhysicsNeMoFlare(
        config["dim"],
        config["heads"],
        num_latents=config["n_global_queries"],
        head_channels=config["dim_head"],
    )
    layer.load_state_dict(golden.params)
    check(golden, layer, own_name=str)


def test_physicsnemo_model():
    golden = load("physicsnemo_flare_model")
    model = transolver(
        golden,
        "physicsnemo_flare",
        TRANSOLVER,
        placeholder=False,
        mixer_args={"num_latents": golden.config["slice_num"]},
    )

    def own_name(key):
        return key.replace(".Attn.", ".conv.")

    check(golden, model, inputs=("embedding", "x"), own_name=own_name)


def test_sizes_of_the_comparison():
    """In thousands of parameters, as flare.md 2.5 has them."""
    sizes = {
        714: Transolver(2, 1),
        591: Transolver(2, 1, mixer="transolver_plus"),
        662: Flare(2, 1, 80, 8, 5, mixer="softmax", ffn_layers=0, ffn_channels=320, ffn_act="gelu"),
    }
    for thousands, model in sizes.items():
        assert round(sum(p.numel() for p in model.parameters()) / 1000) == thousands
