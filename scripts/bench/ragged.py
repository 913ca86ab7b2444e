"""Clouds of very different sizes: packed end to end here, against padded to the largest.

    python scripts/bench/ragged.py --out ragged.json

The padded way is the plain eager model on `[B, N_max, C]`; a mask keeps what is no point out of the
encode and of the loss. `skewed`: eight clouds of 300 to 12,000 points, evenly spaced in the
logarithm. `lpbf`: draws of eight between 736 and 47,542, the range of the LPBF parts, again even in
the logarithm (their true distribution is less skewed). Predictions on the points and gradients of
both ways are first compared with `backend="reference"` in float64, on clouds of the same ratios.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import cache

import timing
import torch
from model import CONFIGS, Config, make_flare
from plain import PlainFlare
from timing import Record
from torch import Tensor
from works import Work, check_works, first_compiled, headline, time_works

from flare_geo.metrics import relative_l2

BASELINE = "padded"
CHECKED = {"cpu": 1_000, "cuda": 4_000}  # points of the largest cloud of a check
LATENTS = {"skewed": 64, "lpbf": 128, "tiny": 8}
MODELS = {
    name: CONFIGS["tiny" if name == "tiny" else "elasticity"]._replace(
        inner=3, latents=latents, batch=8
    )
    for name, latents in LATENTS.items()
}


def sizes_of(name: str, draw: int) -> list[int]:
    """The numbers of points of a batch; draws differ for "lpbf" only."""
    if name == "lpbf":
        generator = torch.Generator().manual_seed(draw)
        at = torch.rand(8, generator=generator, dtype=torch.float64)
        low, high = 736, 47_542
    else:
        at = torch.linspace(0, 1, 8, dtype=torch.float64)
        low, high = (300, 12_000) if name == "skewed" else (3, 120)
    return [round(low * (high / low) ** float(t)) for t in at]


class Clouds:
    """Random clouds of given sizes, packed `[N, C]` and padded `[B, N_max, C]`."""

    def __init__(self, config: Config, sizes: Sequence[int], device: torch.device) -> None:
        torch.manual_seed(0)
        total = sum(sizes)
        self.x = torch.rand(total, config.inner, device=device)
        self.target = torch.randn(total, config.out, device=device)
        self.ptr = torch.tensor([0, *sizes], device=device).cumsum(0)
        places = torch.arange(max(sizes), device=device)
        self.mask = places < torch.tensor(sizes, device=device)[:, None]  # [B, N_max]
        self.dense = self.pad(self.x)
        self.dense_target = self.pad(self.target)

    def pad(self, packed: Tensor) -> Tensor:
        """`[N, C]` to `[B, N_max, C]`, zeros where there is no point."""
        dense = packed.new_zeros(*self.mask.shape, packed.shape[-1])
        dense[self.mask] = packed
        return dense

    def packed_loss(self, pred: Tensor) -> Tensor:
        """Mean over the clouds of the relative L2 error, of `[N, C]`."""
        return relative_l2(pred, self.target, self.ptr).mean()

    def padded_loss(self, pred: Tensor) -> Tensor:
        """The same of `[B, N_max, C]`, as one writes it for padded clouds."""
        error = torch.where(self.mask[..., None], pred - self.dense_target, 0.0)
        ratio = error.square().sum(dim=(1, 2)) / self.dense_target.square().sum(dim=(1, 2))
        return ratio.sqrt().mean()


class Padded(Work):
    """Compared on the points only: what stands on padding means nothing."""

    def gradients(self) -> list[Tensor]:
        """Prediction on the points, packed, and gradients of the loss."""
        pred, *rest = super().gradients()
        return [pred[self.model.mask], *rest]


def make_works(
    config: Config, sizes: Sequence[int], device: torch.device, dtype: torch.dtype, compiled: bool
) -> dict[str, Callable[[], Work]]:
    """Padded, packed and, where asked for, packed and compiled."""
    clouds = Clouds(config, sizes, device)
    weights = make_flare(config, device).state_dict()

    def in_precision(predict: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                return predict()

        return lambda: run().float()

    def padded() -> Work:
        model = PlainFlare(config.inner, config.out, *config[4:8]).to(device)
        model.load_state_dict(weights)
        model.mask = clouds.mask
        return Padded(
            model, in_precision(lambda: model(clouds.dense, clouds.mask)), clouds.padded_loss
        )

    def packed(fast: bool = False) -> Work:
        model = make_flare(config, device)
        model.load_state_dict(weights)
        if fast:
            model.compile()
        return Work(model, in_precision(lambda: model(clouds.x, clouds.ptr)), clouds.packed_loss)

    ways: dict[str, Callable[[], Work]] = {BASELINE: padded, "packed": packed}
    if compiled:
        ways["packed compiled"] = lambda: packed(fast=True)
    return {name: cache(make) for name, make in ways.items()}


def exact_work(config: Config, sizes: Sequence[int], device: torch.device) -> Work:
    """The definition in float64, cloud by cloud, on the weights and clouds of `make_works`."""
    clouds = Clouds(config, sizes, device)
    model = make_flare(config, device, backend="reference").double()
    x, target = clouds.x.double(), clouds.target.double()
    return Work(
        model,
        lambda: model(x, clouds.ptr),
        lambda pred: relative_l2(pred, target, clouds.ptr).mean(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    timing.add_options(parser, "ragged.json", limit=1200)
    parser.add_argument("--sizes", nargs="+", choices=list(LATENTS), default=["skewed", "lpbf"])
    parser.add_argument("--draws", type=int, default=2, help="batches of lpbf sizes")
    parser.add_argument("--compile", action="store_true", help="time Flare.compile() as well")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args(argv)
    timing.forget_what_was_compiled()
    device = timing.choose_device(options)
    dtype = getattr(torch, options.dtype)
    record, clock = Record(options.out, device, options), timing.Clock(options.limit)
    for name in options.sizes:
        for draw in range(options.draws if name == "lpbf" else 1):
            sizes = sizes_of(name, draw)
            words = {"sizes": f"{name} {draw}" if name == "lpbf" else name, "dtype": options.dtype}
            if clock.is_over:
                record.headline(f"{words['sizes']}: not run for want of time")
                continue
            config = MODELS[name]
            shrink = min(1.0, CHECKED[device.type] / max(sizes))
            part = [max(1, round(n * shrink)) for n in sizes]
            works = make_works(config, part, device, dtype, options.compile)
            checked = check_works(
                lambda c=config, p=part: exact_work(c, p, device),
                works,
                dtype,
                {**words, "N": sum(part)},
            )
            record.add(*checked)
            torch.compiler.reset()
            timing.free(device)
            wrong = {row["check"] for row in checked if "failed" in row}
            works = make_works(config, sizes, device, dtype, options.compile)
            right = {k: v for k, v in works.items() if k not in wrong}  # no speed without truth
            words |= {"B": len(sizes), "N": sum(sizes), "largest": max(sizes)}
            once = first_compiled(checked)
            rows = time_works(right, device, options.seconds, BASELINE, words, once)
            record.add(*rows)
            for row in rows:
                record.headline(headline(row))
            timing.free(device)
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
