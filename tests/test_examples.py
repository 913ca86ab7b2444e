"""The examples in the docstrings run and give what they say."""

import doctest
import importlib

import pytest

from flare_geo.nn import MIXERS

ELSEWHERE = {"flare", "flare_plus_plus_pure"}  # in a module of another name
MODULES = [
    "flare_geo.ops.flare",
    "flare_geo.ops.segment",
    "flare_geo.ops.spectrum",
    "flare_geo.nn.mlp",
    "flare_geo.nn.flare_conv",
    "flare_geo.nn.block",
    "flare_geo.nn.flare",
    "flare_geo.nn.surrogate.scaler",
    "flare_geo.nn.sequence",
    "flare_geo.nn.surrogate.surrogate",
    "flare_geo.nn.explain",
    "flare_geo.nn.anchor",
    "flare_geo.nn.gnot",
    "flare_geo.nn.lno",
    "flare_geo.nn.perceiver_io",
    "flare_geo.nn.transolver",
    "flare_geo.nn.upt",
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
