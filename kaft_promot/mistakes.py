"""What commands make of mistakes: one line that starts with `error:`, and an exit status.

0, 2 for a user's mistake, 130 when interrupted, 141 when the reader of the output went away, 128 +
the signal when a run was stopped and saved.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from kaft_promot.errors import UserError


class Parser(argparse.ArgumentParser):
    """Argparse whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def at_least_one(text: str) -> int:
    """The `type` of a flag that counts something."""
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count}: must be 1 or more")
    return count


def exit_status(work: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Does `work`, prints what a user can mend as one line, and returns the exit status.

    Args:
        work: the whole command.
        interrupted: what to say when the user stops it.
    """
    try:
        work()
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
        return _complain(interrupted, 130)
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
