"""ListOps: how fast a FLARE of two blocks learns it, and packed sequences against padded ones.

    python scripts/bench/listops.py --out listops.json

Expressions of 50 to 200 tokens, drawn by the published grammar into `--root` before the time runs.
Packed against padded: training steps of the model on the same batches, padded to the longest of a
batch with a mask that hides what is no token; both are first compared with `backend="reference"` in
float64.

Learning: a plain loop, Adam with a warm-up and then a constant rate; accuracy on the whole split
for validation after every `--every` steps, until `--minutes` or `--steps` are over; the time of the
validations is not counted. The commonest value of each first operator would be right for about 0.32
of the expressions, the commonest value at all for 0.17.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import timing
import torch
from plain import PlainBlock, PlainMLP
from timing import Record, Row
from torch import Tensor, nn
from works import Work, check_works, headline, time_works

from flare_geo.datasets import ListOpsDataset
from flare_geo.metrics import accuracy, cross_entropy
from flare_geo.nn import SequenceClassifier

LENGTHS = 50, 200
SIZES = {"usual": (64, 2, 8, 32), "tiny": (8, 2, 2, 4)}  # width, blocks, heads, latents


class Sequences(NamedTuple):
    """A split in memory: the tokens of each expression, and their values."""

    tokens: list[Tensor]
    labels: Tensor

    @classmethod
    def of(cls, data: ListOpsDataset, device: torch.device) -> "Sequences":
        """All cases of a split."""
        cases = list(data)
        labels = torch.cat([case.label[:, 0] for case in cases])
        return cls([case.token.to(device) for case in cases], labels.to(device))

    def batch(self, picked: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token `[N, 1]`, pos `[N, 1]`, ptr `[B + 1]`, label `[B]`."""
        tokens = [self.tokens[i] for i in picked]
        places = [torch.arange(len(t), device=t.device).unsqueeze(1) for t in tokens]
        sizes = torch.tensor([0, *map(len, tokens)], device=tokens[0].device)
        return torch.cat(tokens), torch.cat(places), sizes.cumsum(0), self.labels[list(picked)]


class PaddedClassifier(nn.Module):
    """SequenceClassifier as one writes it for `[B, n_max]` and a mask; parameters of its names."""

    def __init__(self, width: int, layers: int, heads: int, latents: int) -> None:
        super().__init__()
        self.token = nn.Embedding(15, width)
        self.position = nn.Embedding(LENGTHS[1], width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, latents) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = PlainMLP(width, width, 10, 2, last=False)

    def forward(self, token: Tensor, mask: Tensor) -> Tensor:
        """`[B, n_max]`, both, to `[B, 10]`."""
        h = self.token(token) + self.position.weight[: token.shape[1]]
        for block in self.blocks:
            h = block(h, mask)
        seen = mask.unsqueeze(-1)
        mean = (self.norm(h) * seen).sum(dim=1) / seen.sum(dim=1)
        logits: Tensor = self.head(mean)
        return logits


def make_classifier(
    options: argparse.Namespace, device: torch.device, backend: str = "auto"
) -> SequenceClassifier:
    """The model, the same weights every time: the paper's depths, PyTorch's start."""
    torch.manual_seed(options.seed)
    return SequenceClassifier(
        15, 10, LENGTHS[1], *SIZES[options.size], init="default", backend=backend
    ).to(device)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Indices of full batches, every case once in an epoch, without end."""
    while True:
        yield from (
            part.tolist()
            for part in torch.randperm(count, generator=generator).split(size)
            if len(part) == size
        )


@torch.no_grad()
def validate(model: SequenceClassifier, data: Sequences) -> float:
    """Accuracy on all cases of a split."""
    hits = []
    for picked in torch.arange(len(data.tokens)).split(100):
        *inputs, label = data.batch(picked.tolist())
        hits.append(accuracy(model(*inputs), label))
    return float(torch.cat(hits).mean())


def learn(record: Record, train: Sequences, val: Sequences, options: argparse.Namespace) -> None:
    """Train until the time is over; a row for each validation."""
    model = make_classifier(options, train.labels.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    generator = torch.Generator().manual_seed(options.seed)
    spent, losses = 0.0, []
    start = time.perf_counter()
    reached: Row = {}
    for step, picked in enumerate(batches(len(train.tokens), options.batch, generator), start=1):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, step / options.warmup)
        *inputs, label = train.batch(picked)
        loss = cross_entropy(model(*inputs), label).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        over = spent + time.perf_counter() - start > 60 * options.minutes or step == options.steps
        if step % options.every == 0 or over:
            spent += time.perf_counter() - start
            found = validate(model, val)
            row: Row = {
                "task": "learn",
                "step": step,
                "training_seconds": spent,
                "loss": float(torch.stack(losses).mean()),
                "accuracy": found,
                "words": f"{spent / 60:.1f} min, accuracy {found:.3f}",
            }
            record.add(row)
            if found > options.goal and not reached:
                reached = row
            losses, start = [], time.perf_counter()
        if over:
            break
    parameters = sum(p.numel() for p in model.parameters())
    text = f"{parameters:,} parameters, {len(val.tokens):,} unseen expressions: {row['words']}"
    if reached:
        text += f"; above {options.goal} from {reached['training_seconds'] / 60:.1f} min on"
    record.headline(text)


def make_works(
    data: Sequences, picked: Sequence[int], options: argparse.Namespace
) -> dict[str, Callable[[], Work]]:
    """The definition in float64, then padded and packed: with the same weights, on one batch."""
    token, pos, ptr, label = data.batch(picked)
    sizes = ptr.diff()
    mask = torch.arange(int(sizes.max()), device=token.device) < sizes.unsqueeze(1)  # [B, n_max]
    dense = token.new_zeros(mask.shape)
    dense[mask] = token[:, 0]

    def loss(logits: Tensor) -> Tensor:
        return cross_entropy(logits, label).mean()

    def exact() -> Work:
        model = make_classifier(options, token.device, "reference").double()
        return Work(model, lambda: model(token, pos, ptr), loss)

    def padded() -> Work:
        model = PaddedClassifier(*SIZES[options.size]).to(token.device)
        model.load_state_dict(make_classifier(options, token.device).state_dict())
        return Work(model, lambda: model(dense, mask), loss)

    def packed() -> Work:
        model = make_classifier(options, token.device)
        return Work(model, lambda: model(token, pos, ptr), loss)

    return {"exact": exact, "padded": padded, "packed": packed}


def compare(record: Record, data: Sequences, options: argparse.Namespace) -> None:
    """Packed against padded: checked, then timed in turns, batch by batch."""
    generator = torch.Generator().manual_seed(options.seed)
    drawn = batches(len(data.tokens), options.batch, generator)
    for draw in range(options.draws):
        picked = next(drawn)
        lengths = [len(data.tokens[i]) for i in picked]
        words: Row = {"sizes": f"batch {draw}", "B": len(picked), "N": sum(lengths)}
        words["padded_N"] = max(lengths) * len(picked)
        works = make_works(data, picked, options)
        checked = check_works(works.pop("exact"), works, torch.float32, words)
        record.add(*checked)
        if any("failed" in row for row in checked):
            continue
        rows = time_works(works, data.labels.device, options.seconds, "padded", words)
        record.add(*rows)
        for row in rows:
            record.headline(headline(row))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    timing.add_options(parser, "listops.json", limit=1800)
    parser.add_argument("--root", type=Path, default=Path("data/listops_bench"))
    parser.add_argument("--train", type=int, default=50_000, help="expressions to train on")
    parser.add_argument("--val", type=int, default=2_000, help="expressions to validate on")
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--steps", type=int, default=0, help="of training at most; 0 for no limit")
    parser.add_argument("--every", type=int, default=500, help="steps between validations")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps in which the rate rises")
    parser.add_argument("--goal", type=float, default=0.30, help="accuracy to be told of")
    parser.add_argument("--draws", type=int, default=3, help="batches of the comparison")
    parser.add_argument("--size", choices=list(SIZES), default="usual")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    device = timing.choose_device(options)
    low, high = LENGTHS
    ListOpsDataset.generate(options.root, options.train, options.val, 1, low, high)
    train, val = (
        Sequences.of(ListOpsDataset(options.root, split, max_length=high), device)
        for split in ("train", "val")
    )
    record = Record(options.out, device, options)
    record.content["data"] = f"generated: ListOps of {low} to {high} tokens"
    compare(record, train, options)
    learn(record, train, val, options)
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
