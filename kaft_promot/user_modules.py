"""Modules of the user's own, which register tasks or suites when they are imported."""

from __future__ import annotations

import importlib
import os
import sys

from kaft_promot.errors import UserError


def import_user_module(module: str, setting: str) -> None:
    """Imports a user's module, also from the current folder.

    Args:
      module: its dotted name.
      setting: what names it, for the message, such as `MIXTURE_OR_TASK_MODULE`.

    Raises:
      UserError: there is no such module, or it cannot be imported.
    """
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{module}.".startswith(f"{missing}."):
            raise UserError(
                f"there is no module {module!r} ({setting}): run from the folder that holds it, "
                "or install it"
            ) from error
        raise UserError(f"module {module!r} needs {missing!r}, which is not installed") from error
    except Exception as error:
        raise UserError(
            f"module {module!r} does not import: {type(error).__name__}: {error}"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
