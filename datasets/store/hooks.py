"""Recognises a function that was applied before packing."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from flare_geo.transforms.base import Transform


def identify(hook: Callable[..., Any] | None) -> tuple[str, bool]:
    """A text that changes when the hook does, and whether it holds in another process."""
    if hook is None:
        return "None", True
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(hook))
    try:
        code = inspect.getsource(hook if inspect.isroutine(hook) else type(hook))
        state = BytesIO()
        _StatePickler(state).dump(hook)
    except Exception:  # there is no source, or pickling raises anything
        return text, False
    return f"{text} {hashlib.sha256(code.encode() + state.getvalue()).hexdigest()}", True


class _StatePickler(pickle.Pickler):
    """For comparing, never for loading. Torch pickles a tensor by address, this by value.

    Of a transform only what it keeps counts, not how it was written.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Transform):
            reduced: Any = obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
            make, arguments, state, *_ = reduced
            kept = {k: v for k, v in state.items() if k != "config"}
            return make, arguments, kept or None
        if not isinstance(obj, Tensor):
            return NotImplemented
        values = obj.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return bytes, (values, str(obj.dtype), tuple(obj.shape))
