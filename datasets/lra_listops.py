"""ListOps: the value of a nested expression of minima, maxima, medians and sums."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from flare_geo.datasets.lra import RELEASE, Line, SequenceDataset, lines_of, make_case
from flare_geo.pyg import Data

TOKENS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
CODES = {token.encode(): code for code, token in enumerate(TOKENS)} | {b"(": None, b")": None}
OPERATORS, CLOSE = range(10, 14), 14
HEADER = [b"Source", b"Target"]


class ListOpsDataset(SequenceDataset):
    """Expressions like ``[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 ] ]`` and their value, 0 to 9.

    Of `Nangia and Bowman (2018) <https://arxiv.org/abs/1804.06028>`_, in the long form of the
    `"Long Range Arena" <https://arxiv.org/abs/2011.04006>`_ (Apache 2.0). :meth:`generate` draws
    such a set by the same grammar; ``source["generated"]`` tells the two apart.

    ::

        root/basic_train.tsv    Source <tab> Target: an expression and its value
        root/basic_val.tsv      parentheses, which say nothing that brackets do not, are dropped
        root/basic_test.tsv
        root/SOURCE.json        only beside generated files
        root/processed/listops_max_length2000_{train,val,test}.h5

    The files may lie anywhere below ``root``. Published are 96,000, 2,000 and 2,000 expressions of
    500 to 2,000 tokens. An expression of more than `max_length` tokens is not sound: what is cut
    off has another value. The arguments are those of :class:`SequenceDataset`.

    Shapes:
        ``pos [n, 1]``, ``token [n, 1]``: digits 0 to 9 are themselves, then the four operators and
        ``]``; ``label [1, 1]``; ``name`` like ``"train_000041"``.

    Raises:
        ValueError: unknown tokens, brackets that do not match, values that are not digits.
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> ListOpsDataset.generate("data/listops", num_train=1000, num_val=100, num_test=100)
        >>> ListOpsDataset("data/listops")[0]
        Data(pos=[1121, 1], token=[1121, 1], label=[1, 1], name='train_000000')
    """

    name: ClassVar[str] = "listops"
    token_names: ClassVar[tuple[str, ...]] = TOKENS
    class_names: ClassVar[tuple[str, ...]] = TOKENS[:10]
    usual_length = 2000
    how_to_get: ClassVar[str] = (
        "run: flare-geo data generate listops --root {root}, or unpack basic_train.tsv, "
        f"basic_val.tsv and basic_test.tsv of {RELEASE} there"
    )

    @classmethod
    def generate(
        cls,
        root: str | Path,
        num_train: int = 96_000,
        num_val: int = 2_000,
        num_test: int = 2_000,
        min_length: int = 500,
        max_length: int = 2_000,
        max_depth: int = 10,
        max_args: int = 10,
        operator_chance: float = 0.25,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        """Draw expressions by the published grammar and write them to ``root``.

        Args:
            root: Folder for the files.
            num_train: Expressions to train on.
            num_val: To choose checkpoints by; another number of the first changes none of these.
            num_test: To test on.
            min_length: Fewest tokens of an expression.
            max_length: Most tokens.
            max_depth: Levels of the tree, that of the innermost digits included.
            max_args: Most arguments of an operator; fewest are two.
            operator_chance: That an argument is an expression and not a digit.
            seed: The same seed gives the same set.
            workers: Number of processes; None lets the generator choose.
        """
        from flare_geo.datasets.generators.listops import Grammar, generate_listops

        grammar = Grammar(min_length, max_length, max_depth, max_args, operator_chance)
        generate_listops(root, grammar, (num_train, num_val, num_test), seed=seed, workers=workers)

    def raw_files(self) -> list[Path]:
        """The one file of the split."""
        return [self.find_raw(f"basic_{self.split}.tsv")]

    def cases(self) -> list[Line]:
        """The lines below the header."""
        path = self.raw_files()[0]
        lines = lines_of(path)
        if not lines or lines[0].read() != HEADER:
            raise ValueError(f"{path} must start with the line 'Source<tab>Target'")
        return lines[1:]

    def read_case(self, key: Line) -> Data:
        """One expression."""
        fields = key.read()
        if len(fields) != 2 or fields[1] not in CODES or not fields[1].isdigit():
            raise ValueError("expected an expression, a tab and a digit")
        words = fields[0].split()
        if unknown := [word for word in words if word not in CODES]:
            raise ValueError(f"unknown token '{unknown[0].decode(errors='replace')}'")
        tokens = np.array([c for c in map(CODES.get, words) if c is not None], dtype=np.uint8)
        if np.isin(tokens, OPERATORS).sum() != (tokens == CLOSE).sum():
            raise ValueError("it has not as many ']' as operators")
        if len(tokens) > self.max_length:
            raise ValueError(f"it has {len(tokens)} tokens, more than max_length={self.max_length}")
        return make_case(f"{self.split}_{key.number - 2:06d}", int(fields[1]), tokens)
