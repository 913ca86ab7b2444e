"""Ways to run a model: each checked against the definition first, then timed in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import timing
import torch
from plain import parameters_by_name
from timing import Row, Way
from torch import Tensor, nn


class Work(NamedTuple):
    """One way to run a model: `predict()` gives `[sum N, out]`, `loss` takes it."""

    model: nn.Module
    predict: Callable[[], Tensor]
    loss: Callable[[Tensor], Tensor]

    def inference(self) -> Tensor:
        """A prediction that keeps nothing."""
        with torch.no_grad():
            return self.predict()

    def gradients(self) -> list[Tensor]:
        """Prediction and gradients of the loss."""
        pred = self.predict()
        parameters = parameters_by_name(self.model)
        return [pred, *torch.autograd.grad(self.loss(pred), parameters)]

    def training_step(self) -> Way:
        """A step of training, with the state of its optimiser."""
        parameters = list(self.model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-5, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            self.loss(self.predict()).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        return step


def check_works(
    true: Callable[[], Work],
    works: Mapping[str, Callable[[], Work]],
    dtype: torch.dtype,
    words: Row,
) -> list[Row]:
    """Errors of output and gradient of every way, also against the first; a row each."""
    rows = []
    exact = [t.detach() for t in true().gradients()]
    first: list[Tensor] = []
    usual = 0.0
    for name, make in works.items():
        row: Row = {"check": name, **words}
        rows.append(row)
        try:
            start = time.perf_counter()
            found = [t.detach() for t in make().gradients()]
            row["first_seconds"] = time.perf_counter() - start
        except Exception as error:
            row |= timing.failed(error)
            continue
        errors = row["errors"] = _errors(found, exact)
        if not first:
            first, usual = found, max(errors.values())
            row |= timing.verdict(errors, dtype, usual)
            continue
        row |= timing.verdict(errors, dtype, usual)
        row["errors"] |= {f"{key} vs the first": e for key, e in _errors(found, first).items()}
    return rows


def first_compiled(checked: Sequence[Row]) -> float:
    """How long the first call of a compiled way took in a check; 0 if there was none."""
    return max(
        (row.get("first_seconds", 0.0) for row in checked if "compiled" in row["check"]), default=0
    )


def _errors(found: list[Tensor], true: list[Tensor]) -> Row:
    return {
        "output": timing.relative_error(found[:1], true[:1]),
        "gradient": timing.relative_error(found[1:], true[1:]),
    }


def time_works(
    works: Mapping[str, Callable[[], Work]],
    device: torch.device,
    seconds: float,
    baseline: str,
    words: Row,
    compiled_before: float = 0.0,
) -> list[Row]:
    """Inference and training step of every way in turns; ratios are to the first way.

    `compiled_before` is what the first call with gradients took, which was made for the check.
    """
    built: dict[str, Work] = {}
    rows: list[Row] = []
    for name, make in works.items():
        try:
            built[name] = make()
        except Exception as error:
            rows.append({"way": name, **words, **timing.failed(error)})
    for kind in ("inference", "training step"):
        calls: dict[str, Way] = {
            name: work.inference if kind == "inference" else work.training_step()
            for name, work in built.items()
            if kind != "inference" or "checkpointed" not in name  # nothing to keep there
        }
        timed = timing.alternate(calls, device, seconds=seconds)
        usual = timed.get(baseline, {})
        for name, row in timed.items():
            if "seconds" in row:
                if "seconds" in usual:
                    row["speedup"] = usual["seconds"] / row["seconds"]
                if row["peak_bytes"] and usual.get("peak_bytes"):
                    row["memory_ratio"] = row["peak_bytes"] / usual["peak_bytes"]
                if "compiled" in name:
                    first = max(row["first_seconds"], compiled_before)
                    row["compile_seconds"] = max(first - row["seconds"], 0.0)
            rows.append({"way": name, **words, "pass": kind, **row})
        timing.free(device)
    return rows


def headline(row: Row) -> str:
    """A row in short, for the table at the end."""
    words = f"{row.get('config', row.get('sizes'))}  {row.get('pass', '')}  {row['way']}"
    if "failed" in row:
        return f"{words}: {row['failed']}"
    words += f": {1e3 * row['seconds']:,.2f} ms"
    for key, text in (("speedup", "{:.2f} x"), ("memory_ratio", "memory x {:.2f}")):
        words += f", {text.format(row[key])}" if key in row else ""
    if row.get("peak_bytes"):
        words += f", {row['peak_bytes'] / 1e9:.2f} GB"
    if "compile_seconds" in row:
        words += f", compiled in {row['compile_seconds']:.1f} s"
    return words
