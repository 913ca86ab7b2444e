import importlib.util
import os
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():  # before triton is imported, which torch_geometric does
    os.environ["TRITON_INTERPRET"] = "1"

from torch_geometric.data import Data


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A test that wants to leave this machine fails at once."""
    connect = socket.socket.connect

    def local_only(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    import triton.language as tl
    import triton.runtime.interpreter as interpreter

    patch_tensor, patch_language = interpreter._patch_lang_tensor, interpreter._patch_lang
    language = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})

    def _patch_tensor(tensor, *scope):
        """numpy 2.4 takes no one-element arrays for an index: triton 3.6 needs `range(loaded)`."""
        patch_tensor(tensor, *scope)
        set_attr = scope[0].set_attr if scope else setattr  # triton 3.5 knows no scopes
        set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def _call(function, *args, **kwargs):
        """Without patching the language, 5 ms: the launch has done that, for all functions."""
        return function.rewrite()(*args, **kwargs)

    interpreter._patch_lang_tensor = _patch_tensor
    interpreter._patch_lang = lambda _: patch_language(language)
    interpreter.InterpretedFunction.__call__ = _call


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def square() -> Data:
    """The unit square cut into 2 x 20 x 20 triangles."""
    n = 21
    x, y = torch.meshgrid(torch.linspace(0, 1, n), torch.linspace(0, 1, n), indexing="xy")
    corner = (torch.arange(n - 1) + n * torch.arange(n - 1)[:, None]).flatten()
    lower = torch.stack([corner, corner + 1, corner + n + 1])
    upper = torch.stack([corner, corner + n + 1, corner + n])
    return Data(
        pos=torch.stack([x.flatten(), y.flatten()], dim=1),
        face=torch.cat([lower, upper], dim=1),
    )


@pytest.fixture
def bar() -> Data:
    """A bar of 8 x 2 x 2 unit hexahedra along x."""
    x, y, z = np.meshgrid(np.arange(9), np.arange(3), np.arange(3), indexing="ij")
    number = np.arange(81).reshape(9, 3, 3)
    a = number[:-1, :-1, :-1].ravel()
    cells = a[:, None] + np.array([0, 9, 12, 3, 1, 10, 13, 4])
    pos = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    return Data(pos=torch.tensor(pos, dtype=torch.float32), cells=torch.tensor(cells))
