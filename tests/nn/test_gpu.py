import pytest
import torch
from torch_geometric.data import Batch, Data

from flare_geo.nn import Flare, Surrogate
from flare_geo.nn.surrogate import Field


@pytest.mark.gpu
def test_predict_leaves_the_callers_data_where_they_are():
    inputs = [Field("pos", "x", "m"), Field("pos", "y", "m")]
    surrogate = Surrogate(Flare(2, 1, 16, 1, 2, 4), inputs, [Field("y", "p", "Pa")])
    batch = Batch.from_data_list([Data(pos=torch.rand(n, 2)) for n in (5, 1, 30)])
    expected = surrogate.predict(batch).pred
    result = surrogate.cuda().predict(batch)
    assert batch.pos.device.type == batch.ptr.device.type == "cpu"
    assert result.pred.device.type == "cpu"
    torch.testing.assert_close(result.pred, expected, rtol=1e-3, atol=1e-3)
