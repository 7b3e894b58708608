"""The gin binding that says where KAFT records are.

It stands here and not in `tasks/kaft.py`, so that gin files can be read before SeqIO is imported.
"""

from __future__ import annotations

import gin


@gin.configurable(module="kaft_promot.knowledge")
def kaft_records(
    directory: str | None = None, suffixes: bool | None = None
) -> tuple[str | None, bool | None]:
    """Where the records are and how their targets are written, as gin binds it.

    Args:
      directory: a folder that `kaft-promot augment` wrote.
      suffixes: whether targets announce their source, e.g. " (from context)"; None for what the
        records have (`augment` writes suffixes unless `--no_suffixes`).
    """
    return directory, suffixes
