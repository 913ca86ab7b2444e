"""Random numbers that belong to a case, not to a process."""

from __future__ import annotations

import hashlib

import torch


def case_generator(seed: int | None, name: object = "") -> torch.Generator | None:
    """A generator that depends on the seed and the name of a case, and on nothing else.

    The same case then draws the same numbers on every access, in any DataLoader worker and whatever
    the order of the cases; another processor or version of torch may round some differently.

    Args:
        seed: None gives None: torch's global generator, other numbers on every access.
        name: Name of the case; nameless cases share one stream.

    Example:
        >>> first, again = (case_generator(0, "run_7") for _ in range(2))
        >>> torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=again))
        True
    """
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
