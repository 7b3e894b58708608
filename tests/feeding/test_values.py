"""Values as JSON: other values are other texts, equal ones the same text in every process."""

import abc
import collections
import dataclasses
import enum
import fractions
import functools
import json
import logging
import operator
import os
import pathlib
import random
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from kaft_promot.feeding.values import UnknownValue, value_fingerprint


def told(value) -> str:
    return json.dumps(value_fingerprint(value))


def holding(value):
    """A function that holds a value."""
    return lambda row: row and value


def keyword(prefix):
    def select(row, *, prefix=prefix):
        return prefix + row

    return select


def default(prefix):
    def select(row, prefix=prefix):
        return prefix + row

    return select


@dataclasses.dataclass
class Settings:
    name: str
    kinds: frozenset = frozenset()


@dataclasses.dataclass
class Initial:
    name: dataclasses.InitVar[str]

    def __post_init__(self, name):
        self.kept = name


class Table(dict):
    """A dict that holds a text beside its items."""

    def __init__(self, text):
        super().__init__(key=1)
        self.text = text


class Prefix:
    """A preprocessor as an object."""

    def __init__(self, prefix):
        self.prefix = prefix

    def __call__(self, row):
        return self.prefix + row

    def method(self, row):
        return self.prefix + row


class Slotted:
    __slots__ = ("prefix",)

    def __init__(self, prefix):
        self.prefix = prefix


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def prefix_class(suffix):
    """Two classes of one name, with other methods."""

    class Made:
        def __call__(self, row):
            return row + "a" if suffix == "a" else row

    class Other:
        def __call__(self, row):
            return row + "b"

    Other.__name__, Other.__qualname__ = Made.__name__, Made.__qualname__
    return Made() if suffix == "a" else Other()


def with_member(member):
    """An object whose class holds a value beside its methods."""
    return type("Made", (Prefix,), {"setting": member})("c")


def with_method(text):
    """An object whose method has captured a value."""

    class Made(Prefix):
        def __call__(self, row):
            return super().__call__(row) + text

    return Made("c")


def with_default(text):
    class Made:
        def __call__(self, row, after=text):
            return row + after

    return Made()


def with_setter(function):
    """An object with a property of which only the setter differs."""
    return with_member(property(double, lambda self, value: function(value)))


def double(row):
    return row * 2


def halve(row):
    return row / 2


# Makes a value of a kind from "a" or "b".
KINDS = {
    "keyword default": keyword,
    "default": default,
    "closure": holding,
    "partial": lambda x: functools.partial(double, x),
    "partial keyword": lambda x: functools.partial(double, row=x),
    "set": lambda x: {x, "alpha", "beta", "gamma", "delta"},
    "frozenset": lambda x: frozenset((x, ("alpha", 1), "beta")),
    "list of sets": lambda x: [{x, "alpha"}, {"beta", "gamma"}],
    "pattern": lambda x: re.compile(x),
    "flags": lambda x: re.compile("c", re.I if x == "a" else re.M),
    "path": lambda x: pathlib.Path("/data") / x,
    "array": lambda x: np.array([1, 2, ord(x)]),
    "shape": lambda x: np.zeros((2, 3) if x == "a" else (3, 2)),
    "dtype": lambda x: np.zeros(4, np.int32 if x == "a" else np.uint32),
    "objects": lambda x: np.array([x, None], object),
    "scalar": lambda x: np.float32(ord(x)),
    "dataclass": lambda x: Settings(x),
    "no field": Initial,
    "a dict's attribute": Table,
    "a dict's class": lambda x: type("Made", (dict,), {"setting": (x,)})(key=1),
    "a set's class": lambda x: type("Made", (set,), {"setting": (x,)})([1]),
    "field": lambda x: Settings("c", frozenset((x, "alpha", "beta"))),
    "dict": lambda x: {"key": {x, "alpha"}},
    "keys": lambda x: {1: "c", x: "d"},
    "mapping": lambda x: collections.ChainMap({x: 1}),
    "tuple": lambda x: collections.namedtuple("Pair", "one two")(x, 1),
    "deque": lambda x: collections.deque([x]),
    "enum": lambda x: Colour.RED if x == "a" else Colour.BLUE,
    "fraction": lambda x: fractions.Fraction(1, ord(x)),
    "callable object": Prefix,
    "slots": Slotted,
    "bound method": lambda x: Prefix(x).method,
    "bound builtin": lambda x: x.join,
    "method of a type": lambda x: str.upper if x == "a" else str.lower,
    "getter": lambda x: operator.itemgetter(x),
    "ufunc": lambda x: np.log if x == "a" else np.exp,
    "class": lambda x: Prefix if x == "a" else Slotted,
    "a class's code": prefix_class,
    "order": lambda x: {"c": 1, "d": 2} if x == "a" else {"d": 2, "c": 1},
    "order in a partial": lambda x: functools.partial(
        double, row={"c": 1, "d": 2} if x == "a" else {"d": 2, "c": 1}
    ),
    "a class's text": with_member,
    "a class's bool": lambda x: with_member(x == "a"),
    "a class's tuple": lambda x: with_member((x, 1)),
    "a class's list": lambda x: with_member([x, 1]),
    "a class's dict": lambda x: with_member({"key": x}),
    "a class's set": lambda x: with_member({x, "alpha", "beta"}),
    "a class's object": lambda x: with_member(Prefix(x)),
    "a class's class": lambda x: with_member(Prefix if x == "a" else Slotted),
    "a class's partial": lambda x: with_member(functools.partial(double, x)),
    "a class's static partial": lambda x: with_member(staticmethod(functools.partial(double, x))),
    "a class's builtin": lambda x: with_member(str.upper if x == "a" else str.lower),
    "a class's base": lambda x: with_member(Prefix if x == "a" else object),
    "a cached property": lambda x: with_member(
        functools.cached_property(double if x == "a" else halve)
    ),
    "a setter": lambda x: with_setter(double if x == "a" else halve),
    "a method's closure": with_method,
    "a method's default": with_default,
    "static or not": lambda x: with_member(double if x == "a" else staticmethod(double)),
    "cached": lambda x: functools.cache(double if x == "a" else halve),
    "type": lambda x: (lambda row: row == 1) if x == "a" else (lambda row: row == True),  # noqa: E712
    "constant": lambda x: (
        (lambda row: row in {"alpha", "beta", "gamma"})
        if x == "a"
        else (lambda row: row in {"alpha", "beta", "delta"})
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_are_told_apart(kind) -> None:
    make = KINDS[kind]
    assert told(holding(make("a"))) == told(holding(make("a"))) != told(holding(make("b")))


def test_every_process_tells_the_same() -> None:
    """Python's hashes of text, and so the order of sets, are others in each process."""
    program = (
        "import json, test_values as t; "
        "print(json.dumps({k: t.told(t.holding(f('a'))) for k, f in t.KINDS.items()}))"
    )
    folder = str(pathlib.Path(__file__).parent)
    path = os.pathsep.join([folder, *filter(None, sys.path)])
    found = []
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert not done.returncode, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]
    assert not any(" at 0x" in text for text in found[0].values())


@pytest.mark.parametrize(
    "value", [threading.Lock(), (x for x in "ab"), sys.stdout, memoryview(b"")]
)
def test_a_value_that_cannot_be_told_is_not_left_out(value) -> None:
    holders = (holding(value), keyword([{"deep": value}]), Prefix(value), Prefix(value).method)
    for holder in (*holders, with_member(value), with_member([value]), with_method(value)):
        with pytest.raises(UnknownValue, match=f"type {type(value).__qualname__} cannot be told"):
            told(holder)


def test_the_standard_librarys_own_data_is_no_hindrance() -> None:
    class Asked(abc.ABC):  # with a registry that cannot be told
        @abc.abstractmethod
        def __call__(self, row):
            return row

    class Named(Asked):
        def __call__(self, row):
            return super().__call__(row)

    for value in (Named(), logging.getLogger("a name"), Colour, random.Random(1)):
        assert told(Prefix(value)) == told(Prefix(value))


def test_circles_and_endless_objects_end() -> None:
    def circle():
        return circle

    assert "circle" in value_fingerprint(circle)
    values: list = [1]
    values.append(values)
    assert told(values) == told(values)
    chain = Prefix(None)
    for _ in range(10_000):
        chain = Prefix(chain)
    with pytest.raises(UnknownValue, match="holds too much to tell"):
        told(chain)


def test_fingerprint_of_code() -> None:
    def times(factor: int):
        return lambda row: {"inputs": row["a"] * factor}

    digests = [json.dumps(value_fingerprint(f)) for f in (times(2), times(2), times(3))]
    assert digests[0] == digests[1] != digests[2]
    partials = [functools.partial(times, n) for n in (1, 2)]
    assert value_fingerprint(partials[0]) != value_fingerprint(partials[1])
    assert value_fingerprint(None) == value_fingerprint(None)
