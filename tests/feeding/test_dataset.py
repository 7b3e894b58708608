"""The training iterator: determinism, exact resume, processes, and its complaints."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaft_promot.errors import UserError
from kaft_promot.feeding import save_batches, train_iterator

PACK = pytest.mark.parametrize("pack", [False, True])


def take(iterator, count: int) -> list[dict[str, np.ndarray]]:
    return [next(iterator) for _ in range(count)]


def assert_same(found, expected) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@PACK
def test_same_seed_same_batches_other_seed_others(mixture, pack: bool) -> None:
    first = take(train_iterator(mixture(pack=pack)), 6)
    assert_same(take(train_iterator(mixture(pack=pack)), 6), first)
    assert_same(take(train_iterator(mixture(pack=pack, prefetch=2)), 6), first)
    other = take(train_iterator(mixture(pack=pack, seed=1)), 6)
    assert any(
        np.any(a["encoder_input_tokens"] != b["encoder_input_tokens"])
        for a, b in zip(first, other, strict=True)
    )


@PACK
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(step=st.integers(0, 40), prefetch=st.sampled_from([0, 2]))
def test_any_step_is_reached_again(mixture, pack: bool, step: int, prefetch: int) -> None:
    one = train_iterator(mixture(pack=pack, prefetch=prefetch))
    take(one, step)
    state = one.get_state()
    assert one.step == step and len(state) < 1000
    expected = take(one, 5)
    other = train_iterator(mixture(pack=pack, prefetch=prefetch))
    take(other, 3)
    other.set_state(state)
    assert other.get_state() == state
    assert_same(take(other, 5), expected)
    skipped = train_iterator(mixture(pack=pack, prefetch=prefetch))
    skipped.skip(step)
    assert skipped.get_state() == state
    assert_same(take(skipped, 5), expected)
    for iterator in (one, other, skipped):
        iterator.close()


@PACK
@pytest.mark.parametrize("count", [2, 4, 8])
def test_processes_share_the_global_batch(mixture, pack: bool, count: int) -> None:
    whole = take(train_iterator(mixture(pack=pack)), 5)
    parts = [
        train_iterator(mixture(pack=pack), process_index=i, process_count=count)
        for i in range(count)
    ]
    for batch in whole:
        shares = [next(part) for part in parts]
        for name, rows in batch.items():
            joined = np.concatenate([share[name] for share in shares])
            np.testing.assert_array_equal(joined, rows, err_msg=name)
    # A run can go on with another number of processes.
    assert len({part.get_state() for part in parts}) == 1
    alone = train_iterator(mixture(pack=pack))
    alone.set_state(parts[-1].get_state())
    again = train_iterator(mixture(pack=pack))
    again.skip(5)
    assert_same(take(alone, 2), take(again, 2))


def test_every_epoch_holds_every_example_once(mixture) -> None:
    """Of task a (60 examples, three of four rows), 80 rows are one epoch."""
    batches = train_iterator(mixture())
    for _ in range(3):
        rows = np.concatenate([next(batches)["encoder_input_tokens"][:, 0] for _ in range(10)])
        assert Counter(r for r in rows.tolist() if r < 2000) == Counter(range(1000, 1060))


@PACK
def test_mixing_follows_the_rates(mixture, pack: bool) -> None:
    batches = train_iterator(mixture(pack=pack))
    tokens = np.concatenate([next(batches)["encoder_input_tokens"].ravel() for _ in range(60)])
    counts = Counter("a" if t < 2000 else "b" for t in tokens.tolist() if t >= 1000)
    assert counts["a"] / counts.total() == pytest.approx(0.75, abs=0.02)


def test_unshuffled_data_keeps_its_order(mixture) -> None:
    batch = next(train_iterator(mixture(shuffle=False)))
    firsts = batch["encoder_input_tokens"][:, 0]
    assert [f for f in firsts.tolist() if f < 2000] == list(range(1000, 1006))


def test_finite_epochs_end(mixture) -> None:
    assert len(list(train_iterator(mixture(num_epochs=2)))) == 20
    iterator = train_iterator(mixture(num_epochs=1))
    with pytest.raises(StopIteration):
        iterator.skip(11)
    with pytest.raises(UserError, match="fewer than one batch of 512"):
        train_iterator(mixture(num_epochs=1, batch_size=512))


@PACK
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_last_batch_that_is_filled_leaves_nothing_out(mixture, pack: bool, prefetch) -> None:
    every = {"num_epochs": 1, "shuffle": False, "pack": pack, "prefetch": prefetch}
    rows = [b for b in train_iterator(mixture(batch_size=1, **every))]
    whole = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    cfg = mixture(batch_size=12, **every)
    assert len(rows) % 12 and len(list(train_iterator(cfg))) == len(rows) // 12
    for count in (1, 2, 3, 12):
        parts = [
            train_iterator(cfg, process_index=i, process_count=count, fill_last=True)
            for i in range(count)
        ]
        batches = list(zip(*parts, strict=True))
        assert len(batches) == len(rows) // 12 + 1
        for name, expected in whole.items():
            found = np.concatenate([share[name] for shares in batches for share in shares])
            np.testing.assert_array_equal(found[: len(rows)], expected, err_msg=name)
            assert len(found) == 12 * len(batches) and not found[len(rows) :].any()
    # Endless data have no last batch; a single short one is a batch.
    take(train_iterator(mixture(pack=pack, prefetch=prefetch), fill_last=True), 2)
    few = train_iterator(mixture(batch_size=96, **every), fill_last=True)
    (batch,) = list(few)
    assert len(batch["decoder_loss_weights"]) == 96


@pytest.mark.parametrize("prefetch", [0, 2])
def test_unpacked_data_that_ended_go_on_with_more_epochs(mixture, tmp_path, prefetch) -> None:
    save_batches(mixture(), tmp_path / "batches.npz", 4)
    for source in ({}, {"saved": str(tmp_path / "batches.npz")}):
        whole = take(train_iterator(mixture(prefetch=prefetch, **source)), 30)
        once = train_iterator(mixture(prefetch=prefetch, num_epochs=1, **source))
        first = list(once)
        for more in (3, None):
            on = train_iterator(mixture(prefetch=prefetch, num_epochs=more, **source))
            on.set_state(once.get_state())
            rest = list(on) if more else take(on, 30 - len(first))
            assert len(rest) >= 2 * len(first)
            assert_same([*first, *rest], whole[: len(first) + len(rest)])
        beyond = on.get_state()
        with pytest.raises(UserError, match="after 30 batches, lies beyond the end of the data"):
            train_iterator(mixture(num_epochs=1, **source)).set_state(beyond)


def test_packed_data_that_end_elsewhere_are_other_data(mixture) -> None:
    """The last rows of what was packed hold whatever is left, and are shuffled as they are."""
    state = train_iterator(mixture(pack=True, num_epochs=1)).get_state()
    with pytest.raises(UserError, match="belongs to other data"):
        train_iterator(mixture(pack=True)).set_state(state)


def test_packed_data_without_a_full_batch_are_refused(mixture) -> None:
    message = (
        r"both gives no full batch: its 80 examples in 1 epoch\(s\) fill (\d+) rows, fewer than "
    )
    with pytest.raises(UserError, match=message + "one batch of 80") as caught:
        train_iterator(mixture(pack=True, num_epochs=1, batch_size=80))
    rows = int(re.search(message, str(caught.value))[1])
    assert len(list(train_iterator(mixture(pack=True, num_epochs=1, batch_size=rows)))) == 1
    with pytest.raises(UserError, match=message + f"one batch of {rows + 1}:"):
        train_iterator(mixture(pack=True, num_epochs=1, batch_size=rows + 1))


def test_drawn_seed_travels_with_the_state(mixture) -> None:
    one = train_iterator(mixture(seed=None))
    take(one, 2)
    state = one.get_state()
    other = train_iterator(mixture(seed=None))
    other.set_state(state)
    assert_same(take(other, 3), take(one, 3))


@PACK
def test_saved_batches_feed_the_same(mixture, tmp_path, pack: bool) -> None:
    expected = take(train_iterator(mixture(pack=pack)), 4)
    file = str(tmp_path / "batches.npz")
    save_batches(mixture(pack=pack), file, 4)
    iterator = train_iterator(mixture(pack=pack, saved=file, prefetch=2))
    assert_same(take(iterator, 8), expected * 2)
    state = iterator.get_state()
    other = train_iterator(mixture(saved=file))
    other.set_state(state)
    assert_same(take(other, 1), expected[:1])
    half = train_iterator(mixture(saved=file), process_index=1, process_count=2)
    assert_same([next(half)], [{k: v[4:] for k, v in expected[0].items()}])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"batch_size": 0}, "DatasetConfig.batch_size is 0"),
        ({"seed": -1}, "DatasetConfig.seed is -1"),
        ({"prefetch": -1}, "DatasetConfig.prefetch"),
        ({"num_epochs": 0}, "DatasetConfig.num_epochs"),
        ({"task_feature_lengths": {"inputs": 8}}, "TASK_FEATURE_LENGTHS.*no length.*'targets'"),
        ({"task_feature_lengths": {"inputs": 8, "targets": 0}}, "'targets' the length 0"),
        (
            {"task_feature_lengths": {"inputs": 8, "targets": 8, "input": 3}},
            "names 'input'; the features are inputs and targets",
        ),
        ({"task_feature_lengths": {"inputs": 8, "targets": 8}}, "has task_feature_lengths"),
        ({"split": "test"}, "has split 'train', but DatasetConfig.split is 'test'"),
        ({"mixture_or_task_name": "x"}, "has mixture_or_task_name 'both'"),
    ],
)
def test_wrong_settings_are_named(mixture, settings_, message: str) -> None:
    mixture()
    with pytest.raises(UserError, match=message):
        train_iterator(mixture(**settings_))


def test_batch_must_divide_among_processes(mixture) -> None:
    with pytest.raises(UserError, match="batch_size 8 cannot be shared by 3 processes"):
        train_iterator(mixture(), process_index=0, process_count=3)
    with pytest.raises(UserError, match="seed must be set"):
        train_iterator(mixture(seed=None), process_index=0, process_count=2)


def test_state_of_other_data_is_refused(mixture) -> None:
    state = train_iterator(mixture()).get_state()
    for other in ({"pack": True}, {"batch_size": 4}, {"shuffle": False}):
        with pytest.raises(UserError, match="belongs to other data"):
            train_iterator(mixture(**other)).set_state(state)
    with pytest.raises(UserError, match="cannot be read"):
        train_iterator(mixture()).set_state(b"\x00")
    changed = {**json.loads(state), "seed": 5}
    iterator = train_iterator(mixture())
    iterator.set_state(json.dumps(changed).encode())
    assert_same(take(iterator, 2), take(train_iterator(mixture(seed=5)), 2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.npz", None, "cannot read the batches"),
        ("cut.npz", b"PK\x03\x04 cut", "cannot read the batches"),
        ("nothing", None, "holds no saved tokens"),
    ],
)
def test_missing_saved_files_are_named(mixture, tmp_path, name, content, message) -> None:
    mixture()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        train_iterator(mixture(saved=str(tmp_path / name)))


def test_saved_batches_of_another_shape_are_refused(mixture, tmp_path) -> None:
    file = str(tmp_path / "batches.npz")
    save_batches(mixture(), file, 1)
    with pytest.raises(UserError, match=r"has shape \(1, 8, 24\).*\(steps, 4, 24\)"):
        train_iterator(mixture(saved=file, batch_size=4))
