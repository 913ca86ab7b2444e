"""A whole model: training step and inference, FLARE here against the plain eager way.

    python scripts/bench/model.py --out model.json                       # all that fits the device
    python scripts/bench/model.py --configs elasticity --compile --out compiled.json

A training step is forward, relative L2 loss, backward, clipping of the gradient and AdamW, the same
for all ways, from the same weights on the same random clouds. Before anything is timed, outputs and
gradients of every way are compared with `backend="reference"` in float64 on a part of each cloud.
All ways run in turns in one process; what compiling costs once stands beside the times.
"""

import argparse
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import timing
import torch
from plain import PlainFlare
from timing import Record
from torch import Tensor, nn
from works import Work, check_works, first_compiled, headline, time_works

from flare_geo.metrics import relative_l2
from flare_geo.nn import Flare

BASELINE = "plain"
SCORES = {"cpu": 2**23, "cuda": 2**26}  # H M N of a check at most: a block keeps a few of them
CHECKED = 20_000  # points of a cloud of a check, at most


class Config(NamedTuple):
    """The sizes of a run of the paper."""

    points: int
    batch: int
    inner: int
    out: int
    channels: int
    layers: int
    heads: int
    latents: int
    half: bool = False  # whether a GPU computes it in bfloat16


CONFIGS = {
    "1m": Config(1_000_000, 1, 3, 1, 64, 8, 8, 128, half=True),
    "elasticity": Config(972, 2, 2, 1, 64, 8, 8, 64),
    "darcy85": Config(7_225, 2, 3, 1, 64, 8, 16, 256),
    "40k": Config(40_000, 1, 3, 1, 64, 8, 8, 256),
    "tiny": Config(60, 2, 2, 1, 16, 2, 2, 8),
}
DEFAULTS = {"cpu": ["elasticity", "darcy85"], "cuda": ["1m", "elasticity", "darcy85", "40k"]}


def make_flare(config: Config, device: torch.device, **options: Any) -> Flare:
    """The model of a configuration, from weights that let every part matter."""
    sizes = {"hidden_channels": config.channels, "num_layers": config.layers}
    sizes |= {"heads": config.heads, "num_latents": config.latents}
    model = Flare(config.inner, config.out, **sizes, init="default", **options)
    return model.to(device)


def make_works(
    config: Config, device: torch.device, dtype: torch.dtype, compiled: bool
) -> dict[str, Callable[[], Work]]:
    """The ways to run a configuration; each is built when it is first called."""
    torch.manual_seed(0)
    total = config.batch * config.points
    x = torch.rand(total, config.inner, device=device)
    target = torch.randn(total, config.out, device=device)
    ptr = torch.arange(0, total + 1, config.points, device=device)
    weights = make_flare(config, device).state_dict()
    shape = (config.batch, config.points)

    def loss(pred: Tensor) -> Tensor:
        return relative_l2(pred.float(), target, ptr).mean()

    def work(model: nn.Module, predict: Callable[[], Tensor], same: bool = True) -> Work:
        if same:
            model.load_state_dict(weights)

        def run() -> Tensor:
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                return predict()

        return Work(model, run, loss)

    def plain() -> Work:
        model = PlainFlare(config.inner, config.out, *config[4:8]).to(device)
        return work(model, lambda: model(x.unflatten(0, shape)).flatten(0, 1))

    def flare(**options: Any) -> Work:
        unknown = options.keys() - inspect.signature(Flare).parameters.keys()
        if unknown:
            raise ValueError(f"Flare has no option {', '.join(unknown)}")
        model = make_flare(config, device, **options)
        return work(model, lambda: model(x, ptr))

    def flare_compiled() -> Work:
        model = make_flare(config, device)
        model.compile()
        return work(model, lambda: model(x, ptr))

    def physicsnemo(name: str) -> Work:
        module = __import__(f"physicsnemo.models.{name.lower()}", fromlist=[name])
        model = getattr(module, name)(
            functional_dim=config.inner, embedding_dim=config.inner, out_dim=config.out,
            n_layers=config.layers, n_hidden=config.channels, n_head=config.heads,
            slice_num=config.latents, mlp_ratio=1, use_te=False,
        ).to(device)  # fmt: skip
        dense = x.unflatten(0, shape)
        return work(model, lambda: model(dense, dense).flatten(0, 1), same=False)

    ways: dict[str, Callable[[], Work]] = {BASELINE: plain, "flare": flare}
    ways["flare checkpointed"] = lambda: flare(checkpoint_blocks=True)
    if compiled:
        ways["flare compiled"] = flare_compiled
    if has_physicsnemo():
        for name in ("FLARE", "Transolver"):
            ways[f"physicsnemo {name}"] = lambda n=name: physicsnemo(n)
    return {name: cache(make) for name, make in ways.items()}


def has_physicsnemo() -> bool:
    """Whether PhysicsNeMo can be imported here."""
    try:
        import physicsnemo  # noqa: F401
    except ImportError:
        return False
    return True


def exact_work(config: Config, device: torch.device) -> Work:
    """The definition in float64, on the clouds and weights of `make_works`."""
    torch.manual_seed(0)
    total = config.batch * config.points
    x = torch.rand(total, config.inner, device=device).double()
    target = torch.randn(total, config.out, device=device).double()
    ptr = torch.arange(0, total + 1, config.points, device=device)
    model = make_flare(config, device, backend="reference").double()
    return Work(model, lambda: model(x, ptr), lambda pred: relative_l2(pred, target, ptr).mean())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    timing.add_options(parser, "model.json", limit=1800)
    parser.add_argument("--configs", nargs="+", choices=list(CONFIGS), help="of the paper's runs")
    parser.add_argument("--compile", action="store_true", help="time Flare.compile() as well")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of all, by autocast")
    options = parser.parse_args(argv)
    timing.forget_what_was_compiled()
    device = timing.choose_device(options)
    record, clock = Record(options.out, device, options), timing.Clock(options.limit)
    for name in options.configs or DEFAULTS[device.type]:
        config = CONFIGS[name]
        if clock.is_over:
            record.headline(f"{name}: not run for want of time")
            continue
        half = config.half and device.type == "cuda"
        dtype = getattr(torch, options.dtype or ("bfloat16" if half else "float32"))
        words = {"config": name, "dtype": str(dtype).removeprefix("torch.")}
        share = SCORES[device.type] // (config.batch * config.heads * config.latents)
        part = config._replace(points=min(config.points, share, CHECKED))
        works = make_works(part, device, dtype, options.compile)
        compared = {k: v for k, v in works.items() if not k.startswith("physicsnemo")}
        checked = check_works(
            lambda p=part: exact_work(p, device),
            compared,
            dtype,
            {**words, "N": part.points, "batch": part.batch},
        )
        record.add(*checked)
        wrong = {row["check"] for row in checked if "failed" in row}
        if part != config:
            works = make_works(config, device, dtype, options.compile)
            torch.compiler.reset()
        timing.free(device)
        right = {k: v for k, v in works.items() if k not in wrong}  # no speed without truth
        sizes = {"N": config.points, "batch": config.batch, "C": config.channels}
        sizes |= {"H": config.heads, "M": config.latents, "layers": config.layers}
        words |= sizes
        once = first_compiled(checked)
        rows = time_works(right, device, options.seconds, BASELINE, words, once)
        record.add(*rows)
        for row in rows:
            record.headline(headline(row))
        torch.compiler.reset()
        timing.free(device)
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
