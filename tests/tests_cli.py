"""What the tests of the command line share."""

from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "scripts" / "configs"
TINY = [
    "--model.hidden_channels", "8", "--model.num_layers", "1", "--model.heads", "2",
    "--model.num_latents", "4", "--accelerator", "cpu",
]  # fmt: skip


def elasticity(root, run):
    config = str(CONFIGS / "elasticity.yaml")
    return ["--config", config, "--data.root", str(root), "--run", str(run), *TINY]
