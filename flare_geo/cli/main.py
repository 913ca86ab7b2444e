"""Entry point of `flare-geo`: the list of verbs, each of which is imported when it is called."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flare_geo.cli.verb import Verb, Verbs

VERBS = {
    "train": "train a surrogate from a YAML file and flags",
    "evaluate": "print the errors of a trained run on a split, case by case",
    "render": "draw truth, prediction and error on the meshes",
    "predict": "predict fields on mesh files and write them onto the same meshes",
    "inspect": "draw where the latents of a run look, and the spectrum of its mixing",
    "report": "write one HTML page about a run",
    "data": "generate, download, inspect, convert or filter data sets",
}
"""Each stands in a module of its name, as `VERB`."""

USAGE = (
    "usage: flare-geo VERB [options]\n\nverbs:\n"
    + "\n".join(f"  {verb:10} {text}" for verb, text in VERBS.items())
    + "\n\n`flare-geo VERB --help` lists the options of a verb."
)
HELP = ("-h", "--help", "help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for a failure, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["--version"], ["version"]):
        from flare_geo import __version__

        print(f"flare-geo {__version__}")
        return 0
    if not arguments or arguments[0] in HELP:
        print(USAGE)
        return 0
    from flare_geo.cli.verb import fail  # here, so that --help stays quick

    name, *rest = arguments
    if name not in VERBS:
        return fail(f"no verb '{name}'; there are {', '.join(VERBS)}", 2)
    try:
        verb: Verb | Verbs = importlib.import_module(f"flare_geo.cli.{name}").VERB
    except ModuleNotFoundError as error:
        return fail(f"{name} needs {error.name}: pip install 'flare-geo[train,viz]'", 1)
    while isinstance(verb, Mapping):
        if rest and rest[0] in HELP:
            print(f"usage: flare-geo {name} {{{','.join(verb)}}} [options]")
            return 0
        if not rest or rest[0] not in verb:
            unknown = f"there is no '{rest[0]}', " if rest else ""
            return fail(f"{name}: {unknown}choose one of {', '.join(verb)}", 2)
        verb, name, rest = verb[rest[0]], f"{name} {rest[0]}", rest[1:]
    return verb.run(name, rest)
