"""Downloads that are complete or absent, and the extraction of archives."""
