"""Which vocabulary a run uses, and that it fits the network."""

import dataclasses

import jax
import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.interop import export_model, run_vocabulary, write_native
from kaft_promot.interop.vocabulary import checkpoint_vocab_size


@pytest.fixture
def folder(tmp_path, tiny_params, tiny_config):
    """A model that says that its vocabulary is bytes (384 ids)."""
    write_native(tmp_path / "ours", tiny_params, tiny_config, vocabulary="bytes")
    return tmp_path


def test_the_checkpoints_own_vocabulary_is_taken(folder):
    assert run_vocabulary(folder / "ours") == "bytes"
    assert run_vocabulary(folder / "ours" / "model.safetensors") == "bytes"
    export_model(folder / "ours", folder / "theirs", "huggingface")
    assert run_vocabulary(folder / "theirs") == "bytes"
    assert run_vocabulary(folder / "ours", "bytes") == "bytes"


def test_one_must_be_known(tmp_path, tiny_params, tiny_config):
    write_native(tmp_path, tiny_params, tiny_config)
    assert run_vocabulary(tmp_path, "bytes") == "bytes"
    with pytest.raises(UserError, match=f"vocabulary of {tmp_path} is not known"):
        run_vocabulary(tmp_path)
    with pytest.raises(UserError, match="random parameters is not known: add --gin.VOCABULARY"):
        run_vocabulary(None)


def test_another_vocabulary_than_the_checkpoints_is_refused(folder, monkeypatch):
    from kaft_promot.feeding import ByteVocabulary

    monkeypatch.setattr(
        "kaft_promot.interop.vocabulary.load_vocabulary",
        lambda name: ByteVocabulary(0 if name == "other" else 125),
    )
    with pytest.raises(UserError, match="VOCABULARY=other has other ids than bytes"):
        run_vocabulary(folder / "ours", "other")


def test_more_ids_than_embeddings_are_refused(folder, tiny_config):
    small = dataclasses.replace(tiny_config, vocab_size=300)
    with pytest.raises(
        UserError, match="=bytes has 384 ids, but a model from random .* only 300 e"
    ):
        run_vocabulary(None, "bytes", small)


def test_a_checkpoint_of_fewer_embeddings_is_refused_wherever_it_is_used(tmp_path, tiny_config):
    from kaft_promot.infer import load_predictor
    from kaft_promot.models import abstract_params

    small = dataclasses.replace(tiny_config, vocab_size=300)
    zeros = jax.tree.map(lambda like: np.zeros(like.shape, np.float32), abstract_params(small))
    write_native(tmp_path, zeros, small)
    message = f"VOCABULARY=bytes has 384 ids, but {tmp_path} has only 300 embeddings: name the voc"
    for use in (run_vocabulary, lambda path, name: load_predictor(path, vocabulary=name)):
        with pytest.raises(UserError, match=message):
            use(str(tmp_path), "bytes")


def test_the_size_is_found_without_reading_parameters(folder, shared_dir):
    assert checkpoint_vocab_size(folder / "ours") == 384
    for name, rows in {
        "copy_orbax_1320": 512,
        "copy_legacy_20": 512,
        "t5_1_1_tiny_legacy_3": 32128,
        "t5_tiny_inline.checkpoint": 32128,
    }.items():
        assert checkpoint_vocab_size(shared_dir / "checkpoints" / "t5x" / name) == rows
