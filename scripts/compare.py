"""All mixers, and the models of other papers, under one protocol: the generated elasticity set.

    python scripts/compare.py

Generates the data if they are not there, trains each with `flare-geo train` for the seeds 0, 1 and
2 under `scripts/configs/compare.yaml` (same skeleton, steps, batches, optimiser), evaluates on
whole test cells, then times a training step of each in turns in one process. Writes
`scripts/compare/elasticity.json` and the table `scripts/compare/elasticity.md`. What was trained
already is taken as it is, so it may be interrupted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch_geometric.data import Batch

from flare_geo.cli.run_folder import make_dataset
from flare_geo.files import write_aside
from flare_geo.nn import MIXERS, Surrogate
from flare_geo.provenance import provenance

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "compare.yaml"
SLICES = {"num_slices": 32}
LATENTS = {"num_latents": 32}
ARGUMENTS: dict[str, dict[str, Any]] = {  # as many slices and latents as FLARE has latents
    "flare_plus_plus": LATENTS,
    "flare_plus_plus_pure": LATENTS,
    "physicsnemo_flare": LATENTS,
    "linformer": {"seq_len": 972, **LATENTS},
    "performer": {"num_features": 32},
    "transolver": SLICES,
    "transolver_plus": SLICES,
    "lamo": {**SLICES, "num_states": 8},
}
MODELS: dict[str, dict[str, Any]] = {  # of width 32, in the skeleton of their own papers
    "Transolver": {"num_layers": 2, "mixer_args": SLICES},
    "GNOT": {"num_layers": 2, "init": "default"},
    "LNO": {"num_layers": 2, "num_modes": 32},
    "PerceiverIO": {"num_layers": 2, "num_latents": 32, "init": "default"},
    "UPT": {"num_layers": 2, "num_latents": 32, "num_super_nodes": 64, "neighbours": 16},
    "AnchorUPT": {"num_layers": 2, "num_anchors": 64},
}
POINTS = {"third_order": 64}  # N^3: fewer points, in training and in the test
LEFT_OUT = {
    "transolver_conv2d": "needs a grid: the points of the cells are on none",
    "flare_causal": "is for sequences: the points of the cells have no order",
}
NOTES = {
    "third_order": "64 points a cell, in training and in the test: O(N^3)",
    "ema": "depends on the order of the points, which is random here",
    "linformer": "depends on the order of the points, which is random here",
}


class Run(NamedTuple):
    """One training: of what, with which seed, in which folder."""

    name: str
    seed: int
    folder: Path

    @property
    def points(self) -> int | None:
        """Points of a cell, where that is not what the configuration says."""
        return POINTS.get(self.name)

    def command(self, config: Path, epochs: int | None) -> list[str]:
        """The command line that trains it."""
        if self.name in MODELS:
            config = self._own_config(config)
        words = ["train", "--config", str(config), "--run", str(self.folder)]
        words += ["--seed", str(self.seed), "--accelerator", "cpu"]
        words += [] if epochs is None else ["--epochs", str(epochs), "--val_every", str(epochs)]
        words += [] if self.points is None else ["--data.num_points", str(self.points)]
        if self.name == "flare":
            words += ["--model.num_latents", "32", "--model.kv_layers", "1"]
        elif self.name in MIXERS:
            given = ARGUMENTS.get(self.name)
            words += ["--model.mixer", self.name]
            words += [] if given is None else ["--model.mixer_args", json.dumps(given)]
        return words

    def _own_config(self, config: Path) -> Path:
        """The configuration with another model: on the command line it would keep arguments."""
        content = yaml.safe_load(config.read_text())
        options = {"hidden_channels": 32, "heads": 4, **MODELS[self.name]}
        content["model"] = {"class_path": f"flare_geo.nn.{self.name}", "init_args": options}
        path = self.folder.with_name(f"{self.name}.yaml")
        with write_aside(path) as aside:
            aside.write_text(yaml.safe_dump(content))
        return path


def train(run: Run, config: Path, epochs: int | None) -> None:
    """Train it in a process of its own; its largest resident memory is kept in the run folder."""
    kept = run.folder / "peak_resident_bytes"
    if kept.is_file() and (run.folder / "last" / "config.json").is_file():
        return
    command = [sys.executable, "-m", "flare_geo.cli", *run.command(config, epochs)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **how) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # wait() would not tell the memory
        process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {said.strip().splitlines()[-1:]}")
    with write_aside(kept) as aside:
        aside.write_text(f"{usage.ru_maxrss * 1024}\n")


def evaluate(run: Run) -> float:
    """Mean relative L2 on the test cells, whole ones unless the points are limited."""
    from flare_geo.cli.evaluate import evaluate as evaluate_run

    summary = evaluate_run(run.folder, data={"num_points": run.points}, device="cpu", rows=0)
    return float(summary["rel_l2"]["mean"])


def time_steps(runs: Sequence[Run], spec: dict[str, Any], seconds: float) -> dict[str, float]:
    """Median seconds of a training step of each, forward, backward and optimiser, in turns."""
    steps = {run.name: _step(run, spec) for run in runs}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step.send(None)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found[runs[0].name]) < 5:
        for name, step in steps.items():
            found[name].append(next(step))
    return {name: statistics.median(times) for name, times in found.items()}


def _step(run: Run, spec: dict[str, Any]) -> Iterator[float]:
    """Seconds of one training step after the other, on one batch."""
    options = {**spec["init_args"], "split": "train"}
    options["num_points"] = run.points or options["num_points"]
    data = make_dataset({**spec, "init_args": options})
    batch = Batch.from_data_list([data[i] for i in range(4)], exclude_keys=["face", "name"])
    surrogate = Surrogate.from_pretrained(run.folder / "last").train()
    optimizer = torch.optim.AdamW(surrogate.parameters(), fused=True)
    yield 0.0
    while True:
        start = time.perf_counter()
        optimizer.zero_grad()
        (surrogate(batch) - batch.y).square().mean().backward()
        optimizer.step()
        yield time.perf_counter() - start


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    config, notes = result["config"], []
    lines = [
        "# Mixers on the elasticity set (generated data)",
        "",
        f"Made by `{result['command']}`, revision {result['git_revision']}, torch "
        f"{result['torch']}, {result['device']}, {result['threads']} threads.",
        f"{config['training_cells']} generated training cells, {config['test_cells']} test cells; "
        f"{config['epochs']} epochs of batches of {config['batch_size']} cells, "
        f"{config['num_points']} random points each; seeds {', '.join(map(str, config['seeds']))}.",
        "Relative L2 on all points of the test cells: mean, and largest less smallest, over the "
        "seeds. Rows with a capital are whole models in the skeleton of their own papers, of width "
        "32 and 2 layers; the others stand in FLARE's, which is given Fourier features here.",
        "Small, short runs of small models: they rank speed of learning on a laptop's budget, not "
        "what the papers report.",
        "",
        "| | relative L2 | spread | parameters | ms a step | peak memory of the process, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(result["rows"], key=lambda row: row["rel_l2"]):
        mark = ""
        if row["name"] in NOTES:
            notes.append(NOTES[row["name"]])
            mark = f" ({len(notes)})"
        lines.append(
            f"| `{row['name']}`{mark} | {row['rel_l2']:.4f} | {row['spread']:.4f} | "
            f"{row['parameters']:,} | {1e3 * row['step_seconds']:.1f} | "
            f"{row['peak_resident_bytes'] / 2**20:,.0f} |"
        )
    lines += ["", *(f"({i}) {note}. " for i, note in enumerate(notes, 1))]
    lines += [f"Not here: `{name}`, {why}." for name, why in result["left_out"].items()]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--names", nargs="+", default=[*MIXERS, *MODELS], help="which to compare")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="instead of those of the configuration")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--seconds", type=float, default=60.0, help="for timing all of them")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--out", type=Path, default=HERE / "compare")
    options = parser.parse_args(argv)
    config = yaml.safe_load(options.config.read_text())
    spec, root = config["data"], Path(config["data"]["init_args"]["root"])
    if not root.is_dir():
        command = ["data", "generate", "elasticity", "--root", str(root), "--num_samples", "400"]
        subprocess.run([sys.executable, "-m", "flare_geo.cli", *command], check=True)
    names = [name for name in options.names if name not in LEFT_OUT]
    runs = [
        Run(name, seed, options.runs / f"{name}_{seed}") for seed in options.seeds for name in names
    ]
    data = {
        s: make_dataset({**spec, "init_args": {**spec["init_args"], "split": s}})
        for s in ("train", "test")
    }  # fmt: skip  (packs them once, before the processes)
    begun = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(train, run, options.config, options.epochs) for run in runs]
        for number, (run, job) in enumerate(zip(runs, jobs, strict=True), 1):
            job.result()
            left = (time.monotonic() - begun) / number * (len(runs) - number)
            print(
                f"{run.name}, seed {run.seed}: {number}/{len(runs)}, ETA {left:,.0f} s", flush=True
            )
    errors = {run: evaluate(run) for run in runs}
    first = [run for run in runs if run.seed == options.seeds[0]]
    times = time_steps(first, spec, options.seconds)
    rows = []
    for run in first:
        own = [other for other in runs if other.name == run.name]
        found = [errors[other] for other in own]
        model = Surrogate.from_pretrained(run.folder / "last").model
        peak = max(int((other.folder / "peak_resident_bytes").read_text()) for other in own)
        rows.append(
            {
                "name": run.name,
                "rel_l2": statistics.mean(found),
                "spread": max(found) - min(found),
                "rel_l2_of_seeds": found,
                "parameters": sum(p.numel() for p in model.parameters()),
                "step_seconds": times[run.name],
                "peak_resident_bytes": peak,
                "points": run.points or spec["init_args"]["num_points"],
                "model": model.config,
            }
        )
    result = {
        "data": "generated: " + data["train"].name,
        "command": "python scripts/compare.py",
        **provenance("cpu"),
        "config": {
            "training_cells": len(data["train"]),
            "test_cells": len(data["test"]),
            "epochs": options.epochs or config["epochs"],
            "batch_size": config["batch_size"],
            "num_points": spec["init_args"]["num_points"],
            "seeds": options.seeds,
        },
        "left_out": {name: why for name, why in LEFT_OUT.items() if name in options.names},
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with write_aside(options.out / "elasticity.json") as aside:
        aside.write_text(json.dumps(result, indent=1) + "\n")
    with write_aside(options.out / "elasticity.md") as aside:
        aside.write_text(table(result))
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
