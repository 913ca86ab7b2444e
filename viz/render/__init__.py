"""Meshes to pixels: what is seen of a mesh, the camera, the colours, and the two renderers."""
