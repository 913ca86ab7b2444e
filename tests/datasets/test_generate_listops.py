"""Generated ListOps: right values by another way to compute them, the grammar, the files."""

import csv
import json
from collections import Counter

import pytest

from flare_geo.datasets import ListOpsDataset
from flare_geo.datasets.generators import generate_listops
from flare_geo.datasets.generators.listops import Grammar, expression

SHORT = Grammar(min_length=5, max_length=40)


def value_of(text):
    """With a stack and sorted arguments, from the definition in the paper."""
    stack = []
    for word in text.split():
        if word.startswith("["):
            stack.append([word])
            continue
        if word == "]":
            operator, *numbers = stack.pop()
            numbers.sort()
            n = len(numbers)
            word = {
                "[MIN": numbers[0],
                "[MAX": numbers[-1],
                "[MED": (numbers[(n - 1) // 2] + numbers[n // 2]) // 2,
                "[SM": sum(numbers) % 10,
            }[operator]
        if not stack:
            return int(word)
        stack[-1].append(int(word))
    raise AssertionError(f"no end: {text}")


def shape_of(text):
    """Greatest depth, and the number of arguments of each operator."""
    deepest, stack, counts = 1, [], []
    for word in text.split():
        if word == "]":
            counts.append(stack.pop())
            continue
        if stack:
            stack[-1] += 1
        deepest = max(deepest, len(stack) + 1)
        if word.startswith("["):
            stack.append(0)
    assert not stack
    return deepest, counts


def read(path):
    with path.open(newline="") as file:
        return [(row["Source"], int(row["Target"])) for row in csv.DictReader(file, delimiter="\t")]


def test_the_published_example():
    assert value_of("[MAX 2 9 [MIN 4 7 ] 0 ]") == 9
    assert value_of("[MED 1 4 8 9 ]") == 6  # the mean of the middle two


@pytest.mark.parametrize("grammar", [Grammar(), SHORT, Grammar(5, 60, 4, 3, 0.5)])
def test_values_lengths_and_shapes(grammar):
    most = 0
    for i in range(20 if grammar.max_length > 100 else 300):
        text, value = expression(i, grammar, seed=3)
        assert value == value_of(text)
        assert grammar.min_length <= len(text.split()) <= grammar.max_length
        depth, counts = shape_of(text)
        assert depth <= grammar.max_depth
        assert set(counts) <= set(range(2, grammar.max_args + 1))
        most = max(most, *counts)
    assert most == grammar.max_args


def test_draws_are_even():
    """Of any length: a lone digit three times in four, else one of the operators, evenly."""
    texts = [expression(i, Grammar(1, 2000), seed=1)[0] for i in range(2000)]
    starts = Counter(text.split()[0] for text in texts)
    digits = sum(starts[str(d)] for d in range(10))
    assert 0.72 < digits / 2000 < 0.80  # those beyond 2,000 tokens are drawn again
    assert len(starts) == 14
    assert all(80 < starts[name] < 170 for name in ("[MIN", "[MAX", "[MED", "[SM"))


def test_files_and_splits(tmp_path):
    root = generate_listops(tmp_path / "a", SHORT, (60, 20, 10), seed=5, workers=1, log=False)
    splits = {s: read(root / f"basic_{s}.tsv") for s in ("train", "val", "test")}
    assert [len(rows) for rows in splits.values()] == [60, 20, 10]
    everything = [row for rows in splits.values() for row in rows]
    assert all(value == value_of(text) for text, value in everything)
    assert len({text for text, _ in everything}) == 90
    source = json.loads((root / "SOURCE.json").read_text())
    assert source["generated"] is True
    assert source["seed"] == 5
    longer = generate_listops(tmp_path / "b", SHORT, (90, 20, 10), seed=5, workers=1, log=False)
    for split in ("val", "test"):
        assert read(longer / f"basic_{split}.tsv") == splits[split]
    assert read(longer / "basic_train.tsv")[:60] == splits["train"]
    other = generate_listops(tmp_path / "c", SHORT, (60, 20, 10), seed=6, workers=1, log=False)
    assert read(other / "basic_val.tsv") != splits["val"]


def test_a_set_is_kept_and_a_cut_one_finished(tmp_path):
    def make(**other):
        generate_listops(tmp_path, SHORT, (8, 2, 2), workers=1, log=False, **other)
        return [(tmp_path / f"basic_{s}.tsv").read_bytes() for s in ("train", "val", "test")]

    first = make()
    time = (tmp_path / "basic_train.tsv").stat().st_mtime_ns
    assert make() == first
    assert (tmp_path / "basic_train.tsv").stat().st_mtime_ns == time
    (tmp_path / "basic_train.tsv").unlink()
    assert make() == first
    with pytest.raises(FileExistsError, match="holds another set"):
        make(seed=1)


@pytest.mark.parametrize(
    ("grammar", "counts", "words"),
    [
        (Grammar(10, 9), (1, 1, 1), "min_length must be at least 1"),
        (Grammar(max_args=1), (1, 1, 1), "max_args at least 2"),
        (Grammar(operator_chance=0.0), (1, 1, 1), "operator_chance"),
        (SHORT, (1, 0, 1), "at least 1 expression"),
        (Grammar(1, 1), (20, 1, 1), "hardly more than 10 expressions"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, grammar, counts, words):
    with pytest.raises(ValueError, match=words):
        generate_listops(tmp_path, grammar, counts, workers=1, log=False)


def test_lengths_that_no_expression_has(monkeypatch):
    monkeypatch.setattr("flare_geo.datasets.generators.listops.DRAWS", 200)
    with pytest.raises(ValueError, match="none of 2 to 3 tokens"):
        expression(0, Grammar(2, 3))


def test_by_the_data_set(tmp_path):
    sizes = {"num_train": 12, "num_val": 4, "num_test": 4, "workers": 1}
    ListOpsDataset.generate(tmp_path, min_length=10, max_length=50, **sizes)
    data = ListOpsDataset(tmp_path, max_length=50)
    assert len(data) == 12
    assert data.source["generated"] is True
    for case, (text, value) in zip(data, read(tmp_path / "basic_train.tsv"), strict=True):
        words = [data.token_names[token] for token in case.token[:, 0]]
        assert " ".join(words) == text
        assert int(case.label) == value
