"""The examples in the docstrings run and give what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "flare_geo.ops.flare",
    "flare_geo.ops.spectrum",
    "flare_geo.nn.mlp",
    "flare_geo.nn.flare_conv",
    "flare_geo.nn.block",
    "flare_geo.nn.flare",
    "flare_geo.nn.scaler",
    "flare_geo.nn.surrogate",
    "flare_geo.nn.explain",
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
