"""The examples in the docstrings run and give what they say."""

import doctest
import importlib

import pytest

from flare_geo.nn import MIXERS

ELSEWHERE = {
    "flare",
    "flare_causal",
    "softmax",
    "flare_plus_plus_pure",
}  # modules of other names
MODULES = [
    "flare_geo.ops.causal_flare",
    "flare_geo.ops.flare",
    "flare_geo.ops.residual_mlp",
    "flare_geo.ops.triple",
    "flare_geo.ops.segment",
    "flare_geo.ops.spectrum",
    "flare_geo.nn.mlp",
    "flare_geo.nn.attention",
    "flare_geo.nn.flare.conv",
    "flare_geo.nn.flare.causal",
    "flare_geo.nn.flare.block",
    "flare_geo.nn.flare.model",
    "flare_geo.nn.surrogate.scaler",
    "flare_geo.nn.surrogate.surrogate",
    "flare_geo.nn.explain",
    *(
        f"flare_geo.nn.models.{name}"
        for name in ("anchor", "gnot", "lno", "perceiver_io", "sequence", "transolver", "upt")
    ),
    "flare_geo.ops.convolution",
    "flare_geo.ops.pairwise",
    "flare_geo.ops.third_order",
    *(f"flare_geo.nn.mixers.{name}" for name in MIXERS if name not in ELSEWHERE),
    "flare_geo.metrics.classification",
    "flare_geo.metrics.relative",
    "flare_geo.files",
    *(
        f"flare_geo.transforms.{name}"
        for name in (
            "assemble_features",
            "case_generator",
            "channels",
            "config",
            "curvature",
            "fourier_features",
            "normals",
            "rotate",
            "sample_surface",
            "signed_distance",
            "space_filling_order",
            "subsample",
            "undo",
            "unit_box",
        )
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, monkeypatch, tmp_path):
    import torch

    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"torch": torch})
    assert results.attempted > 0
    assert results.failed == 0
