"""`kaft-promot VERB`: finds the verb, and turns every mistake into one clear line.

mistakes.py tells the exit statuses.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence

from kaft_promot import __version__
from kaft_promot.errors import UserError
from kaft_promot.malloc import tune_malloc
from kaft_promot.mistakes import Parser, exit_status
from kaft_promot.verbs import VERBS

_ABOUT = (
    "Fine-tune language models that trust the right context (KAFT) and keep what they could do "
    "(ProMoT)."
)


def console() -> int:
    """The command `kaft-promot`: `main` in a process whose malloc is set for training."""
    tune_malloc()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb (default: the process's arguments) and returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return exit_status(
        lambda: _run(given), "interrupted; the same command goes on from what was finished"
    )


def _run(arguments: list[str]) -> None:
    parser = _parser()
    if not arguments:
        parser.print_help()
        raise UserError("name a verb, for example: kaft-promot quickstart")
    _check_environment()
    bindings: list[str] = []
    if any(verb.uses_gin and verb.name == arguments[0] for verb in VERBS):
        from kaft_promot.gin_config import split_gin_flags

        arguments, bindings = split_gin_flags(arguments)
    options = parser.parse_args(arguments)
    options.bindings = bindings
    _check_processes(arguments[0], options)
    options.run(options)


def _check_environment() -> None:
    """JAX reads its variables when it is imported, and complains of them with a stack trace."""
    devices = os.environ.get("JAX_NUM_CPU_DEVICES", "1")
    if not re.fullmatch("-1|0*[1-9][0-9]*", devices):  # -1 is JAX's own default
        raise UserError(
            f"JAX_NUM_CPU_DEVICES={devices}: must be a number of devices, for example 2 (or unset)"
        )


def _check_processes(verb: str, options: argparse.Namespace) -> None:
    """Only `train` joins processes; started in several, another verb would damage its files."""
    variables = ("KAFT_PROMOT_PROCESS_COUNT", "KAFT_PROMOT_COORDINATOR")
    if options.joins_processes or not any(variable in os.environ for variable in variables):
        return
    from kaft_promot.scale.process import refuse_several  # imports JAX

    refuse_several(verb)


def _parser() -> argparse.ArgumentParser:
    examples = "\n".join(f"  {verb.example}" for verb in VERBS)
    parser = Parser(
        prog="kaft-promot",
        description=_ABOUT,
        epilog=f"examples:\n{examples}\n\n'kaft-promot VERB --help' explains a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kaft-promot {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for verb in VERBS:
        child = verbs.add_parser(
            verb.name,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.\n\n{verb.details}".strip(),
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.add_flags(child)
        child.set_defaults(run=verb.run, joins_processes=verb.joins_processes)
    return parser


if __name__ == "__main__":
    sys.exit(console())
