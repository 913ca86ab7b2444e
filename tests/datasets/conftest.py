"""PyG scripts some classes when it is imported, which newer torch calls deprecated."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_geometric.loader  # noqa: F401
