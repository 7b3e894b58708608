"""Padded batches and the shift to decoder inputs."""

import numpy as np
import pytest

from kaft_promot.feeding import batch_examples
from kaft_promot.feeding.features import shift_right

LENGTHS = {"inputs": 6, "targets": 4}


def test_batch_examples_pads_cuts_and_shifts() -> None:
    examples = [
        {"inputs": [7, 8, 1], "targets": [5, 1]},
        {"inputs": [1, 2, 3, 4, 5, 6, 7], "targets": np.array([9, 8, 7, 6, 1])},
        {"inputs": [], "targets": []},
    ]
    first, last = batch_examples(examples, LENGTHS, batch_size=2)
    assert first["encoder_input_tokens"].tolist() == [[7, 8, 1, 0, 0, 0], [1, 2, 3, 4, 5, 6]]
    assert first["decoder_target_tokens"].tolist() == [[5, 1, 0, 0], [9, 8, 7, 6]]
    assert first["decoder_input_tokens"].tolist() == [[0, 5, 1, 0], [0, 9, 8, 7]]
    assert first["decoder_loss_weights"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert {v.dtype for v in first.values()} == {np.dtype(np.int32)}
    assert last["encoder_input_tokens"].shape == (1, 6)


def test_fill_last_keeps_one_shape() -> None:
    examples = [{"inputs": [3], "targets": [4]}] * 5
    batches = batch_examples(examples, LENGTHS, batch_size=4, fill_last=True)
    assert [b["encoder_input_tokens"].shape for b in batches] == [(4, 6), (4, 6)]
    assert batches[1]["decoder_loss_weights"].sum() == 1


def test_prompt_placeholders_survive() -> None:
    (batch,) = batch_examples([{"inputs": [40000, 40001, 5], "targets": [1]}], LENGTHS, 1)
    assert batch["encoder_input_tokens"].tolist() == [[40000, 40001, 5, 0, 0, 0]]


def test_packed_decoder_inputs_start_anew_in_every_segment() -> None:
    targets = np.array([[3, 9, 1, 4, 1, 0, 0]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 0, 0]], np.int32)
    assert shift_right(targets, segments).tolist() == [[0, 3, 9, 0, 4, 0, 0]]


@pytest.mark.parametrize("pack", [False, True])
def test_features_equal_seqios_converter(pack: bool) -> None:
    """The example of `seqio.EncDecFeatureConverter`, through SeqIO and through ours."""
    seqio = pytest.importorskip("seqio")
    import tensorflow as tf

    from kaft_promot.feeding.features import pad_examples
    from kaft_promot.feeding.packing import assemble

    lengths = {"inputs": 10, "targets": 7}
    examples = [
        {"inputs": [7, 8, 5, 1], "targets": [3, 9, 1]},
        {"inputs": [8, 4, 9, 3, 1], "targets": [4, 1]},
    ]
    data = tf.data.Dataset.from_generator(
        lambda: iter(examples),
        output_signature={k: tf.TensorSpec([None], tf.int32) for k in lengths},
    )
    converted = seqio.EncDecFeatureConverter(pack=pack)(data, lengths)
    theirs = list(converted.batch(4).as_numpy_iterator())[0]
    arrays = [{k: np.array(v, np.int32) for k, v in e.items()} for e in examples]
    ours = assemble([arrays], lengths) if pack else pad_examples(arrays, lengths)
    assert sorted(ours) == sorted(theirs)
    for name, value in theirs.items():
        assert ours[name].tolist() == value.tolist(), name
        assert ours[name].dtype == value.dtype, name
