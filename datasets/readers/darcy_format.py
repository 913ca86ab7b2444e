"""The files of the Darcy set."""


def file_name(resolution: int, number: int) -> str:
    """Official name of the training (1) or test (2) file."""
    return f"piececonst_r{resolution}_N1024_smooth{number}.mat"
