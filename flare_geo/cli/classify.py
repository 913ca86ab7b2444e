"""`flare-geo evaluate` for a classifier of sequences: accuracy, case by case and in summary."""

from pathlib import Path
from typing import Any

import torch

from flare_geo.cli.results import write_results
from flare_geo.cli.run_folder import Which, choose_checkpoint, source_of
from flare_geo.datasets import SequenceDataset
from flare_geo.metrics import cross_entropy
from flare_geo.nn import SequenceClassifier
from flare_geo.provenance import provenance
from flare_geo.pyg import Batch

BATCH = 32


def evaluate_classes(
    run: Path,
    checkpoint: Which | None,
    dataset: SequenceDataset,
    device: torch.device,
    target: Path,
) -> dict[str, Any]:
    """Classify a split; write `TARGET.csv` with a row per sequence and `TARGET.json`; print both.

    Returns:
        The summary: accuracy, cross-entropy, accuracy by class, and the accuracy of always naming
        the most frequent class of the split.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the split is empty, or the classifier is for other tokens or classes.
    """
    which = choose_checkpoint(run, checkpoint)
    classifier = SequenceClassifier.from_pretrained(run / which).to(device)
    has = (dataset.num_tokens, dataset.num_classes)
    if (classifier.num_tokens, classifier.num_classes) != has:
        raise ValueError(
            f"the checkpoint knows {classifier.num_tokens} tokens and {classifier.num_classes} "
            f"classes, {dataset.name} has {has[0]} and {has[1]}"
        )
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name}: the split '{dataset.split}' has no cases")
    rows = _classify(classifier, dataset, device)
    summary = _summarise(rows, dataset) | {
        "run": str(run),
        "checkpoint": which,
        "split": dataset.split,
        **provenance(device),
    }
    write_results(target, rows, summary)
    generated = ", generated data" if summary["source"] == "generated" else ""
    print(f"{dataset.name}{generated}: {len(rows)} sequences of split {dataset.split}")
    for name, share in summary["accuracy_by_class"].items():
        print(f"  {name:12} {share['cases']:7,} sequences  accuracy {share['accuracy']:.4f}")
    print(
        f"accuracy {summary['accuracy']:.4f}, cross-entropy {summary['cross_entropy']:.4f}; always "
        f"the most frequent class: {summary['accuracy_most_frequent']:.4f}"
    )
    print(f"table: {target}.csv   summary: {target}.json")
    return summary


@torch.no_grad()
def _classify(
    classifier: SequenceClassifier, dataset: SequenceDataset, device: torch.device
) -> list[dict[str, Any]]:
    rows = []
    for first in range(0, len(dataset), BATCH):
        cases = [dataset[i] for i in range(first, min(first + BATCH, len(dataset)))]
        batch = Batch.from_data_list(cases).to(device)
        logits = classifier(batch.token, batch.pos, batch.ptr, batch.get("lengths"))
        shares = logits.softmax(dim=1).cpu()
        errors = cross_entropy(logits, batch.label).cpu()
        for case, share, error in zip(cases, shares, errors, strict=True):
            predicted = int(share.argmax())
            rows.append(
                {
                    "case": case.name,
                    "tokens": len(case.token),
                    "class": dataset.class_names[int(case.label)],
                    "predicted": dataset.class_names[predicted],
                    "probability": float(share[predicted]),
                    "cross_entropy": float(error),
                }
            )
    return rows


def _summarise(rows: list[dict[str, Any]], dataset: SequenceDataset) -> dict[str, Any]:
    right = [row["class"] == row["predicted"] for row in rows]
    classes: dict[str, dict[str, Any]] = {}
    for name in dataset.class_names:
        answers = [ok for ok, row in zip(right, rows, strict=True) if row["class"] == name]
        if answers:
            classes[name] = {"cases": len(answers), "accuracy": sum(answers) / len(answers)}
    return {
        "dataset": dataset.name,
        "source": source_of(dataset),
        "cases": len(rows),
        "accuracy": sum(right) / len(rows),
        "cross_entropy": sum(row["cross_entropy"] for row in rows) / len(rows),
        "accuracy_most_frequent": max(share["cases"] for share in classes.values()) / len(rows),
        "accuracy_by_class": classes,
    }
