"""The benchmarks run at tiny sizes, refuse what is wrong, and measure what they say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flare_geo.nn import Flare, FlareConv
from flare_geo.ops import flare_attention
from flare_geo.ops.dispatch import TABLE

BENCH = Path(__file__).parents[1] / "scripts" / "bench"
NAMES = [path.stem for path in BENCH.glob("*.py") if path.stem != "data"]


@pytest.fixture
def bench(monkeypatch):
    """Import a file of scripts/bench, as it imports its neighbours."""
    monkeypatch.syspath_prepend(BENCH)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in NAMES:
            del sys.modules[name]


@pytest.fixture
def run(bench, tmp_path):
    """Run a benchmark with options; returns its exit status and its JSON."""

    def call(name, *options):
        out = tmp_path / f"{name}.json"
        words = ["--out", out, "--device", "cpu", "--seconds", 0.001, *options]
        status = bench(name).main([str(word) for word in words])
        return status, json.loads(out.read_text())

    return call


SMALL = ("--points", 40, 80, "--latents", 8, "--check-points", 50, "--widths", 4, "--heads", 2)


@pytest.mark.parametrize("kind", [(), ("--bare", "--backends", "auto", "sdpa")])
def test_mixer(run, kind):
    status, result = run("mixer", *SMALL, *kind)
    assert status == 0
    assert {"torch", "triton", "git_revision", "device", "tf32", "config"} <= result.keys()
    others = (
        {"flare auto", "flare sdpa"} if kind else {"flare auto", "physics", "softmax", "linear"}
    )
    timed = [row for row in result["rows"] if "seconds" in row]
    assert {row["way"] for row in timed} == {"two sdpa", *others}
    assert {(row["N"], row["pass"]) for row in timed} == {
        (n, kind) for n in (40, 80) for kind in ("forward", "forward+backward")
    }
    assert all(0 < r["fastest"] <= r["seconds"] <= r["slowest"] for r in timed)
    checks = [row for row in result["rows"] if "check" in row]
    assert len(checks) == (3 if kind else 2)
    assert all(0 < max(row["errors"].values()) < 1e-4 for row in checks)


def test_mixer_leaves_out_what_is_wrong_or_too_long(run, bench, monkeypatch):
    def attention(q, k, v, ptr=None, *, scale, backend):
        if backend == "absent":
            raise ValueError("backend must be one of those that there are")
        wrong = {"wrong": 1.01, "nan": float("nan")}.get(backend, 1.0)
        return flare_attention(q, k, v, ptr, scale=wrong * scale, backend="reference")

    monkeypatch.setattr(bench("mixer_problem"), "flare_attention", attention)
    options = ("--bare", "--backends", "wrong", "nan", "absent", "--longest", 1e-9)
    status, result = run("mixer", *SMALL, *options)
    assert status == 1
    failed = {row["check"]: row["failed"] for row in result["rows"] if "failed" in row}
    assert failed.keys() == {"flare wrong", "flare nan", "flare absent"}
    assert "against float64 is more than" in failed["flare wrong"]
    assert "error inf against float64" in failed["flare nan"]
    assert "backend must be one of" in failed["flare absent"]
    assert {row["way"] for row in result["rows"] if "seconds" in row} == {"two sdpa"}
    assert {row["N"] for row in result["rows"] if "skipped" in row} == {80}


def test_model(run):
    status, result = run("model", "--configs", "tiny")
    has_checkpoint = "checkpoint_blocks" in Flare(2, 1, 16, 1, 2, 8).config
    assert status == (0 if has_checkpoint else 1)
    timed = [row for row in result["rows"] if "seconds" in row]
    wanted = {("plain", "inference"), ("flare", "inference")}
    wanted |= {("plain", "training step"), ("flare", "training step")}
    if has_checkpoint:
        wanted.add(("flare checkpointed", "training step"))
    assert {(row["way"], row["pass"]) for row in timed} == wanted
    errors = [row["errors"] for row in result["rows"] if row.get("check") in ("plain", "flare")]
    assert len(errors) == 2
    assert all(0 < max(e.values()) < 1e-4 for e in errors)
    assert any("training step  flare" in words for words in result["headlines"])


def test_ragged(run):
    status, result = run("ragged", "--sizes", "tiny")
    assert status == 0
    timed = [row for row in result["rows"] if "seconds" in row]
    assert {row["way"] for row in timed} == {"padded", "packed"}
    (packed,) = [row for row in result["rows"] if row.get("check") == "packed"]
    assert packed["errors"]["output vs the first"] < 1e-5
    assert packed["errors"]["gradient vs the first"] < 1e-5


TINY = ("--clouds", "40", "3,0,30", "--pairs", "5,8", "--heads", 2)


def test_backends(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # an interpreter is not to be timed
    readme = tmp_path / "README.md"
    blocks = [f"<!-- backends: {kind} -->\nnone yet\n<!-- end -->\n" for kind in ("cpu", "cuda")]
    readme.write_text("before\n" + "between\n".join(blocks))
    status, result = run("backends", *TINY, "--write", "--readme", readme)
    assert status == 0
    timed = [row for row in result["rows"] if "seconds" in row]
    ways = {row["way"] for row in timed}
    assert {"reference", "sdpa"} <= ways <= {"reference", "sdpa", "cpp"}
    clouds = ("1 x 40", "3 of 0 to 30")
    assert {(row["clouds"], row["pass"]) for row in timed if row["way"] == "sdpa"} == {
        (name, kind) for name in clouds for kind in ("forward", "forward+backward")
    }
    checks = {row["check"]: row for row in result["rows"] if "check" in row}
    assert checks.keys() == TABLE["flare"].keys()
    assert "float16 and bfloat16" in checks["varlen"]["skipped"]
    assert "triton" in checks["triton"]["skipped"]
    assert all(0 < max(checks[way]["errors"].values()) < 1e-4 for way in ways)
    assert any("1 x 40  M=5 D=8  forward: " in words for words in result["headlines"])
    text = readme.read_text()
    assert text.endswith("between\n" + blocks[1])
    assert [text.count(f"| {name} | 5 | 8 | ") for name in clouds] == [1, 1]
    assert text.count("**") == 2 * 2 * 2  # a winner a pass and case
    assert "none yet" not in text.removesuffix(blocks[1])
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="backends: cpu"):
        run("backends", *TINY, "--write", "--readme", readme)
    assert readme.read_text() == "no markers"


def test_backends_that_are_wrong_are_not_timed(run, bench, monkeypatch):
    def attention(q, k, v, ptr=None, *, scale, backend):
        wrong = 1.01 if (backend, q.dtype) == ("reference", torch.float32) else 1.0
        return flare_attention(q, k, v, ptr, scale=wrong * scale, backend=backend)

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(bench("backends"), "flare_attention", attention)
    status, result = run("backends", *TINY)
    assert status == 1
    failed = {row["check"]: row["failed"] for row in result["rows"] if "failed" in row}
    assert failed.keys() == {"reference"}
    assert "against float64 is more than" in failed["reference"]
    timed = {row["way"] for row in result["rows"] if "seconds" in row}
    assert "sdpa" in timed
    assert "reference" not in timed


def test_tables_of_backends_are_written_into_the_readme_that_there_is(bench):
    text = bench("backends").README.read_text()
    for kind in ("cpu", "cuda"):
        assert text.count(f"<!-- backends: {kind} -->\n") == 1
    assert text.count("<!-- end -->") == 2


def test_figures_come_from_the_json_alone(run, bench, tmp_path):
    assert bench("figures").main([str(tmp_path)]) == 1  # nothing there
    run("mixer", *SMALL)
    run("model", "--configs", "tiny")
    path = tmp_path / "mixer.json"
    result = json.loads(path.read_text())
    for row in result["rows"]:  # as from a GPU
        row["peak_bytes"] = 1000 * row["N"]
    path.write_text(json.dumps(result))
    assert bench("figures").main([str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.glob("*.png")} == {"mixer_d4.png", "model.png"}


def test_sizes_of_ragged_batches(bench):
    sizes = bench("ragged").sizes_of
    assert sizes("skewed", 0)[0] == 300
    assert sizes("skewed", 0)[-1] == 12_000
    assert sizes("lpbf", 0) != sizes("lpbf", 1)
    assert all(736 <= n <= 47_542 for n in sizes("lpbf", 0))


def test_alternate_takes_turns_and_survives_failures(bench):
    timing = bench("timing")
    calls = []

    def no_memory():
        raise torch.OutOfMemoryError("no")

    def later():
        calls.append("later")
        if calls.count("later") == 4:
            raise RuntimeError("second line\nis left out")

    ways = {"a": lambda: calls.append("a"), "none": no_memory, "later": later}
    rows = timing.alternate(ways, torch.device("cpu"), rounds=(5, 5))
    assert calls[:8] == ["a", "a", "later", "later", "a", "later", "a", "later"]
    assert rows["a"]["rounds"] == 5
    assert rows["none"] == {"failed": "out of memory"}
    assert rows["later"] == {"failed": "RuntimeError: second line"}


def test_verdict(bench):
    verdict = bench("timing").verdict
    assert verdict({"output": 9e-5}, torch.float32, 0.0) == {}
    assert verdict({"output": 2.5e-4}, torch.float32, 1e-4) == {}  # as good as the plain way
    for error, usual in ((2e-4, 0.0), (5e-4, 1e-2), (float("inf"), float("inf"))):
        assert "against float64" in verdict({"output": error}, torch.float32, usual)["failed"]


def test_numbers(bench):
    timing = bench("timing")
    assert timing.slope([10, 100_000, 1_000_000], [7, 1.0, 20.0]) == pytest.approx(1.30103)
    assert timing.slope([10, 100_000], [7, 1.0]) is None
    one = torch.tensor([3.0, 4.0])
    assert timing.relative_error([one * 1.1], [one]) == pytest.approx(0.1)
    assert timing.relative_error([one / 0], [one]) == float("inf")
    with pytest.raises(ValueError, match="longer"):
        timing.relative_error([one], [one, one])


def test_plain_model_is_the_model(bench):
    plain = bench("plain")
    model = Flare(3, 2, 16, 2, 4, 5, init="default").double()
    dense = plain.PlainFlare(3, 2, 16, 2, 4, 5).double()
    dense.load_state_dict(model.state_dict())
    sizes = [7, 12]
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    mask = torch.arange(12) < torch.tensor(sizes)[:, None]
    y = dense(x, mask)[mask]
    expected = model(x[mask], torch.tensor([0, 7, 19]))
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    wanted = dict(model.named_parameters())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad)


def test_plain_layer_is_the_layer(bench):
    layer = FlareConv(16, heads=4, num_latents=5, init="default")
    dense = bench("plain").PlainConv(16, 4, 5)
    dense.load_state_dict(layer.state_dict())
    x = torch.randn(9, 16)
    torch.testing.assert_close(dense(x[None])[0], layer(x))


def test_other_mixers_are_their_formulas(bench):
    plain = bench("plain")
    q, k, v = torch.randn(3, 1, 2, 9, 4, dtype=torch.float64).unbind()

    def feature(t):
        return torch.where(t > 0, t + 1, t.exp())

    weights = feature(q) @ feature(k).mT
    expected = weights / weights.sum(dim=-1, keepdim=True) @ v
    torch.testing.assert_close(plain.linear_attention(q, k, v), expected, rtol=1e-5, atol=1e-6)

    layer = plain.PhysicsAttention(8, 2, 3).double()
    x, f = q, k
    y = plain.physics_attention(x, f, layer.to_slices, layer.temperature, layer.to_qkv)
    for h in range(2):
        scores = x[0, h] @ layer.to_slices.weight.T + layer.to_slices.bias
        w = (scores / 0.5).softmax(dim=-1)  # [N, G]
        s = torch.stack(
            [(w[:, g, None] * f[0, h]).sum(0) / (w[:, g].sum() + 1e-5) for g in range(3)]
        )
        sq, sk, sv = (s @ part.T for part in layer.to_qkv.weight.chunk(3))
        o = (sq @ sk.T / 2).softmax(dim=-1) @ sv
        torch.testing.assert_close(y[0, h], w @ o)


def test_gpu_script_says_how_to_use_it():
    script = BENCH / "gpu.sh"
    assert subprocess.run(["bash", "-n", script], capture_output=True).stderr == b""
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: bash scripts/bench/gpu.sh OUT_FOLDER")


def test_shares(run):
    status, result = run("shares", "--configs", "tiny", "--steps", 1)
    assert status == 0
    (row,) = result["rows"]
    assert row["matrix products"] > 0
    assert sum(v for v in row.values() if isinstance(v, float)) == pytest.approx(1)


def test_stream(bench, tmp_path):
    out = tmp_path / "stream.json"
    options = ["--points", "300", "3000", "--chunk_size", "500", "--layers", "1", "--no-compile"]
    assert bench("stream").main(["--out", str(out), *options]) == 0
    result = json.loads(out.read_text())
    assert [row["points"] for row in result["rows"]] == [300, 3000]
    # Bytes, of a process that has loaded torch: builds of it differ by a factor of several.
    assert all(5e7 < row["peak_resident_bytes"] < 2e10 for row in result["rows"])
    assert all(row["core_seconds"] > 0 for row in result["rows"])
    assert bench("figures").main([str(tmp_path)]) == 0
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_listops(run, tmp_path):
    data = ("--root", tmp_path / "listops", "--train", 40, "--val", 10, "--batch", 8)
    sizes = ("--size", "tiny", "--draws", 1, "--steps", 4, "--every", 3)
    status, result = run("listops", *data, *sizes)
    assert status == 0
    assert result["data"] == "generated: ListOps of 50 to 200 tokens"
    checks = [row for row in result["rows"] if "check" in row]
    assert [row["check"] for row in checks] == ["padded", "packed"]
    assert all(row["errors"]["gradient"] < 1e-4 for row in checks)
    timed = [row for row in result["rows"] if "way" in row]
    assert {row["way"] for row in timed} == {"padded", "packed"}
    assert all(row["N"] < row["padded_N"] and row["seconds"] > 0 for row in timed)
    learnt = [row for row in result["rows"] if row.get("task") == "learn"]
    assert [row["step"] for row in learnt] == [3, 4]
    assert all(0 <= row["accuracy"] <= 1 and row["loss"] > 0 for row in learnt)
