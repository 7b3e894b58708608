"""The gin binding that says where mini's training data is (apart from `tasks/mini.py`, which
needs SeqIO).
"""

from __future__ import annotations

import gin


@gin.configurable(module="kaft_promot.mini")
def mini_data(directory: str | None = None) -> str | None:
    """The folder that `python -m kaft_promot.mini.build` wrote, as gin binds it:
    `mini_data.directory = "/data/mini"`.
    """
    return directory
