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
from kaft_promot.feeding.vocabulary import vocabulary_path

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


def with_pieces(path: pathlib.Path, pieces: list[str]) -> str:
    """mini's vocabulary with these behind it, written to `path`."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(vocabulary_path("mini").read_bytes())
    for piece in pieces:
        model.pieces.add(piece=piece, score=0.0, type=model.SentencePiece.USER_DEFINED)
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize("count", [100, 3])
def test_sentinels_that_a_file_holds_are_not_added_again(tmp_path: pathlib.Path, count) -> None:
    """mT5's file ends in 100 of them."""
    names = [f"▁<extra_id_{i}>" for i in reversed(range(count))]
    path = with_pieces(tmp_path / "spiece.model", names)
    vocabulary, plain = load_vocabulary(path), load_vocabulary("mini", extra_ids=0)
    assert (plain.extra_ids, load_vocabulary("mini").extra_ids) == (0, 100)
    assert vocabulary.extra_ids == 0
    assert vocabulary.vocab_size == plain.vocab_size + count
    assert vocabulary.encode("<extra_id_0>") == [vocabulary.vocab_size - 1]
    assert vocabulary.encode("<extra_id_2>") == [vocabulary.vocab_size - 3]
    twin = pickle.loads(pickle.dumps(vocabulary))
    assert (twin.digest, twin.extra_ids) == (vocabulary.digest, 0)
    if count == 100:
        assert vocabulary.digest == load_vocabulary("mini").digest  # the same ids


def test_a_task_has_the_sentinels_that_a_file_holds(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("seqio")
    from kaft_promot.feeding.seqio_vocabulary import TaskVocabulary

    names = [f"▁<extra_id_{i}>" for i in reversed(range(100))]
    path = with_pieces(tmp_path / "spiece.model", names)
    vocabulary, text = TaskVocabulary(path), "where is <extra_id_1> ?"
    assert vocabulary.extra_ids == 0
    assert vocabulary.vocab_size == vocabulary.delegate.vocab_size == 4096
    assert vocabulary.encode(text) == load_vocabulary(path).encode(text)
    assert vocabulary.encode_tf(text).numpy().tolist() == vocabulary.encode(text)


@pytest.mark.parametrize(
    "pieces, place",
    [
        (["▁<extra_id_0>", "▁<extra_id_1>"], "▁<extra_id_0> is id 3996"),
        (["▁<extra_id_5>"], "▁<extra_id_5> is id 3996"),
        (["▁<extra_id_0>", "▁<after>"], "▁<extra_id_0> is id 3996"),
    ],
)
def test_sentinels_elsewhere_in_a_file_are_refused(
    tmp_path: pathlib.Path, pieces: list[str], place: str
) -> None:
    path = with_pieces(tmp_path / "spiece.model", pieces)
    with pytest.raises(UserError, match=rf"^{path}: has sentinels \({place}\) that are not its la"):
        load_vocabulary(path)
    assert load_vocabulary(path, extra_ids=0).vocab_size == 3996 + len(pieces)


def test_a_piece_that_is_there_twice_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    path = with_pieces(tmp_path / "spiece.model", ["▁<a>", "▁<a>"])
    with pytest.raises(UserError, match="is not a SentencePiece model: .*▁<a> is already defined"):
        load_vocabulary(path)


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
