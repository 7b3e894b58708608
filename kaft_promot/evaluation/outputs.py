"""Outputs made comparable: what the model says beside its answer is cut off.

The rules are those of Wang et al. (ICLR 2024, arXiv 2211.00635) for pretrained models that were
never taught where an answer ends.
"""

from __future__ import annotations

_OPENS, _CLOSES = "<extra_id_0>", "<extra_id_1>"


def clean_output(output: str, prefix: str = "") -> str:
    """The answer in an output.

    A span-corruption model writes it between `<extra_id_0>` and `<extra_id_1>`. And a model that
    has seen examples in its prompt may go on with examples of its own: the output ends at the
    second occurrence of the task's prefix. The first one is the question's: it stands in the
    prompt, or at the beginning of an output that repeats the question.

    Args:
      output: what the model wrote.
      prefix: what every input of the task has, such as "Translate English to French:"; empty where
        there is nothing of the kind.

    >>> clean_output("<extra_id_0> True <extra_id_1> or so")
    'True'
    >>> clean_output("Rome Q: What is red? A:", "Q:")
    'Rome'
    >>> clean_output("Q: Where? A: Rome Q: What is red?", "Q:")
    'Q: Where? A: Rome'
    """
    before, opens, after = output.partition(_OPENS)
    text = after if opens else before
    text = text.partition(_CLOSES)[0].strip()
    if prefix:
        further = text.find(prefix, len(prefix) if text.startswith(prefix) else 0)
        text = text if further < 0 else text[:further]
    return text.strip()
