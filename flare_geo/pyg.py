"""What is used of PyTorch Geometric: the one place that imports it.

When it is imported it scripts some classes of its own, which torch 2.14 and newer warn of as
deprecated; nobody who uses this package can do anything about that.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    from torch_geometric.data import Batch, Data, Dataset
    from torch_geometric.datasets import AirfRANS
    from torch_geometric.transforms import BaseTransform, Compose
    from torch_geometric.utils import scatter

__all__ = ["AirfRANS", "BaseTransform", "Batch", "Compose", "Data", "Dataset", "scatter"]
