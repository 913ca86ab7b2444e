"""The classifier of sequences against its formula; packed sequences do not see each other."""

import importlib
import inspect
import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from closeness import close

from flare_geo.metrics import accuracy, cross_entropy
from flare_geo.nn import Flare, SequenceClassifier, Surrogate
from flare_geo.nn.surrogate import Field

CONFIGS = sorted((Path(__file__).parents[2] / "scripts" / "configs").glob("lra_*.yaml"))
SIZES = [5, 1, 12, 3]
NEAR = {"terms": max(SIZES), "roundings": 32}  # through a model and its gradient


def make(mixer="flare", **options):
    torch.manual_seed(0)
    options = {"init": "default", "ffn_layers": 1, "head_layers": 1, **options}
    if mixer == "flare":
        options["num_latents"] = 6
    model = SequenceClassifier(7, 3, 12, 16, 2, 4, mixer=mixer, **options)
    return model.double()


def sequences(sizes=SIZES):
    torch.manual_seed(1)
    token = torch.randint(7, (sum(sizes), 1))
    pos = torch.cat([torch.arange(n) for n in sizes]).unsqueeze(1).float()
    return token, pos, torch.tensor([0, *sizes]).cumsum(0)


def alone(model, token, pos, ptr):
    starts = ptr.tolist()
    return torch.cat([model(token[a:b], pos[a:b]) for a, b in zip(starts, starts[1:])])


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_it_is_its_formula(positions):
    model = make(positions=positions)
    token, pos, _ = sequences([9])
    if positions == "learned":
        places = model.position.weight[:9]
    else:
        rows = [[p / 10_000 ** (k // 2 * 2 / 16) for k in range(16)] for p in range(9)]
        waves = [[(math.sin, math.cos)[k % 2](a) for k, a in enumerate(row)] for row in rows]
        places = torch.tensor(waves, dtype=torch.float64)
    h = torch.stack([model.token.weight[t] for t in token[:, 0]]) + places
    for block in model.blocks:
        h = h + block.conv(block.norm1(h))
        h = h + block.mlp(block.norm2(h))
    logits = model.head(model.norm(h).mean(dim=0, keepdim=True))
    angles = torch.float64 if positions == "learned" else torch.float32
    close(model(token, pos), logits, dtype=angles, **NEAR)


@pytest.mark.parametrize("mixer", ["flare", "softmax", "linear", "transolver", "triple"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_in_a_batch_as_alone(mixer, positions):
    model, (token, pos, ptr) = make(mixer, positions=positions), sequences()
    together = model(token, pos, ptr)
    assert together.shape == (4, 3)
    close(together, alone(model, token, pos, ptr), **NEAR)
    label = torch.tensor([0, 2, 1, 1])
    ways = [together, alone(model, token, pos, ptr)]
    gradients = [
        torch.autograd.grad(cross_entropy(logits, label).sum(), list(model.parameters()))
        for logits in ways
    ]
    names = [name for name, _ in model.named_parameters()]
    close(*(dict(zip(names, each, strict=True)) for each in gradients), **NEAR)


def test_order_is_told_by_positions_alone():
    model, (token, pos, _) = make(), sequences([10])
    logits = model(token, pos)
    order = torch.randperm(10)
    close(model(token[order], pos[order]), logits, **NEAR)
    assert (model(token[order], pos) - logits).abs().max() > 1e-4


def test_pairs_meet_at_the_end():
    model = make(pair=True)
    token, pos, _ = sequences([4, 3, 6, 2])
    lengths = torch.tensor([[4, 3], [6, 2]])
    logits = model(token, pos, torch.tensor([0, 7, 15]), lengths)
    means = []
    for start, end in ((0, 4), (4, 7), (7, 13), (13, 15)):
        h = model.token(token[start:end, 0]) + model.position(pos[start:end, 0].long())
        for block in model.blocks:
            h = block(h)
        means.append(model.norm(h).mean(dim=0))
    for row, a, b in ((0, 0, 1), (1, 2, 3)):
        a, b = means[a], means[b]
        true = model.head(torch.cat([a, b, a * b, a - b]))
        close(logits[row], true, **NEAR)


def test_it_learns():
    """The class of a sequence is its first token, whatever follows: the mean must be told apart."""
    torch.manual_seed(0)
    sizes = torch.randint(2, 9, (64,)).tolist()
    token, pos, ptr = sequences(sizes)
    token = token % 3
    label = token[ptr[:-1], 0]
    model = make().float()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss = cross_entropy(model(token, pos, ptr), label).mean()
        loss.backward()
        optimizer.step()
    assert accuracy(model(token, pos, ptr), label).mean() > 0.95


def wrong(**changes):
    token, pos, ptr = sequences()
    return {"token": token, "pos": pos, "ptr": ptr, **changes}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (wrong(token=torch.full((21, 1), 7)), "tokens must be 0 to 6, got 7 to 7"),
        (wrong(token=torch.zeros(21, dtype=torch.int64)), r"token must be \[N, 1\] int64"),
        (wrong(token=torch.zeros(21, 1)), r"got \[21, 1\] torch.float32"),
        (wrong(pos=torch.full((21, 1), 12.0)), "positions must be 0 to 11, got 12 to 12: give"),
        (wrong(ptr=torch.tensor([0, 5, 5, 21])), "sequence 1 of the batch has no tokens"),
        (wrong(ptr=torch.tensor([0, 20])), "ptr must end at N=21"),
        (wrong(lengths=torch.ones(4, 2)), "lengths of two documents are for pair=True"),
    ],
)
def test_wrong_input_is_one_line(inputs, words):
    with pytest.raises(ValueError, match=words) as error:
        make()(**inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (None, "for pair=True, which needs them"),
        ([[2, 3], [1, 0], [6, 6], [2, 1]], "sequence 3 of the batch has no tokens"),
        ([[2, 3], [1, 1], [6, 6], [2, 1]], "must add up to its tokens"),
        ([[2, 3]], r"lengths must be \[B=4, 2\]"),
    ],
)
def test_wrong_lengths_are_one_line(lengths, words):
    given = None if lengths is None else torch.tensor(lengths)
    with pytest.raises(ValueError, match=words):
        make(pair=True)(*sequences(), given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"positions": "rotary"}, "positions must be 'learned' or 'sinusoidal'"),
        ({"mixer": "none"}, "mixer must be one of flare, "),
        ({"mixer_args": {"depth": 3}}, "mixer 'flare' takes "),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


def test_sinusoidal_positions_know_no_longest_sequence():
    token, pos, _ = sequences([40])
    assert make(positions="sinusoidal")(token, pos).isfinite().all()


def test_it_saves_and_loads_itself(tmp_path):
    model = make("flare", pair=True, mixer_args={"kv_layers": 1, "scale": 0.5}).float()
    token, pos, _ = sequences([4, 3])
    inputs = (token, pos, None, torch.tensor([[4, 3]]))
    folder = model.save_pretrained(tmp_path / "model", {"dataset": {"name": "toy"}})
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"]["class"] == "SequenceClassifier"
    assert config["dataset"] == {"name": "toy"}
    assert "torch" in config["provenance"]
    again = SequenceClassifier.from_pretrained(folder)
    assert not again.training
    assert torch.equal(again(*inputs), model(*inputs))
    with pytest.raises(ValueError, match="holds a model of class 'SequenceClassifier'"):
        Surrogate.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        SequenceClassifier.from_pretrained(folder)


def test_checkpoints_of_others_are_refused(tmp_path):
    field = Field("pos", "x", "m")
    Surrogate(Flare(1, 1, 8, 1, 2, 2), [field], [field]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of class 'Flare', not a Sequence"):
        SequenceClassifier.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        SequenceClassifier.from_pretrained(tmp_path / "none")


def named(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_make_models(path):
    pytest.importorskip("lightning", reason="the train extra is not installed")
    from flare_geo.cli.train import train

    config = yaml.safe_load(path.read_text())
    assert config.keys() <= inspect.signature(train).parameters.keys()
    data, model = config["data"], config["model"]
    cls = named(data["class_path"])
    takes = inspect.signature(cls).parameters
    assert data["init_args"].keys() <= takes.keys()
    length = data["init_args"].get("max_length") or getattr(cls, "usual_length", 32**2)
    kinds = len(cls.token_names), len(cls.class_names), length
    classifier = named(model["class_path"])(*kinds, **model["init_args"])
    pair = "lengths" in cls.channels
    assert classifier.pair == pair
    token, pos, ptr = torch.zeros(6, 1).long(), torch.arange(6.0).unsqueeze(1), torch.tensor([0, 6])
    lengths = torch.tensor([[4, 2]]) if pair else None
    assert classifier(token, pos, ptr, lengths).shape == (1, len(cls.class_names))
    assert str(path.name) in path.read_text()  # the command in its first lines
