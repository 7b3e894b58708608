"""A solved example of the same task in front of each input."""

import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.feeding import Demonstrations, PromptIds, eval_examples, train_iterator
from kaft_promot.feeding.demonstrations import DemonstratedStore, with_demonstrations
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.token_store import TokenStore

EXAMPLES = [{"inputs": [100 + i, 7, 1], "targets": [200 + i, 1]} for i in range(40)]


def store(examples=EXAMPLES, room=20, **settings):
    return DemonstratedStore(
        TokenStore.from_examples(examples), "task", Demonstrations(**settings), room
    )


def test_another_example_of_the_task_stands_in_front():
    made, shown = store(), []
    for i, example in enumerate(made[i] for i in range(len(made))):
        demonstration, own = example["inputs"][:3], example["inputs"][3:]
        np.testing.assert_array_equal(own, EXAMPLES[i]["inputs"])
        np.testing.assert_array_equal(example["targets"], EXAMPLES[i]["targets"])
        number = int(demonstration[0]) - 100
        np.testing.assert_array_equal(demonstration, [100 + number, 7, 200 + number])
        assert number != i
        shown.append(number)
    assert len(set(shown)) > 15
    again = [int(store()[i]["inputs"][0]) - 100 for i in range(40)]
    assert again == shown  # decided by the seed alone
    assert [int(store(seed=1)[i]["inputs"][0]) - 100 for i in range(40)] != shown
    assert made.lengths("inputs").tolist() == [6] * 40


def test_separators():
    ids = store(separator=(35,))[0]["inputs"].tolist()
    assert ids[1:3] == [7, 35] and ids[4] == 35 and ids[5:] == [100, 7, 1]


def test_what_does_not_fit_goes_without_and_is_counted():
    long = [*EXAMPLES, {"inputs": [*range(300, 318), 1], "targets": [5, 1]}]
    made = store(long, room=20)
    assert made.without == 1
    np.testing.assert_array_equal(made[40]["inputs"], long[40]["inputs"])
    assert made.lengths("inputs").max() <= 20
    source = Source(name="task", rate=1.0, store=TokenStore.from_examples(EXAMPLES))
    with pytest.raises(UserError, match="no demonstration fits.*room for 6 tokens"):
        with_demonstrations([source], Demonstrations(), 6)
    one = Source(name="task", rate=1.0, store=TokenStore.from_examples(EXAMPLES[:1]))
    with pytest.raises(UserError, match="task 'task' has one example"):
        with_demonstrations([one], Demonstrations(), 20)


@pytest.mark.parametrize("pack", [False, True])
def test_the_soft_prompt_comes_first(mixture, pack):
    lengths = {"inputs": 80, "targets": 10}
    prompts = PromptIds(first_id=5000, length=2)
    cfg = mixture(task_feature_lengths=lengths, prompts=prompts, pack=pack)
    cfg_1shot = mixture(
        task_feature_lengths=lengths, prompts=prompts, pack=pack, demonstrations=Demonstrations()
    )
    plain, shown = (next(train_iterator(c))["encoder_input_tokens"] for c in (cfg, cfg_1shot))
    np.testing.assert_array_equal(shown[:, :2], np.tile([5000, 5001], (8, 1)))
    # An example's own number, and its demonstration's: twice as many for each prompt.
    numbers = [
        int(((b >= 1000) & (b < 5000)).sum()) / int((b == 5000).sum()) for b in (plain, shown)
    ]
    assert numbers == [1.0, 2.0]


def test_it_is_for_training_on_tasks(mixture, tmp_path):
    with pytest.raises(UserError, match="are for training"):
        eval_examples(mixture(demonstrations=Demonstrations()))
    with pytest.raises(UserError, match="cannot be put into saved batches"):
        train_iterator(mixture(saved=str(tmp_path / "b.npz"), demonstrations=Demonstrations()))
