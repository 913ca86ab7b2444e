import pytest

pytest.importorskip("pyvista", reason="the viz extra is not installed")
