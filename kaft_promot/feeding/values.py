"""What a Python value is, as JSON that is the same in every process: functions, objects, data.

Equal texts must mean equal values, since a digest of them is the key of a cache: where a value
cannot be told, `UnknownValue` is raised rather than something left out.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_PLAIN = (str, int, float, complex, bytes, type(None), type(...), range)  # `repr` tells them
_MOST, _DEEPEST = 1_000_000, 60  # objects that refer to each other have endless paths
_FUNCTIONS = (types.FunctionType, staticmethod, classmethod, property)
_STANDARD = sysconfig.get_path("stdlib")


class UnknownValue(Exception):
    """A value of which nothing tells what it is; the message names its type."""


def value_fingerprint(value: Any, of: Callable[[Any], Any] = lambda value: None) -> Any:
    """A value as JSON: of a function its code, of an object what a copy of it would be made from.

    Functions are told by their code, defaults and captured values, without the globals that they
    read; classes by their name, their methods and all data that their bodies hold, those of Python
    itself by their name and their methods' code. The order of a dict is told, that of a set is not.

    Args:
        value: any.
        of: tells values of other libraries: what stands for one, or None where it has no word.

    Raises:
        UnknownValue: it is, or holds, something that cannot be told, such as an open file.
    """
    return _Telling(of).value(value, ())


class _Telling:
    """One `value_fingerprint`; `within` are the values that hold the one in question."""

    def __init__(self, of: Callable[[Any], Any]):
        self._of, self._told = of, 0

    def value(self, value: Any, within: tuple[Any, ...]) -> Any:
        if type(value) in _PLAIN or isinstance(value, bool):
            return repr(value)
        if any(value is outer for outer in within):
            if isinstance(value, type):
                return ["circle", value.__module__, value.__qualname__]
            return "circle"
        self._told += 1
        if self._told > _MOST or len(within) > _DEEPEST:
            raise UnknownValue(f"a value of type {type(value).__qualname__} holds too much to tell")
        within = (*within, value)
        own = self._of(value)
        if own is not None:
            return self.value(own, within)
        if isinstance(value, types.FunctionType):
            return self._function(value, within)
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return ["partial", *(self.value(part, within) for part in parts)]
        if isinstance(value, type):
            return self._class(value, within)
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, types.MethodType):
            return ["method", *(self.value(v, within) for v in (value.__func__, value.__self__))]
        if isinstance(value, types.BuiltinFunctionType):
            return ["builtin", value.__qualname__, self.value(value.__self__, within)]
        return self._data(value, within)

    def _data(self, value: Any, within: tuple[Any, ...]) -> Any:
        kind: Any = type(value).__qualname__
        if not _is_pythons(type(value)) and isinstance(value, Mapping | set | frozenset):
            # One of a user's own may hold more than its items, and behave in another way.
            kind = [self.value(v, within) for v in (type(value), getattr(value, "__dict__", None))]
        if isinstance(value, set | frozenset):
            return [kind, *sorted(json.dumps(self.value(v, within)) for v in value)]
        if isinstance(value, Mapping):
            # In their order: a preprocessor may join its fields one after the other.
            return [kind, *([self.value(v, within) for v in item] for item in value.items())]
        if type(value) in (tuple, list):
            return [kind, *(self.value(v, within) for v in value)]
        if isinstance(value, re.Pattern):
            return [kind, repr(value.pattern), value.flags]
        if isinstance(value, pathlib.PurePath):
            return [kind, str(value)]
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return [kind, repr(value.dtype), value.shape, digest]
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
            fields |= getattr(value, "__dict__", {})  # what `__post_init__` sets is no field
            return [self.value(type(value), within), self.value(fields, within)]
        return self._object(value, within)

    def _object(self, value: Any, within: tuple[Any, ...]) -> Any:
        """By what pickling would keep of it, which fails for what lives outside of Python."""
        registered = copyreg.dispatch_table.get(type(value))
        try:
            made_by = registered(value) if registered else value.__reduce_ex__(2)
        except Exception as e:  # each library refuses in its own way
            raise UnknownValue(f"a value of type {type(value).__qualname__} cannot be told") from e
        if isinstance(made_by, str):  # a global; what it wraps tells more (functools.cache)
            names = [getattr(value, "__module__", ""), made_by]
            return ["global", *names, self.value(getattr(value, "__dict__", {}), within)]
        function, arguments, *rest = made_by
        items = [None if part is None else list(part) for part in rest[1:3]]
        parts = [type(value), function, arguments, *rest[:1], *items]
        return ["object", *(self.value(part, within) for part in parts)]

    def _function(self, function: types.FunctionType, within: tuple[Any, ...]) -> Any:
        cells: list[Any] = []
        for cell in function.__closure__ or ():
            try:
                cells.append(self.value(cell.cell_contents, within))
            except ValueError:  # a cell that is not filled yet
                cells.append("empty")
        defaults = (function.__defaults__, function.__kwdefaults__)
        return [
            function.__qualname__,
            self._code(function.__code__, within),
            [self.value(default, within) for default in defaults],
            # Attributes hold what `functools.wraps` wrapped.
            self.value(function.__dict__, within),
            *cells,
        ]

    def _code(self, code: types.CodeType, within: tuple[Any, ...]) -> list[Any]:
        constants = [
            self._code(c, within) if isinstance(c, types.CodeType) else self.value(c, within)
            for c in code.co_consts
        ]
        return [code.co_code.hex(), constants, list(code.co_names)]

    def _class(self, kind: type, within: tuple[Any, ...]) -> Any:
        # With its bases: methods that call `super()` hold the class that they are written in.
        within = (*within, *kind.__mro__)
        parts: list[Any] = []
        for base in kind.__mro__:
            own = self._of(base)
            if own is not None:
                members = [self.value(own, within)]
            else:
                members = [
                    [name, *self._member(member, within, _is_pythons(base))]
                    for name, member in sorted(vars(base).items())
                    if _decides(base, name, member)
                ]
            parts.append([base.__module__, base.__qualname__, members])
        return parts

    def _member(self, member: Any, within: tuple[Any, ...], pythons: bool) -> list[Any]:
        if pythons:  # its data is machinery, such as locks and registries
            code = _innermost_code(member) if isinstance(member, _FUNCTIONS) else None
            plain = repr(member) if type(member) in _PLAIN else None
            return [plain if code is None else self._code(code, within)]
        if isinstance(member, property):
            member = (member.fget, member.fset, member.fdel)
        elif isinstance(member, functools.cached_property):
            member = member.func  # beside it stands a lock
        elif isinstance(member, staticmethod | classmethod):
            return [type(member).__name__, self.value(member.__func__, within)]
        return [self.value(member, within)]


def _decides(base: type, name: str, member: Any) -> bool:
    """Whether a class's member may decide what its objects do, and is not Python's note on it."""
    if name == "_abc_impl" or getattr(member, "__objclass__", None) is base:  # slots, C methods
        return False
    return isinstance(member, _FUNCTIONS) or not name.startswith("__") or callable(member)


def _is_pythons(kind: type) -> bool:
    """Whether a class is built in or of the standard library, rather than of a file named alike."""
    if kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is None or (file.startswith(_STANDARD) and "site-packages" not in file)


def _innermost_code(member: Any) -> types.CodeType | None:
    """The code of a method, behind its decorators; None if it is none of Python's."""
    member = getattr(member, "fget", None) or getattr(member, "__func__", member)
    while hasattr(member, "__wrapped__"):
        member = member.__wrapped__
    return getattr(member, "__code__", None)
