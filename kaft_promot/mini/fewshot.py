"""mini's in-context tasks: small functions of words, letters and numbers, shown by examples in
the prompt.

A task makes items, pairs of an input and a target; `prompt` puts shots and a query into one text
in the form of `seqio.experimental.fewshot_preprocessor` with `INPUTS_PREFIX`, `TARGETS_PREFIX`
and `SEPARATOR`:

    first: cat dog sun = cat ; first: red hen = red ; first: bus tea =

Held out are, by a hash that no seed changes, a tenth of all inputs of every task (the validation
inputs) and for the tasks with `new_words` also a tenth of the words, other words for every task:
each of their validation inputs holds a word that the task never had in training.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kaft_promot.knowledge.randomness import tenth
from kaft_promot.mini.words import KIND_OF, KINDS, WORDS

INPUTS_PREFIX = ""
TARGETS_PREFIX = " = "
SEPARATOR = " ; "
MAX_SHOTS = 4
SHOTS = (0, 1, 2, 4)  # that mini is measured at
QUERY_SPLITS = ("validation", "test")  # to choose settings on, and to report
LABELS = frozenset({"yes_no", "true_false", "a_b"})  # output formats of few fixed targets
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Draw = Callable[
    [random.Random, Sequence[str]], tuple[str, str]
]  # (rng, words that may be used) -> (input, target)


def _some(rng: random.Random, words: Sequence[str], low: int, high: int) -> list[str]:
    return rng.sample(words, rng.randint(low, high))


def _first(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 2, 5)
    return " ".join(chosen), chosen[0]


def _last(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 2, 5)
    return " ".join(chosen), chosen[-1]


def _twice(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 1, 2)
    return " ".join(chosen), " ".join(chosen * 2)


def _reverse(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 2, 4)
    return " ".join(chosen), " ".join(reversed(chosen))


def _rest(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 2, 4)
    return " ".join(chosen), " ".join(chosen[1:])


def _same(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    left, right = rng.sample(words, 2)
    yes = rng.random() < 0.5
    return f"{left} {left if yes else right}", "yes" if yes else "no"


def _contains(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 3, 5)
    true = rng.random() < 0.5
    asked = rng.choice(chosen[1:]) if true else chosen[0]
    return f"{' '.join(chosen[1:])} has {asked}", "True" if true else "False"


def _kind_claim(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    word, true = rng.choice(words), rng.random() < 0.5
    kind = KIND_OF[word] if true else rng.choice([k for k in KINDS if k != KIND_OF[word]])
    return f"{word} is {kind}", "True" if true else "False"


def _count(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = _some(rng, words, 1, 6)
    return " ".join(chosen), str(len(chosen))


def _larger(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    left, right = rng.sample(range(10, 100), 2)
    return f"{left} {right}", str(max(left, right))


def _next_letter(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    places = [rng.randrange(25) for _ in range(rng.randint(2, 3))]
    return " ".join(LETTERS[p] for p in places), " ".join(LETTERS[p + 1] for p in places)


def _upper(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    letters = rng.sample(LETTERS, rng.randint(2, 4))
    return " ".join(letters), " ".join(letters).upper()


def _choice(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    left, right = rng.sample(words, 2)
    b = rng.random() < 0.5
    return f"{right if b else left} A {left} B {right}", "B" if b else "A"


def _kind_choice(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    left = rng.choice(words)
    right = rng.choice([w for w in words if KIND_OF[w] != KIND_OF[left]])
    b = rng.random() < 0.5
    return f"{KIND_OF[right if b else left]} A {left} B {right}", "B" if b else "A"


def _odd(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    kind, other = rng.sample(sorted(KINDS), 2)
    chosen = rng.sample([w for w in words if KIND_OF[w] == kind], 2)
    odd = rng.choice([w for w in words if KIND_OF[w] == other])
    chosen.append(odd)
    rng.shuffle(chosen)
    return " ".join(chosen), odd


def _lookup(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    chosen = rng.sample(words, 2 * rng.randint(2, 3))
    pairs = list(zip(chosen[::2], chosen[1::2], strict=True))
    key, value = rng.choice(pairs)
    return " , ".join(f"{k} {v}" for k, v in pairs) + f" find {key}", value


@dataclass(frozen=True, kw_only=True)
class FewshotTask:
    """An in-context task.

    Attributes:
      name: its name, which every prompt begins with.
      output: the format of its targets; tasks of equal `output` share it.
      draw: makes one input and target.
      new_words: whether validation inputs hold a word that is held out from the task's training.
    """

    name: str
    output: str
    draw: Draw
    new_words: bool = False


TASKS: dict[str, FewshotTask] = {
    task.name: task
    for task in (
        FewshotTask(name="first", output="word", draw=_first, new_words=True),
        FewshotTask(name="last", output="word", draw=_last, new_words=True),
        FewshotTask(name="lookup", output="word", draw=_lookup, new_words=True),
        FewshotTask(name="odd", output="word", draw=_odd),
        FewshotTask(name="twice", output="words", draw=_twice, new_words=True),
        FewshotTask(name="reverse", output="words", draw=_reverse, new_words=True),
        FewshotTask(name="rest", output="words", draw=_rest, new_words=True),
        FewshotTask(name="same", output="yes_no", draw=_same, new_words=True),
        FewshotTask(name="contains", output="true_false", draw=_contains, new_words=True),
        FewshotTask(name="claim", output="true_false", draw=_kind_claim),
        FewshotTask(name="count", output="number", draw=_count, new_words=True),
        FewshotTask(name="larger", output="number", draw=_larger),
        FewshotTask(name="next", output="letters", draw=_next_letter),
        FewshotTask(name="upper", output="letters", draw=_upper),
        FewshotTask(name="choice", output="a_b", draw=_choice, new_words=True),
        FewshotTask(name="kind", output="a_b", draw=_kind_choice),
    )
}


@functools.cache
def new_words(task: FewshotTask) -> frozenset[str]:
    """The words that never occur in the task's training inputs."""
    return frozenset(w for w in WORDS if task.new_words and tenth(f"{task.name} word {w}") == 0)


@functools.cache
def _training_words(task: FewshotTask) -> tuple[str, ...]:
    return tuple(w for w in WORDS if w not in new_words(task))


def held_out(task: FewshotTask, text: str) -> bool:
    """Whether an input belongs to validation."""
    if task.new_words:
        return not new_words(task).isdisjoint(text.split())
    return tenth(f"{task.name} input {text}") == 0


def draw_item(task: FewshotTask, split: str, rng: random.Random) -> tuple[str, str]:
    """One (input, target) of a task; `split` is `train` or `validation`."""
    if split == "train":
        words, wanted = _training_words(task), None
    else:
        # Inputs with more words are held out more often; labels are to stay as frequent.
        words, wanted = WORDS, task.draw(rng, WORDS)[1] if task.output in LABELS else None
    while True:
        text, target = task.draw(rng, words)
        if held_out(task, text) == (split == "validation") and wanted in (None, target):
            return f"{task.name}: {text}", target


def prompt(shots: Sequence[tuple[str, str]], query: str) -> str:
    """Shots and query in one text, as `seqio.experimental.fewshot_preprocessor` writes it."""
    shown = "".join(f"{INPUTS_PREFIX}{x}{TARGETS_PREFIX}{y}{SEPARATOR}" for x, y in shots)
    return f"{shown}{INPUTS_PREFIX}{query}{TARGETS_PREFIX.rstrip()}"


def draw_example(task: FewshotTask, split: str, shots: int, rng: random.Random) -> dict[str, str]:
    """A prompt whose query is of `split` and whose shots are other items of training."""
    query, target = draw_item(task, split, rng)
    shown: list[tuple[str, str]] = []
    while len(shown) < shots:
        item = draw_item(task, "train", rng)
        if item[0] != query and item not in shown:
            shown.append(item)
    return {"inputs": prompt(shown, query), "targets": target}
