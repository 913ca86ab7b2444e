"""Meshes that turn in a browser, each page one file."""
