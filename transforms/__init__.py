"""Transforms of `Data` that PyG lacks."""
