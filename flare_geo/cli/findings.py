"""What was found out about a run, gathered once for all parts of its report."""

from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from flare_geo.cli.run import Which
from flare_geo.datasets import PackedDataset
from flare_geo.nn import Surrogate


class Findings(NamedTuple):
    """All that a report is made of; `rows` and `summary` are those of `flare-geo evaluate`."""

    run: Path
    split: str
    checkpoint: Which
    options: dict[str, Any]
    surrogate: Surrogate
    dataset: PackedDataset
    rows: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def generated(self) -> bool:
        """Whether no one measured or published these data."""
        return bool(self.summary["source"] == "generated")

    @property
    def note(self) -> str | None:
        """What stands under every picture."""
        return "generated data" if self.generated else None

    @property
    def parameters(self) -> int:
        """Trained numbers of the model."""
        return sum(p.numel() for p in self.surrogate.parameters())

    @property
    def points_per_second(self) -> float:
        """Of predictions, the median over the cases."""
        return median(row["points"] / row["seconds"] for row in self.rows)
