"""Each option is spelled once, what has no effect is refused, arguments are remembered."""

import inspect
import json

import pytest
import torch
from torch import nn

import flare_geo.nn
from flare_geo.nn import (
    MIXERS,
    CausalFlareConv,
    Flare,
    FlareBlock,
    FlareConv,
    PointModel,
    SequenceClassifier,
    Surrogate,
)
from flare_geo.nn.flare.heads import FlareHeads
from flare_geo.nn.flare.model import FLARE_ONLY
from flare_geo.nn.mixers import FLARE, make_mixer
from flare_geo.nn.models import MODELS, sequence
from flare_geo.nn.surrogate import Field

OF_FLARE = {"kv_layers", "kv_channels", "qk_norm", "queries", "gate", "latents"}
IN_JSON = {"gating", "shared_latents", "num_latent_blocks", "share_k0_v0", "causal"}


def classes():
    """All classes of modules that `flare_geo.nn` and its rooms define."""
    found, todo = set(), [nn.Module]
    while todo:
        todo += (new := set(todo.pop().__subclasses__()) - found)
        found |= new
    return [cls for cls in found if cls.__module__.startswith(flare_geo.nn.__name__)]


def spelled_by(cls):
    return set(inspect.signature(cls.__init__).parameters) if "__init__" in vars(cls) else set()


def test_no_option_of_flare_is_spelled_twice():
    spelled = {cls: spelled_by(cls) for cls in classes()}
    assert len(spelled) > 40
    assert {cls for cls, names in spelled.items() if names & OF_FLARE} == {FlareHeads, Flare}
    assert spelled[FlareHeads] > OF_FLARE
    assert {cls.__name__ for cls, names in spelled.items() if names & IN_JSON} == {
        "ConditionedQueries",  # its own option
        "FlarePlusPlus",
    }
    assert not spelled[FlareBlock] & (spelled[FlareHeads] - {"self"})
    for cls in (FlareConv, CausalFlareConv):
        assert inspect.signature(cls).parameters == inspect.signature(FlareHeads).parameters


def test_the_signature_of_the_layer():
    """That of design.md, section 4, and built parts."""
    names = list(inspect.signature(FlareConv).parameters)
    assert names[:4] == ["in_channels", "out_channels", "heads", "num_latents"]
    assert names[4:10] == ["kv_layers", "scale", "qk_norm", "queries", "init", "backend"]
    assert names[10:] == ["kv_channels", "act", "norm", "gate", "latents"]


def test_all_parts_of_a_layer_go_together():
    """No two arguments exclude each other: every pair of unusual values makes a layer that runs."""
    from flare_geo.nn import ResidualMLP
    from flare_geo.nn.flare import ConditionedQueries
    from flare_geo.nn.latent_blocks import LatentBlocks

    unusual = [
        {"out_channels": 24},
        {"kv_layers": (0, 2)},
        {"kv_channels": 8},
        {"scale": 0.5},
        {"qk_norm": True},
        {"qk_norm": False},
        {"queries": "shared"},
        {"queries": "conditioned"},
        {"queries": lambda c: ConditionedQueries(16, 2, c // 2, 5, share_k0_v0=False)},
        {"init": "default"},
        {"backend": "reference"},
        {"act": "silu"},
        {"norm": "rms"},
        {"gate": lambda c: ResidualMLP(16, c)},
        {"latents": lambda c: LatentBlocks(c, 2, 1)},
    ]
    for one in unusual:
        for two in unusual:
            options = {**one, **two}
            width = options.get("out_channels", 16)
            built = {k: v(width) if callable(v) else v for k, v in options.items()}
            conv = FlareConv(16, heads=2, num_latents=5, **built)
            assert conv(torch.randn(7, 16)).isfinite().all(), options


def test_what_says_nothing_are_the_defaults():
    defaults = {k: p.default for k, p in inspect.signature(Flare).parameters.items()}
    assert {k: defaults[k] for k in FLARE_ONLY} == FLARE_ONLY
    defaults = inspect.signature(SequenceClassifier).parameters
    assert {k: defaults[k].default for k in sequence.FLARE_ONLY} == sequence.FLARE_ONLY
    assert FLARE.items() <= MIXERS.items()
    for cls in FLARE.values():
        own = set(inspect.signature(cls).parameters) | IN_JSON
        assert set(cls.options) <= own


OTHERS = [
    {"num_latents": 999},
    {"kv_layers": 9},
    {"kv_channels": 9},
    {"scale": 4.0},
    {"qk_norm": True},
    {"queries": "conditioned"},
]


@pytest.mark.parametrize("options", OTHERS, ids=lambda options: next(iter(options)))
def test_options_of_flare_beside_another_mixer_are_refused(options):
    """F8. What is equal to its default says nothing: old files hold all arguments."""
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}=[^,]*: without effect beside mixer 'softmax'"):
        Flare(3, 1, 16, 1, 2, mixer="softmax", **options)
    usual = Flare(3, 1, 16, 1, 2, mixer="softmax", **{name: FLARE_ONLY[name]})
    old = Flare.from_config(usual.config | options)
    assert old.config == usual.config
    with pytest.raises(TypeError, match=name):
        FlareBlock(16, mixer=nn.Identity(), **options)


def test_a_classifier_refuses_them_too(tmp_path):
    with pytest.raises(ValueError, match="num_latents=9: without effect beside mixer 'linear'"):
        SequenceClassifier(7, 3, 12, 16, 1, 2, 9, mixer="linear")
    model = SequenceClassifier(7, 3, 12, 16, 1, 2, mixer="linear")
    model.config["num_latents"] = 9  # as an older revision wrote
    loaded = SequenceClassifier.from_pretrained(model.save_pretrained(tmp_path))
    assert loaded.config["num_latents"] == 64


def test_every_model_remembers_how_it_was_made():
    assert {name: cls.__name__ for name, cls in MODELS.items()} == {name: name for name in MODELS}
    small = {"hidden_channels": 24, "num_layers": 1, "heads": 2}
    for cls in MODELS.values():
        model = cls(3, 1, **small)
        assert set(model.config) == set(inspect.signature(cls).parameters)
        assert model.config.items() >= {"in_channels": 3, "out_channels": 1, **small}.items()
        again = cls.from_config(json.loads(json.dumps(model.config)))
        again.load_state_dict(model.state_dict())
    assert SequenceClassifier(7, 3, 12, pair=True).config["pair"] is True


def test_a_model_of_ones_own_remembers_too(tmp_path):
    class Mine(PointModel):
        def __init__(self, in_channels, out_channels, *, width=4, more=None):
            super().__init__(in_channels, out_channels)
            self.lin = nn.Linear(in_channels, out_channels)

        def forward(self, x, ptr=None, batch=None):
            return self.lin(x)

    fields = [Field("pos", "x", "m")]
    folder = Surrogate(Mine(1, 1, width=7), fields, fields).save_pretrained(tmp_path)
    kept = json.loads((folder / "config.json").read_text())["architecture"]["arguments"]
    assert kept == {"in_channels": 1, "out_channels": 1, "width": 7, "more": None}
    Surrogate(Mine(1, 1, more=nn.Identity()), fields, fields).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not hold the arguments of its Mine: pass model="):
        Surrogate.from_pretrained(tmp_path, model=Mine)


def test_a_mixer_says_what_it_takes():
    with pytest.raises(ValueError, match=r"'flare_causal' takes num_.*gating, got 'share_k"):
        make_mixer("flare_causal", 16, 2, {"share_k0_v0": True})
    with pytest.raises(ValueError, match="'softmax' takes qkv_bias, got 'causal'"):
        make_mixer("softmax", 16, 2, {"causal": True})
