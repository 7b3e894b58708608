"""Vocabularies against SeqIO's own."""

import copy
import pathlib
import pickle

import gin
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaft_promot.errors import UserError
from kaft_promot.feeding import (
    ByteVocabulary,
    SentencePieceVocabulary,
    Vocabulary,
    load_vocabulary,
    task_vocabulary,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WORDS = st.lists(
    st.one_of(st.sampled_from(["<extra_id_0>", "<extra_id_99>", "The", "naïve", "東京", ""]), TEXT),
    max_size=8,
).map(" ".join)
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def model_file(shared_dir: pathlib.Path) -> str:
    return str(shared_dir / "data" / "t5_vocab" / "t5_spiece.model")


@pytest.fixture(scope="module")
def pair(model_file: str):
    seqio = pytest.importorskip("seqio")
    return SentencePieceVocabulary(model_file), seqio.SentencePieceVocabulary(model_file, 100)


def test_t5_vocabulary_has_t5s_ids(model_file: str) -> None:
    vocabulary = load_vocabulary(model_file)
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.vocab_size == 32100
    assert vocabulary.encode("<extra_id_0>") == [32099]
    assert vocabulary.encode("<extra_id_99>") == [32000]
    assert vocabulary.encode("Hello world") == [8774, 296]
    assert vocabulary.decode([8774, 296, 1, 8774, 0]) == "Hello world"


@QUICK
@given(text=WORDS)
def test_sentencepiece_ids_and_text_equal_seqios(pair, text: str) -> None:
    ours, theirs = pair
    assert ours.encode(text) == list(theirs.encode(text))
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))


@QUICK
@given(ids=st.lists(st.integers(0, 32300), max_size=30))
def test_sentencepiece_decodes_any_ids_like_seqio(pair, ids: list[int]) -> None:
    ours, theirs = pair
    assert ours.decode(ids) == theirs.decode(ids)


@QUICK
@given(text=TEXT, ids=st.lists(st.integers(0, 500), max_size=30))
def test_bytes_equal_seqios(text: str, ids: list[int]) -> None:
    seqio = pytest.importorskip("seqio")
    ours, theirs = ByteVocabulary(), seqio.ByteVocabulary(125)
    assert ours.vocab_size == theirs.vocab_size == 384
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(ours.encode(text)) == text


def test_vocabulary_can_be_copied_and_pickled(model_file: str) -> None:
    vocabulary = SentencePieceVocabulary(model_file, extra_ids=3)
    for twin in (copy.deepcopy(vocabulary), pickle.loads(pickle.dumps(vocabulary))):
        assert twin.digest == vocabulary.digest
        assert twin.encode("a copy <extra_id_2>") == vocabulary.encode("a copy <extra_id_2>")


def test_digest_tells_vocabularies_apart(model_file: str) -> None:
    digests = {
        load_vocabulary(model_file).digest,
        load_vocabulary(model_file, extra_ids=0).digest,
        load_vocabulary("bytes").digest,
    }
    assert len(digests) == 3


def test_gin_names_the_tasks_vocabulary(model_file: str) -> None:
    with gin.unlock_config():
        gin.bind_parameter("task_vocabulary.path", model_file)
    try:
        assert task_vocabulary().vocab_size == 32100
    finally:
        gin.clear_config()


def test_missing_file_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="nowhere.model: No such file"):
        load_vocabulary(tmp_path / "nowhere.model")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00\x01\x02"])
def test_other_files_are_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "v.model").write_bytes(content)
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        load_vocabulary(tmp_path / "v.model")


def test_other_special_ids_are_refused(tmp_path: pathlib.Path) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"] * 10),
        model_writer=model,
        vocab_size=12,
        minloglevel=2,
    )
    (tmp_path / "v.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match="train it with --pad_id=0 --eos_id=1 --unk_id=2"):
        load_vocabulary(tmp_path / "v.model")
