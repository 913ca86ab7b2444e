"""In chunks a model gives the answer that it gives on the whole cloud."""

import shutil

import pytest
import torch
from closeness import close
from torch_geometric.data import Batch, Data

from flare_geo.nn import MIXERS, Flare, PointModel, SumMixer, Surrogate
from flare_geo.nn.mixer import layout_of
from flare_geo.nn.surrogate import Field
from flare_geo.nn.surrogate.activations import FileActivations, TensorActivations
from flare_geo.nn.surrogate.scaler import Scaler
from flare_geo.nn.surrogate.streaming import answer, chunks_of, stream
from flare_geo.ops import make_layout, merge_sums

PTR = [0, 0, 1, 40, 40, 97, 100, 100]
N = PTR[-1]
LARGEST = 57  # points of a cloud
CHUNKS = [1, 2, 3, 7, 16, 33, 39, 40, 57, 99, 100, 1000]


def make(dtype, num_latents=9, **options):
    torch.manual_seed(0)
    model = Flare(3, 2, 16, 3, 2, num_latents, init="default", **options).to(dtype).eval()
    return model, torch.rand(N, 3, dtype=dtype), torch.tensor(PTR)


def in_chunks(model, x, ptr, chunk_size, **options):
    y = x.new_full((len(x), 2), torch.nan)

    def write(at, chunk):
        assert y[at].isnan().all(), "written twice"
        y[at] = chunk

    stream(model, lambda at: x[at], write, ptr, chunk_size=chunk_size, **options)
    return y


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
WAYS = [
    (backend, dtype)
    for backend in ("auto", "reference", "sdpa")
    for dtype in (torch.float32, torch.float64)
]


@pytest.mark.parametrize(
    ("backend", "dtype"), [*WAYS, pytest.param("cpp", torch.float32, marks=needs_compiler)]
)
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_chunks_change_nothing_but_rounding(chunk_size, backend, dtype):
    model, x, ptr = make(dtype, backend=backend)
    with torch.no_grad():
        whole = model(x, ptr)
    close(in_chunks(model, x, ptr, chunk_size), whole, terms=LARGEST, roundings=16)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_chunks_change_nothing_but_rounding_for_triton(chunk_size):
    """As above; under Triton's interpreter where there is no GPU, so one block of one head."""
    pytest.importorskip("triton")
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Flare(3, 2, 8, 1, 1, 5, init="default", backend="triton").eval().to(device)
    x, ptr = torch.rand(N, 3, device=device), torch.tensor(PTR, device=device)
    with torch.no_grad():
        whole = model(x, ptr)
    close(in_chunks(model, x, ptr, chunk_size), whole, terms=LARGEST)


@pytest.mark.parametrize(
    "options", [{"qk_norm": True}, {"norm": "rms"}, {"kv_layers": -1}, {"num_frequencies": 2}]
)
def test_chunks_of_other_blocks(options):
    model, x, ptr = make(torch.float64, **options)
    with torch.no_grad():
        close(in_chunks(model, x, ptr, 11), model(x, ptr), terms=LARGEST, roundings=16)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_where_activations_lie_changes_nothing(place, tmp_path):
    model, x, ptr = make(torch.float32)
    used = []

    def activations(points, like):
        assert points == N
        found = FileActivations(like, tmp_path) if place == "file" else None
        used.append(found or TensorActivations(points, like, torch.device("cpu")))
        return used[0]

    y = in_chunks(model, x, ptr, 13, activations=activations)
    assert len(used) == 1
    assert torch.equal(y, in_chunks(model, x, ptr, 13))
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_a_file_that_is_cut_short_is_said(tmp_path):
    kept = FileActivations(torch.zeros(2, 4), tmp_path)
    kept.write(slice(0, 2), torch.ones(2, 4))
    assert torch.equal(kept.read(slice(0, 2)), torch.ones(2, 4))
    with pytest.raises(OSError, match=f"in {tmp_path} is damaged at point 1: nothing was written"):
        kept.read(slice(1, 3))
    kept.close()


def test_a_changed_byte_is_said(tmp_path):
    kept = FileActivations(torch.zeros(2, 4), tmp_path)
    kept.write(slice(0, 2), torch.ones(2, 4))
    kept.file.seek(5)
    kept.file.write(b"x")
    with pytest.raises(OSError, match="damaged at point 0"):
        kept.read(slice(0, 2))
    kept.close()


def test_encode_once_decode_anywhere():
    """States of a mesh answer at its points as the whole pass does, and at others."""
    model, x, ptr = make(torch.float64)
    states = stream(model, lambda at: x[at], None, ptr, chunk_size=17)
    assert [[[*t.shape] for t in state] for state in states[0]] == [[[7, 2, 9, 8], [7, 2, 9]]]
    with torch.no_grad():
        whole = model(x, ptr)
    near = {"terms": LARGEST, "roundings": 16}
    close(answer(model, x, states, ptr), whole, **near)
    queries = [x[40:57], torch.rand(5, 3, dtype=x.dtype)]  # of the fifth cloud; and new ones
    at = torch.tensor([0, 0, 0, 0, 0, 22, 22, 22])
    y = answer(model, torch.cat(queries), states, at)
    close(y[:17], whole[40:57], **near)
    close(y[17:], answer(model, queries[1], states, (at - 17).clamp(min=0)), **near)
    with pytest.raises(ValueError, match="ptr must name the 7 clouds encoded, got 1"):
        answer(model, queries[0], states)


class TwoSums(SumMixer):
    """x - (mean of the cloud) scaled by the root mean square of that difference."""

    merges = (merge_sums, merge_sums)

    def __init__(self, channels, heads=8):
        super().__init__()
        self.in_channels = channels

    def encode(self, x, ptr=None, states=()):
        layout = layout_of(x, self.in_channels, ptr)
        if states:
            x = self.centred(x, states, layout) ** 2
        total = x.new_zeros(layout.num_clouds, x.shape[1]).index_add(0, layout.batch, x)
        return total, layout.ptr.diff().to(x)

    def decode(self, x, states, ptr=None):
        layout = layout_of(x, self.in_channels, ptr)
        y = self.centred(x, states, layout)
        return y * (states[1][0] / states[1][1][:, None]).rsqrt()[layout.batch]

    def centred(self, x, states, layout):
        return x - (states[0][0] / states[0][1][:, None])[layout.batch]


@pytest.mark.parametrize("chunk_size", [3, 41, 1000])
def test_a_mixer_with_two_sums(chunk_size, monkeypatch):
    monkeypatch.setitem(MIXERS, "two", TwoSums)
    model, x, ptr = make(torch.float64, mixer="two", num_latents=64)
    with torch.no_grad():
        whole = model(x[1:], ptr.clamp(min=1) - 1)
    shares = []
    y = in_chunks(model, x[1:], ptr.clamp(min=1) - 1, chunk_size, progress=shares.append)
    close(y, whole, terms=LARGEST, roundings=16)
    assert len(shares) == 7 * -(-(N - 1) // chunk_size)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_an_error_in_another_thread_comes_up(tmp_path):
    model, x, ptr = make(torch.float32)

    def read(at):
        if at.start == 33:
            raise OSError("the disk is gone")
        return x[at]

    with pytest.raises(OSError, match="the disk is gone"):
        stream(model, read, lambda at, y: None, ptr, chunk_size=11)


def test_chunks_know_their_clouds():
    layout = make_layout(torch.tensor(PTR), N, torch.device("cpu"))
    found = list(chunks_of(layout, 45))
    assert [c.points for c in found] == [slice(0, 45), slice(45, 90), slice(90, 100)]
    for chunk in found:
        assert chunk.layout.num_points == chunk.points.stop - chunk.points.start
        for cloud, size in zip(
            range(chunk.clouds.start, chunk.clouds.stop), chunk.layout.sizes, strict=True
        ):
            inside = range(
                max(PTR[cloud], chunk.points.start), min(PTR[cloud + 1], chunk.points.stop)
            )
            assert size == len(inside)
    assert not list(chunks_of(make_layout(None, 0, torch.device("cpu")), 5))


def surrogate_of(model):
    return Surrogate(
        model,
        [Field("pos", name, "m") for name in "xyz"],
        [Field("y", "p", "Pa"), Field("y", "q", "Pa")],
        Scaler(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.3, 0.3, 0.3])),
        Scaler(torch.tensor([10.0, -3.0]), torch.tensor([2.0, 5.0])),
    )


def test_a_prediction_in_chunks_is_that_of_the_whole():
    surrogate = surrogate_of(make(torch.float32)[0])
    batch = Batch.from_data_list([Data(pos=torch.rand(n, 3)) for n in (40, 1, 59)])
    shares = []
    whole = surrogate.predict(batch).pred
    pred = surrogate.predict(batch, 17, progress=shares.append).pred
    near = {"terms": 59, "roundings": 16}
    close(pred, whole, **near)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) == 4 * 6
    one = Data(pos=batch.pos[:40])
    close(surrogate.predict(one, chunk_size=9).pred, whole[:40], **near)


def test_encode_and_answer_in_physical_units():
    surrogate = surrogate_of(make(torch.float32)[0])
    batch = Batch.from_data_list([Data(pos=torch.rand(n, 3)) for n in (40, 1, 59)])
    whole = surrogate.predict(batch).pred
    for chunk_size in (None, 17):
        states = surrogate.encode(batch, chunk_size)
        near = {"terms": 59, "roundings": 16}
        close(surrogate.answer(batch, states).pred, whole, **near)
        new = Batch.from_data_list(
            [Data(pos=batch.pos[35:40]), Data(pos=torch.rand(2, 3)), batch[2]]
        )
        close(surrogate.answer(new, states).pred[:5], whole[35:40], **near)
        close(surrogate.answer(new, states).pred[7:], whole[41:], **near)
    with pytest.raises(ValueError, match="ptr must name the 3 clouds encoded, got 1"):
        surrogate.answer(Data(pos=torch.rand(2, 3)), states)


class Other(PointModel):
    def forward(self, x, ptr=None, batch=None):
        return x[:, :2]


def test_one_line_says_what_is_wrong():
    case = Data(pos=torch.rand(5, 3))
    surrogate = surrogate_of(make(torch.float32)[0])
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"chunk_size must be at least 1, got {wrong}"):
            surrogate.predict(case, wrong)
    with pytest.raises(ValueError, match="only through reductions, as Flare, got Other"):
        surrogate_of(Other(3, 2)).predict(case, 2)
