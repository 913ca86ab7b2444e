"""Readers of files that hold cases, and writers where the files are the project's own."""
