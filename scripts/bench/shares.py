"""Where the time of a training step of the plain eager model goes.

    python scripts/bench/shares.py --out shares.json

Kernel times of torch.profiler, by kind of work, as shares of their sum.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import timing
import torch
from model import CONFIGS, make_works
from timing import Record
from torch.profiler import ProfilerActivity, profile

KINDS = {  # what the names of operators contain; the first that fits
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention"),
    "GELU": ("gelu",),
    "LayerNorm": ("layer_norm",),
    "matrix products": ("::mm", "::addmm", "::bmm", "::baddbmm", "::linear"),
    "optimiser and clipping": ("adamw", "Optimizer", "foreach", "vector_norm"),
    "sums, copies, memory": ("::",),
}


def shares_of(config: str, device: torch.device, steps: int) -> dict[str, float]:
    """Kind of work to its share of the time."""
    half = CONFIGS[config].half and device.type == "cuda"
    dtype = torch.bfloat16 if half else torch.float32
    step = make_works(CONFIGS[config], device, dtype, compiled=False)["plain"]().training_step()
    for _ in range(3):
        step()
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as record:
        for _ in range(steps):
            step()
    spent = dict.fromkeys(KINDS, 0.0)
    for event in record.key_averages():
        on_gpu = device.type == "cuda"
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), None)
        if kind is not None:
            spent[kind] += time
    total = sum(spent.values())
    return {kind: time / total for kind, time in spent.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    timing.add_options(parser, "shares.json", limit=300)
    parser.add_argument("--configs", nargs="+", choices=list(CONFIGS), default=["elasticity"])
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args(argv)
    device = timing.choose_device(options)
    record = Record(options.out, device, options)
    for config in options.configs:
        shares: dict[str, Any] = shares_of(config, device, options.steps)
        record.add({"config": config, **shares})
        words = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in shares.items())
        record.headline(f"{config}: {words}")
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
