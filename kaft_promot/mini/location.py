"""The gin bindings that say where mini's data is (apart from the files in `tasks/`, which need
SeqIO).
"""

from __future__ import annotations

import gin


@gin.configurable(module="kaft_promot.mini")
def mini_data(directory: str | None = None) -> str | None:
    """The folder that `python -m kaft_promot.mini.build` wrote, as gin binds it:
    `mini_data.directory = "/data/mini"`.
    """
    return directory


@gin.configurable(module="kaft_promot.mini")
def mini_claims_data(facts: str | None = None) -> str | None:
    """The facts that the task `mini_claims` is about, as gin binds their file:
    `mini_claims_data.facts = "/data/mini/facts.jsonl.gz"`. None for the shipped ones.
    """
    return facts
