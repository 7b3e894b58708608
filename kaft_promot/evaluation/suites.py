"""Suites: named lists of evaluation tasks, registered by the files in `eval/` and found by name.

A user adds a suite by adding a file to `eval/` or by naming a module of their own; either registers
on import:

    suites.register(Suite(name="mine", description="...", tasks=(EvalTask(...),)))
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.user_modules import import_user_module

MAIN_SCORE = "exact_match"  # of rows that name no other

_DECLARATIONS = "kaft_promot.eval"
_REGISTRY: dict[str, Suite] = {}


@dataclass(frozen=True, kw_only=True)
class EvalExample:
    """One thing to ask the model.

    Attributes:
      example_id: unique within an arm, over all tasks of all suites that share a rows file.
      question_id: shared by the examples that ask the same question; intervals keep them together.
      prompt: the text that the model is given.
      fields: what the sample row keeps for measuring and for showing (JSON values).
      read: raw output -> further fields of the row, of what depends on the example too; None for
        none.
      scored: a text whose log-likelihood as the answer to the prompt the row keeps, as
        `log_likelihood`; None for none.
    """

    example_id: str
    question_id: str
    prompt: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[str], Mapping[str, Any]] | None = None
    scored: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvalTask:
    """One task: where its examples come from, how an output is read, how it scores.

    Attributes:
      name: as it stands in the rows.
      examples: the suite's loaded data -> examples.
      read: raw output -> fields of the row; must hold `answer`, and `source` where tasks have it.
      score: row -> scores by name; a score that does not apply is absent.
      main: which of the scores, a number from 0 to 1, arms are compared by in means over tasks
        (`retention`). A row's own `main_score`, from `read`, goes before it.
    """

    name: str
    examples: Callable[[Any], Iterable[EvalExample]]
    read: Callable[[str], Mapping[str, Any]]
    score: Callable[[Mapping[str, Any]], Mapping[str, float]]
    main: str = MAIN_SCORE


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A named list of evaluation tasks.

    Attributes:
      name: as users ask for it.
      description: what it measures, in one sentence.
      tasks: in the order in which they are reported.
      load: what the user gives (a path, for example) -> what the tasks' `examples` take.
      needs_data: whether the user must give something; otherwise `load` gets None.
    """

    name: str
    description: str
    tasks: tuple[EvalTask, ...]
    load: Callable[[Any], Any] = lambda data: data
    needs_data: bool = True


def register(suite: Suite) -> Suite:
    """Makes a suite known by its name; registering the same name again replaces it."""
    _REGISTRY[suite.name] = suite
    return suite


def get(name: str, module: str | None = None) -> Suite:
    """The suite of that name.

    Args:
      name: as registered.
      module: a module of the user's own that registers suites; imported first, also from the
        current folder.

    Raises:
      UserError: the module cannot be imported, or no such suite (with the nearest names).
    """
    if module:
        import_user_module(module, "SUITE_MODULE, IN_CONTEXT_MODULE")
    if name not in _REGISTRY:
        _import_declarations()
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(name, _REGISTRY, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names())}"
    raise UserError(f"no evaluation suite is called {name!r}; {hint}")


def names() -> list[str]:
    """Names of all suites, sorted."""
    _import_declarations()
    return sorted(_REGISTRY)


def _import_declarations() -> None:
    """Imports every file of `eval/`, which registers what it declares."""
    package = importlib.import_module(_DECLARATIONS)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{_DECLARATIONS}.{module.name}")
