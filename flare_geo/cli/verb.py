"""A verb of `flare-geo`: a function; its signature is the options, its docstring the help."""

import errno
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WITHOUT_VALUE = re.compile(r"-h|--help|--print_config|.*\.help|.*=.*")


@dataclass(frozen=True)
class Verb:
    """What `flare-geo NAME` calls. Every option takes one value, and `-o` is short for `--out`.

    Args:
        function: its parameters are the options, its docstring describes them.
        positional: the parameters that a user may give without a flag, in this order; the last one
            takes all words that are left if its name ends with "+".
        yaml: the parameter that receives all options as YAML, and is no option itself.
    """

    function: Callable[..., Any]
    positional: tuple[str, ...] = ()
    yaml: str | None = None

    def run(self, name: str, arguments: Sequence[str]) -> int:
        """Parse the arguments and call the function; an error becomes one line.

        Returns:
            The exit status: 0, 1 for a failure, 2 for wrong usage.
        """
        from jsonargparse import ArgumentError, ArgumentParser

        parser = ArgumentParser(
            prog=f"flare-geo {name}",
            usage=self._usage(name),
            description=inspect.cleandoc(self.function.__doc__ or "").split("\n\n")[0],
            exit_on_error=False,
            allow_abbrev=False,  # train has --devices: --device would be another option in disguise
        )
        parser.add_argument(
            "--config", action="config", help="A YAML file with any of the options."
        )
        hidden: set[str | int] = {self.yaml} if self.yaml else set()
        parser.add_function_arguments(self.function, as_group=False, skip=hidden)
        # A default that is a class is given as if on the command line. Another class in its place
        # then has its own defaults, and not those of this one where names agree.
        defaults = {k: p.default for k, p in inspect.signature(self.function).parameters.items()}
        classes = {
            k: v for k, v in defaults.items() if inspect.isclass(v) and v is not inspect._empty
        }
        parser.set_defaults(dict.fromkeys(classes))
        chosen = [f"--{key}={cls.__module__}.{cls.__qualname__}" for key, cls in classes.items()]
        try:
            config = parser.parse_args([*chosen, *self._flagged(arguments)])
        except ArgumentError as error:
            return fail(f"{name}: {_short(str(error))}", 2)
        resolved = {self.yaml: parser.dump(config)} if self.yaml else {}
        try:
            options = vars(parser.instantiate(config))
            options.pop("config", None)
            self.function(**options, **resolved)
        except (ImportError, ValueError, OSError) as error:
            return fail(f"{name}: {_one_line(error)}", 1)
        return 0

    def _usage(self, name: str) -> str | None:
        if not self.positional:
            return None
        parameters = inspect.signature(self.function).parameters
        words = []
        for each in self.positional:
            word = each.rstrip("+").upper() + ("..." if each.endswith("+") else "")
            required = parameters[each.rstrip("+")].default is inspect.Parameter.empty
            words.append(word if required else f"[{word}]")
        return f"flare-geo {name} {' '.join(words)} [options]"

    def _flagged(self, arguments: Sequence[str]) -> Iterator[str]:
        """The arguments, with a flag before each word that came without one."""
        names, words = list(self.positional), iter(arguments)
        for word in words:
            if word.startswith("-"):
                yield "--out" if word == "-o" else word
                yield from () if WITHOUT_VALUE.fullmatch(word) else islice(words, 1)
            elif names:
                yield f"--{names[0]}"
                yield word
                if not names[0].endswith("+"):
                    del names[0]
            else:
                yield word  # which the parser refuses


Verbs = Mapping[str, "Verb | Verbs"]
"""Verbs by name; where a name has verbs of its own, as `flare-geo data` has, a mapping again."""


def fail(message: str, status: int) -> int:
    """Say in one line what is wrong; returns the status."""
    print(f"flare-geo {message}", file=sys.stderr)
    return status


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        text += "; nothing that was saved before is lost, free some space and run the command again"
    return text


def _short(message: str) -> str:
    """What a user needs of a message of jsonargparse, on one line."""
    text = " ".join(message.split())
    unknown = re.search(r"Option '([^']+)' is not accepted", text)
    if unknown:
        where = re.search(r'(?:Parser key|key) "([^"]+)"', text)
        name = f"{where[1]}.{unknown[1]}" if where else unknown[1]
        return f"unknown option '{name}'; --help and --data.help, --model.help list what there is"
    wrong = re.search(
        r'key "([^"]+)":.*? class: (.*?)\.* (?:Got|- Type|Given).*Given value: (.*)', text
    )
    if wrong:  # the first of several reasons why a class does not fit
        missing = "; is its folder on PYTHONPATH?" if "No module named" in wrong[2] else ""
        return f"{wrong[1]} {wrong[3]}: {wrong[2]}{missing}"
    return text
