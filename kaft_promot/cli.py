"""`kaft-promot VERB`: finds the verb, and turns every mistake into one clear line.

Exit status: 0, 2 for a user's mistake, 130 when interrupted, 141 when the reader of the output went
away, 128 + the signal when a run was stopped and saved.
"""

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from kaft_promot import __version__
from kaft_promot.errors import UserError
from kaft_promot.malloc import tune_malloc
from kaft_promot.verbs import VERBS

_ABOUT = (
    "Fine-tune language models that trust the right context (KAFT) and keep what they could do "
    "(ProMoT)."
)


class _Parser(argparse.ArgumentParser):
    """Argparse whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def console() -> int:
    """The command `kaft-promot`: `main` in a process whose malloc is set for training."""
    tune_malloc()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb (default: the process's arguments) and returns the exit status."""
    try:
        _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
        return 0
    except UserError as error:
        # gin appends where in the configuration a call came from
        return _complain(str(error).split("\n  In call to configurable")[0], 2)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on from what was finished", 130)
    except SystemExit as stop:
        if hasattr(stop, "signum"):  # training.Interrupted
            print(f"{stop}; the same command goes on from there", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 0
    except OSError as error:
        if error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        kept = "; what was finished is kept" if error.errno == errno.ENOSPC else ""
        return _complain(f"{place}{os.strerror(error.errno)}{kept}", 2)


def _complain(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


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
    parser = _Parser(
        prog="kaft-promot",
        description=_ABOUT,
        epilog=f"examples:\n{examples}\n\n'kaft-promot VERB --help' explains a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kaft-promot {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
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
