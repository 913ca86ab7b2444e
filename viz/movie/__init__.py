"""Movies of meshes, written as GIF or MP4."""
