"""Values as JSON: other values are other texts, equal ones the same text in every process."""

import collections
import dataclasses
import enum
import fractions
import functools
import json
import operator
import os
import pathlib
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
    for holder in (holding(value), keyword([{"deep": value}]), Prefix(value), Prefix(value).method):
        with pytest.raises(UnknownValue, match=f"type {type(value).__qualname__} cannot be told"):
            told(holder)


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
