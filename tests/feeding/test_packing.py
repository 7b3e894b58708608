"""Packing: every example once and whole, no leaks, a position that can be taken up again."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kaft_promot.feeding import packing, pipeline
from kaft_promot.feeding.features import unpack
from kaft_promot.feeding.token_store import TokenStore

LENGTHS = {"inputs": 12, "targets": 6}
EXAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "inputs": st.lists(st.integers(1, 99), min_size=1, max_size=12),
            "targets": st.lists(st.integers(1, 99), min_size=1, max_size=6),
        }
    ),
    min_size=1,
    max_size=60,
)


def packed(examples, *, batch_size=1, rows=slice(None), epochs=1, seed=None):
    source = pipeline.Source(name="t", rate=1.0, store=TokenStore.from_examples(examples))
    data = pipeline.examples([source], seed=seed, num_epochs=epochs)
    return packing.PackedBatches(
        data, feature_lengths=LENGTHS, batch_size=batch_size, own=rows, seed=0
    )


def key(example) -> tuple:
    return tuple(map(int, example["inputs"])), tuple(map(int, example["targets"]))


@settings(max_examples=60, deadline=None)
@given(examples=EXAMPLES, open_rows=st.sampled_from([1, 2, 7, 256]))
def test_every_example_comes_out_once_and_whole(examples, open_rows) -> None:
    before, packing.OPEN_ROWS = packing.OPEN_ROWS, open_rows
    try:
        batches = list(packed(examples))
    finally:
        packing.OPEN_ROWS = before
    found = Counter(key(e) for batch in batches for e in unpack(batch))
    assert found == Counter(key(e) for e in examples)


@settings(max_examples=60, deadline=None)
@given(examples=EXAMPLES)
def test_segments_positions_and_shift_belong_together(examples) -> None:
    for batch in packed(examples):
        for side, tokens in (
            ("encoder", "encoder_input_tokens"),
            ("decoder", "decoder_target_tokens"),
        ):
            segments, positions = batch[f"{side}_segment_ids"][0], batch[f"{side}_positions"][0]
            used = segments > 0
            assert not np.any(batch[tokens][0][~used]) and not np.any(positions[~used])
            # Segments follow each other without a gap, padding only at the end.
            assert np.all(np.diff(segments[used]) >= 0) and np.all(used[: used.sum()])
            for segment in range(1, segments.max() + 1):
                inside = positions[segments == segment]
                assert inside.tolist() == list(range(len(inside)))
        targets, inputs = batch["decoder_target_tokens"][0], batch["decoder_input_tokens"][0]
        starts = batch["decoder_positions"][0] == 0
        assert not np.any(inputs[starts & (batch["decoder_segment_ids"][0] > 0)])
        inner = np.flatnonzero(~starts)
        assert inputs[inner].tolist() == targets[inner - 1].tolist()


def test_first_fit_fills_rows() -> None:
    """Lengths 3 and 2 on a row of 12 and 6: three examples a row, none more fits."""
    examples = [{"inputs": [5, 6, 7], "targets": [8, 1]}] * 30
    batches = list(packed(examples))
    assert len(batches) == 10
    assert all(b["encoder_segment_ids"].max() == 3 for b in batches)


def test_example_longer_than_a_row_is_cut() -> None:
    (batch,) = packed([{"inputs": list(range(1, 30)), "targets": [1] * 9}])
    assert batch["encoder_input_tokens"][0].tolist() == list(range(1, 13))
    assert batch["decoder_loss_weights"].sum() == 6


@settings(max_examples=30, deadline=None)
@given(examples=EXAMPLES, at=st.integers(0, 12), batch_size=st.sampled_from([1, 2, 3]))
def test_state_restores_the_next_batches(examples, at, batch_size) -> None:
    dataset = packed(examples, batch_size=batch_size, epochs=5, seed=3)
    one = iter(dataset)
    for _ in range(at):
        if next(one, None) is None:
            break
    other = iter(dataset)
    other.set_state(one.get_state())
    for expected, found in zip(one, other, strict=True):
        for name in expected:
            np.testing.assert_array_equal(expected[name], found[name])


def test_incomplete_last_batch_is_left_out() -> None:
    examples = [{"inputs": [5] * 12, "targets": [1]}] * 5
    assert len(list(packed(examples, batch_size=2))) == 2
