"""Cross-entropy and accuracy of each cloud, against the definitions."""

import math

import pytest
import torch

from flare_geo.metrics import accuracy, cross_entropy


def test_cross_entropy_is_what_it_says():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 3, 1, 1, 2])
    found = cross_entropy(logits, label)
    for row, true, value in zip(logits.tolist(), label.tolist(), found.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        assert value == pytest.approx(-math.log(math.exp(row[true]) / total), rel=1e-12)
    assert torch.equal(cross_entropy(logits, label.unsqueeze(1)), found)
    found.sum().backward()
    torch.testing.assert_close(
        logits.grad, logits.detach().softmax(1) - torch.eye(4, dtype=torch.float64)[label]
    )


def test_half_precision_is_widened_and_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]], dtype=torch.bfloat16)
    found = cross_entropy(logits, torch.tensor([1]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(2e4, rel=1e-2)


def test_accuracy():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
    assert accuracy(logits, torch.tensor([[1], [1], [0], [1]])).tolist() == [1, 0, 1, 0]
    assert accuracy(logits[:0], torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("measure", [accuracy, cross_entropy])
@pytest.mark.parametrize(
    ("label", "words"),
    [
        (torch.tensor([0, 1, 2]), r"got \[2, 3\] and \[3\] torch.int64"),
        (torch.tensor([0.0, 1.0]), r"got \[2, 3\] and \[2\] torch.float32"),
        (torch.tensor([0, 3]), "labels must be 0 to 2, got 0 to 3"),
        (torch.tensor([-1, 2]), "labels must be 0 to 2, got -1 to 2"),
    ],
)
def test_wrong_labels_are_refused(measure, label, words):
    with pytest.raises(ValueError, match=words):
        measure(torch.zeros(2, 3), label)
