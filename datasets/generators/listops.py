"""ListOps by its published grammar: https://arxiv.org/abs/1804.06028, long as in the Long Range
Arena (https://arxiv.org/abs/2011.04006).

    expression = digit | operator argument argument ... ]        argument = expression

An expression has an operator with a certain chance, else it is a digit; at the last level it always
is. Operators (minimum, maximum, median rounded down, sum modulo 10), their number of arguments and
digits are drawn evenly. Expressions are drawn until one has a length that is asked for: operators,
digits and closing brackets count. None is there twice, in whatever split.
"""

import hashlib
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from flare_geo.datasets.generators.run import claim, run_cases
from flare_geo.files import write_aside

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda arguments: int(statistics.median(arguments)),
    "[SM": lambda arguments: sum(arguments) % 10,
}
NAMES = tuple(OPERATORS)
SPLITS = ("val", "test", "train")  # in the order in which they are drawn
DRAWS = 1_000_000  # without an expression of a length that is asked for: there is none


class Grammar(NamedTuple):
    """What expressions are drawn; lengths in tokens, both ends included."""

    min_length: int = 500
    max_length: int = 2_000
    max_depth: int = 10
    max_args: int = 10
    operator_chance: float = 0.25

    def check(self) -> None:
        """Raises a ValueError if no such expression can be."""
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                "min_length must be at least 1 and at most max_length, got "
                f"{self.min_length} and {self.max_length}"
            )
        if self.max_depth < 1 or self.max_args < 2:
            raise ValueError(
                "max_depth must be at least 1 and max_args at least 2, got "
                f"{self.max_depth} and {self.max_args}"
            )
        if not 0 < self.operator_chance <= 1:
            raise ValueError(f"operator_chance must be in (0, 1], got {self.operator_chance}")


def expression(index: int, grammar: Grammar, seed: int = 0) -> tuple[str, int]:
    """The expression of a number, and its value. Depends on the arguments only.

    Raises:
        ValueError: the grammar has none of such a length, or hardly any.
    """
    draw = random.Random(f"{seed} {index}").random
    for _ in range(DRAWS):
        tokens: list[str] = []
        value = _extend(tokens, 1, grammar, draw)
        if value is not None and grammar.min_length <= len(tokens) <= grammar.max_length:
            return " ".join(tokens), value
    raise ValueError(
        f"{DRAWS:,} expressions were drawn, none of {grammar.min_length} to {grammar.max_length} "
        "tokens: ask for other lengths, or a greater max_depth"
    )


def _extend(
    tokens: list[str], depth: int, grammar: Grammar, draw: Callable[[], float]
) -> int | None:
    """Append an expression and return its value; None as soon as it is too long."""
    if len(tokens) > grammar.max_length:
        return None
    if depth >= grammar.max_depth or draw() >= grammar.operator_chance:
        digit = int(10 * draw())
        tokens.append(str(digit))
        return digit
    operator = NAMES[int(len(NAMES) * draw())]
    tokens.append(operator)
    arguments = []
    for _ in range(2 + int((grammar.max_args - 1) * draw())):
        value = _extend(tokens, depth + 1, grammar, draw)
        if value is None:
            return None
        arguments.append(value)
    tokens.append("]")
    return OPERATORS[operator](arguments)


def generate_listops(
    root: str | Path,
    grammar: Grammar | None = None,
    counts: tuple[int, int, int] = (96_000, 2_000, 2_000),
    seed: int = 0,
    workers: int | None = None,
    log: bool = True,
) -> Path:
    """Write expressions under the names of the published files, without parentheses::

        root/basic_{train,val,test}.tsv    Source <tab> Target
        root/SOURCE.json                   "generated": true, seed, grammar, counts

    A data set that is there is kept; an interrupted one is drawn again. The held-out expressions
    come first: another number to train on changes none of them.

    Args:
        root: Folder, made if missing.
        grammar: What is drawn.
        counts: Expressions to train on, validate and test.
        seed: Of the set.
        workers: Processes; default: one per core and 1,000 expressions. If several, they are
            spawned: a script needs ``if __name__ == "__main__":``.
        log: Progress on standard error.

    Raises:
        FileExistsError: ``root`` holds another set, such as the published one.
        ValueError: the grammar has fewer expressions than that.
    """
    grammar = grammar or Grammar()
    grammar.check()
    if min(counts) < 1:
        raise ValueError(f"every split needs at least 1 expression, got {counts}")
    root = Path(root)
    number = dict(zip(("train", "val", "test"), counts, strict=True))
    record = {"generator": __name__, "version": 1, "seed": seed, **grammar._asdict()}
    claim(root, {**record, "counts": number})
    files = {split: root / f"basic_{split}.tsv" for split in SPLITS}
    if all(path.is_file() for path in files.values()):
        return root
    workers = workers or max(1, min(os.cpu_count() or 1, sum(counts) // 1000))
    distinct = _distinct(grammar, seed, sum(counts), workers, log)
    for split, path in files.items():
        with write_aside(path) as aside, aside.open("w", encoding="ascii", newline="\n") as file:
            file.write("Source\tTarget\n")
            for _ in range(number[split]):
                text, value = next(distinct)
                file.write(f"{text}\t{value}\n")
    if log:
        print(f"listops: {sum(counts):,} expressions in {root}", file=sys.stderr)
    return root


def _distinct(
    grammar: Grammar, seed: int, count: int, workers: int, log: bool
) -> Iterator[tuple[str, int]]:
    """This number of expressions in the order of their numbers, each text once."""
    seen: set[bytes] = set()
    task = partial(expression, grammar=grammar, seed=seed)
    start = 0
    while len(seen) < count:
        before, stop = len(seen), start + count - len(seen)
        for text, value in run_cases(
            task, range(start, stop), workers=workers, unit="expression", log=log
        ):
            digest = hashlib.sha256(text.encode()).digest()[:16]
            if digest not in seen:
                seen.add(digest)
                yield text, value
        start = stop
        if len(seen) == before:
            raise ValueError(
                f"the grammar has hardly more than {before} expressions of such lengths, "
                f"{count} were asked for: ask for fewer, or for longer ones"
            )
