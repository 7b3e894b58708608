"""Placeholders in front of a task's inputs, packed and not; what does not fit is refused."""

import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.feeding import PromptIds, save_batches, train_iterator
from kaft_promot.feeding.features import unpack

LENGTHS = {"inputs": 24, "targets": 10}  # of conftest's mixture; its inputs have 2 to 21 tokens
P = 4
TWO = {"a": 0, "b": 1}


def ids(**settings):
    return PromptIds(**{"first_id": 5000, "length": P, "long_inputs": "truncate", **settings})


def rows_of(batch, packed):
    if packed:
        return [example["inputs"] for example in unpack(batch)]
    return [row[row > 0] for row in batch["encoder_input_tokens"]]


@pytest.mark.parametrize("pack", [False, True])
def test_each_example_starts_with_its_tasks_prompt(mixture, pack):
    plain = train_iterator(mixture(pack=False, shuffle=False, num_epochs=1))
    texts = {row[0]: row for batch in plain for row in rows_of(batch, False)}
    prompted = train_iterator(mixture(pack=pack, prompts=ids(by_task=TWO)))
    seen = 0
    for _ in range(6):
        batch = next(prompted)
        for row in rows_of(batch, pack):
            text = row[P:]
            start = 5000 if text[0] < 2000 else 5000 + P
            np.testing.assert_array_equal(row[:P], np.arange(start, start + P))
            if text[0] in texts:
                whole = texts[text[0]]
                expected = whole if len(whole) <= 20 else [*whole[:19], 1]
                np.testing.assert_array_equal(text, expected)
                seen += 1
    assert seen > 30


def test_without_a_mapping_every_task_has_the_first_prompt(mixture):
    batch = next(train_iterator(mixture(prompts=ids())))
    assert set(batch["encoder_input_tokens"][:, 0]) == {5000}


def test_a_task_without_a_prompt_is_an_error(mixture):
    with pytest.raises(UserError, match="task 'b' has no soft prompt; there are prompts for a:"):
        train_iterator(mixture(prompts=ids(by_task={"a": 0})))


def test_inputs_that_are_too_long_are_refused_by_name_and_number(mixture):
    with pytest.raises(UserError, match=r"task 'a': \d+ of 60 inputs do not fit.*too many"):
        train_iterator(mixture(prompts=ids(long_inputs="error")))
    fits = mixture(prompts=ids(length=1, long_inputs="error"))
    assert next(train_iterator(fits))["encoder_input_tokens"].max() == 5000
    with pytest.raises(UserError, match="soft prompt of 24 leaves no room"):
        train_iterator(mixture(prompts=ids(length=24)))


def test_places_with_and_without_prompts_are_not_mixed(mixture):
    state = train_iterator(mixture()).get_state()
    with pytest.raises(UserError, match="belongs to other data"):
        train_iterator(mixture(prompts=ids())).set_state(state)


def test_saved_batches_must_have_been_saved_with_their_prompts(mixture, tmp_path):
    for name, prompts in (("with", ids(by_task=TWO)), ("without", None)):
        save_batches(mixture(prompts=prompts), tmp_path / f"{name}.npz", 2)
    found = next(
        train_iterator(mixture(saved=str(tmp_path / "with.npz"), prompts=ids(by_task=TWO)))
    )
    assert set(found["encoder_input_tokens"][:, 0]) <= {5000, 5000 + P}
    for name, prompts in (("without", ids()), ("with", ids(first_id=4000))):
        with pytest.raises(UserError, match=f"{name}.npz do not start with the run's soft prompt"):
            train_iterator(mixture(saved=str(tmp_path / f"{name}.npz"), prompts=prompts))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length"),
        ({"first_id": 0}, "first_id"),
        ({"long_inputs": "cut"}, "long_inputs = 'cut': choose from error, truncate"),
        ({"by_task": {"a": -1}}, "by_task"),
    ],
)
def test_impossible_values_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        ids(**settings)
