"""Entry point of `flare-geo`: finds the verb, reads its options, says errors in one line."""

import errno
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

VERBS = {
    "train": "train a surrogate from a YAML and flags",
    "evaluate": "errors of a trained run on a split, case by case",
    "render": "pictures of truth, prediction and error on the meshes",
    "predict": "fields on a mesh file, written onto the same mesh",
    "inspect": "where the latents of a run look, and the spectrum of its mixing",
    "report": "one HTML page about a run",
    "data": "generate, download, inspect, convert or filter data sets",
}
USAGE = "usage: flare-geo VERB [options]\n\nverbs:\n" + "\n".join(
    f"  {verb:10} {text}" for verb, text in VERBS.items()
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
EPILOGUE = "\n\n`flare-geo VERB --help` lists the options of a verb."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for a failure, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["--version"], ["version"]):
        from flare_geo import __version__

        print(f"flare-geo {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE + EPILOGUE)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        return _fail(f"no verb '{verb}'; there are {', '.join(VERBS)}", 2)
    try:
        module = importlib.import_module(f"flare_geo.cli.{verb}")
    except ModuleNotFoundError as error:
        return _fail(f"{verb} needs {error.name}: pip install 'flare-geo[train,viz]'", 1)
    if hasattr(module, "choose"):  # a verb with verbs of its own
        try:
            function, verb, rest = module.choose(rest)
        except ValueError as error:
            return _fail(str(error), 2)
    else:
        function = getattr(module, verb)
    return run_function(function, verb, rest)


def run_function(function: Callable[..., Any], verb: str, arguments: Sequence[str]) -> int:
    """Parse `arguments` by the signature of `function`, call it, turn errors into one line."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(
        prog=f"flare-geo {verb}",
        description=inspect.cleandoc(function.__doc__ or "").split("\n\n")[0],
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of the options")
    signature = inspect.signature(function).parameters
    parameters = list(signature)
    arguments = ["--out" if argument == "-o" else argument for argument in arguments]
    optional = "mesh" in signature and signature["mesh"].default is None
    if optional and len(arguments) > 1 and not arguments[1].startswith("-"):
        arguments.insert(1, "--mesh")
    wants_yaml = "resolved" in parameters
    parser.add_function_arguments(
        function,
        as_positional=parameters[0] == "run",
        skip={"resolved"} if wants_yaml else set(),
    )
    # A class given as if on the command line, and not as the default: then another one in its
    # place has the defaults of its own, and not those of this one where names agree.
    defaults = {name: parameter.default for name, parameter in signature.items()}
    classes = {
        name: default
        for name, default in defaults.items()
        if inspect.isclass(default) and default is not inspect.Parameter.empty
    }
    parser.set_defaults(dict.fromkeys(classes))
    chosen = [f"--{name}={cls.__module__}.{cls.__qualname__}" for name, cls in classes.items()]
    try:
        config = parser.parse_args([*chosen, *arguments])
    except ArgumentError as error:
        return _fail(f"{verb}: {_short(str(error))}", 2)
    resolved = {"resolved": parser.dump(config)} if wants_yaml else {}
    try:
        options = vars(parser.instantiate(config))
        options.pop("config", None)
        function(**options, **resolved)
    except ImportError as error:
        return _fail(f"{verb}: {error}", 1)
    except (ValueError, OSError) as error:
        return _fail(f"{verb}: {_one_line(error)}", 1)
    return 0


def _fail(message: str, status: int) -> int:
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
    return text
