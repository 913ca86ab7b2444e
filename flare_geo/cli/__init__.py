"""The command `flare-geo`: one file, one verb, one typed function."""
