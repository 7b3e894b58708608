"""Output share: how many outputs on other tasks fall into the target task's format.

Format specialization shows when a tuned model answers everything as it answers its target task
(Wang et al., ICLR 2024, arXiv 2211.00635, section 2: after 300 steps of plain fine-tuning on RTE,
90 % of the outputs on TriviaQA were True or False). What the format is, the target task says:

    register_format("rte", one_of("True", "False"))

A task of free text registers a predicate of its own, such as one that recognises its language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kaft_promot.errors import UserError
from kaft_promot.knowledge.text import normalize_answer

Predicate = Callable[[str], bool]
_FORMATS: dict[str, Predicate] = {}


def register_format(task: str, predicate: Predicate) -> Predicate:
    """Makes known how an output looks that is in the format of `task`'s targets.

    Registering a task again replaces its predicate.
    """
    _FORMATS[task] = predicate
    return predicate


def one_of(*labels: str) -> Predicate:
    """The format of class labels: the output is one of them, after normalisation.

    >>> is_label = one_of("True", "False")
    >>> is_label("true."), is_label("It is true")
    (True, False)
    """
    known = {normalize_answer(label) for label in labels}
    return lambda output: normalize_answer(output) in known


def format_of(task: str) -> Predicate:
    """The predicate of a target task.

    Raises:
      UserError: it has none.
    """
    if task not in _FORMATS:
        known = ", ".join(sorted(_FORMATS)) or "none"
        raise UserError(
            f"target task {task!r} has no format predicate (tasks that have one: {known}): call "
            "kaft_promot.evaluation.output_share.register_format in the module that registers it"
        )
    return _FORMATS[task]


def in_format(outputs: Iterable[str], task: str) -> list[float]:
    """1.0 for each output in the format of `task`'s targets, else 0.0; their mean is the share.

    Raises:
      UserError: the task has no format predicate.
    """
    predicate = format_of(task)
    return [float(predicate(output)) for output in outputs]
