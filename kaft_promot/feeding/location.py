"""The gin bindings that say where public data sets are (apart from the files in `tasks/`, which
need SeqIO).
"""

from __future__ import annotations

import pathlib

import gin

from kaft_promot.errors import UserError


@gin.configurable(module="kaft_promot.feeding")
def superglue_data(directory: str | None = None) -> str | None:
    """The folder that holds SuperGLUE's folders `RTE`, `CB` and `WiC`, as gin binds it:
    `superglue_data.directory = "/data/superglue"`.
    """
    return directory


@gin.configurable(module="kaft_promot.feeding")
def wmt_data(directory: str | None = None) -> str | None:
    """The folder that holds line-aligned translations, as gin binds it:
    `wmt_data.directory = "/data/wmt"`.
    """
    return directory


def bound_folder(binding: str, directory: str | None, holds: str) -> pathlib.Path:
    """The folder that a binding names.

    Args:
      binding: its name, such as `wmt_data.directory`.
      directory: its value.
      holds: what the folder should hold, in words.

    Raises:
      UserError: nothing is bound, or there is no such folder.
    """
    if directory is None:
        raise UserError(
            f"these tasks need the folder that holds {holds}: bind {binding}, "
            f"e.g. --gin.{binding}=\"'/data'\""
        )
    path = pathlib.Path(directory).expanduser()
    if not path.is_dir():
        raise UserError(f"{binding}: there is no folder {path}")
    return path
