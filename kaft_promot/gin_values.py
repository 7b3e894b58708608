"""Are the values of a gin configuration what their functions take?

gin hands over whatever stands in a file or flag: `--gin.TRAIN_STEPS=2.5` would end as a trace in
the middle of a run. What a value must be is read off the annotation of the parameter that gets it
(numbers, switches, tuples and mappings of numbers); `_RANGES` adds from where to where.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import gin

from kaft_promot.errors import UserError

# function.parameter -> (the least value, the value that all must be below or None). What functions
# refuse themselves, in one line and before a run loads anything, needs no entry; one here lets the
# message name the macro, which is what users set.
_RANGES: Mapping[str, tuple[float | None, float | None]] = {
    "CheckpointConfig.keep": (1, None),
    "CheckpointConfig.period": (1, None),
    "DatasetConfig.batch_size": (1, None),
    "DatasetConfig.num_epochs": (1, None),
    "DatasetConfig.prefetch": (0, None),
    "DatasetConfig.seed": (0, 2**32),
    "Lora.rank": (1, None),
    "Predictor.batch_size": (1, None),
    "Predictor.max_decode_length": (1, None),
    "Predictor.max_input_length": (1, None),
    "SoftPrompts.length": (1, None),
    "T5Config.dropout_rate": (0, 1),
    "train.dropout_rate": (0, 1),
    "train.eval_period": (1, None),
    "train.eval_steps": (1, None),
    "train.label_smoothing": (0, 1),
    "train.num_microbatches": (1, None),
    "train.random_seed": (0, 2**32),
    "train.stats_period": (1, None),
    "train.total_steps": (1, None),
    "train.z_loss": (0, None),
}
_PACKAGE = "kaft_promot"  # whose annotations are promises
# Annotations whose values no gin file writes down: they come by reference only.
_REFERENCES = frozenset(("Schedule",))
_SEQUENCES = {"tuple[int, ...]": "tuple", "Sequence[int]": "tuple", "Mapping[str, int]": "mapping"}
_EXAMPLES = {"tuple": "(0, 1)", "mapping": "{'inputs': 512, 'targets': 128}"}


def check_values(defined: Mapping[str, str]) -> None:
    """Refuses values that their functions cannot take.

    Args:
      defined: macros and bindings that the user set -> where; other values are named without place.

    Raises:
      UserError: for the first one, naming the binding, the parameter, and what to write.
    """
    for (scope, selector), values in gin.config._CONFIG.items():
        found = gin.config._REGISTRY.get_match(selector)
        if found is None or not found.wrapped.__module__.startswith(_PACKAGE):
            continue
        parameters = inspect.signature(found.wrapped).parameters
        function = selector.rsplit(".", 1)[-1]
        for name, value in values.items():
            if name not in parameters:
                continue  # it takes any
            target = f"{function}.{name}"
            wanted = _wanted(target, parameters[name])
            macro, literal = _literal(value)
            if wanted and not isinstance(literal, _NotWritten) and not _fits(wanted, literal):
                binding = macro or (f"{scope}/{target}" if scope else target)
                where = defined.get(binding, "")
                raise UserError(_complaint(binding, literal, where, target, wanted))


class _NotWritten:
    """The value of a reference: only calling it would tell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What a parameter takes.

    Attributes:
      kinds: of 'int', 'float', 'bool', 'str', 'tuple', 'mapping'.
      optional: whether it may be None.
      low, high: of numbers; None for no bound.
      default: the parameter's, to show as an example.
    """

    kinds: set[str]
    optional: bool
    low: float | None
    high: float | None
    default: Any

    def __str__(self) -> str:
        """In words: `a whole number of at least 1`."""
        if self.kinds == {"bool"}:
            words = "True or False"
        elif "tuple" in self.kinds:
            words = "a tuple of whole numbers"
        elif "mapping" in self.kinds:
            words = "a mapping from names to whole numbers"
        else:
            words = "a number" if "float" in self.kinds else "a whole number"
        if self.low is not None:
            words += f" of at least {self.low}" if self.high is None else f" from {self.low}"
        if self.high is not None:
            words += f" to below {self.high}"
        return f"{words}, or None" if self.optional else words


def _wanted(target: str, parameter: inspect.Parameter) -> _Wanted | None:
    """What an annotation says, None where it says nothing that can be checked."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    parts = {part.strip().removeprefix("collections.abc.") for part in text.split(" | ")}
    kinds = {_SEQUENCES.get(part, part) for part in parts - {"None"} - _REFERENCES}
    if not kinds <= {"int", "float", "bool", "str", "tuple", "mapping"} or kinds <= {"str"}:
        return None
    optional = "None" in parts or parameter.default is None
    low, high = _RANGES.get(target, (None, None))
    return _Wanted(kinds=kinds, optional=optional, low=low, high=high, default=parameter.default)


def _literal(value: Any) -> tuple[str, Any]:
    """(the macro that holds a value, or '', and the value), through macros that name macros."""
    macro = ""
    while isinstance(value, gin.config.ConfigurableReference):
        if value.configurable.selector != "gin.macro":
            return macro, _NotWritten()
        macro = "/".join(value.scopes)
        value = gin.config._CONFIG.get((macro, "gin.macro"), {}).get("value", _NotWritten())
    return macro, value


def _fits(wanted: _Wanted, value: Any) -> bool:
    if value is None:
        return wanted.optional
    if isinstance(value, str):
        return "str" in wanted.kinds
    if isinstance(value, bool):
        return "bool" in wanted.kinds
    if isinstance(value, (tuple, list)):
        whole = all(_is_whole(x) or isinstance(x, gin.config.ConfigurableReference) for x in value)
        return "tuple" in wanted.kinds and whole
    if isinstance(value, dict):
        return "mapping" in wanted.kinds  # what it must hold, its function says
    if isinstance(value, (int, float)):
        if "bool" in wanted.kinds and value in (0, 1):
            return True
        if "float" not in wanted.kinds and not ("int" in wanted.kinds and _is_whole(value)):
            return False
        above = wanted.low is None or value >= wanted.low
        return above and (wanted.high is None or value < wanted.high)
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _complaint(binding: str, value: Any, where: str, target: str, wanted: _Wanted) -> str:
    said = where if where.startswith("--") else f"{binding} = {value!r}"
    place = f"{where}: " if where and said != where else ""
    return f"{place}{said}: {target} must be {wanted}; write {_example(binding, value, wanted)}"


def _example(binding: str, value: Any, wanted: _Wanted) -> str:
    """A flag that would do, as near to what was meant as can be told."""
    kind = next((kind for kind in _EXAMPLES if kind in wanted.kinds), None)
    if kind:
        meant: Any = _EXAMPLES[kind]
        if kind == "tuple" and _is_whole(value):
            meant = f"({value},)"
        return f'--gin.{binding}="{meant}", for example'
    candidates = [value, wanted.default, 100, 0.1, wanted.low, True]
    for candidate in candidates:
        try:
            number = candidate if isinstance(candidate, bool) else float(candidate)
        except (TypeError, ValueError):
            continue
        if "bool" not in wanted.kinds and number == number and abs(number) < 1e15:
            number = round(number) if "float" not in wanted.kinds else number
        if _fits(wanted, number):
            return f"--gin.{binding}={number}, for example"
    return f"--gin.{binding}=..."
