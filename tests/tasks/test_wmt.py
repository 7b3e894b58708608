"""WMT's pairs: which files are which split, alignment, BLEU, and the target language's look."""

from __future__ import annotations

import gzip
import importlib
import pathlib
from collections.abc import Callable, Iterator

import gin
import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation.output_share import in_format

seqio = pytest.importorskip("seqio")
wmt = importlib.import_module("kaft_promot.tasks.wmt")


@pytest.fixture
def bind() -> Iterator[Callable[[pathlib.Path], None]]:
    def directory(path: pathlib.Path) -> None:
        with gin.unlock_config():
            gin.clear_config()
            gin.bind_parameter("task_vocabulary.path", "bytes")
            gin.bind_parameter("wmt_data.directory", str(path))

    yield directory
    with gin.unlock_config():
        gin.clear_config()


def write(folder: pathlib.Path, stem: str, lines: int, other: str = "fra") -> None:
    folder.mkdir(exist_ok=True)
    for language in ("eng", other):
        text = "".join(f"{language} {stem} {number}\n" for number in range(lines))
        (folder / f"{stem}.{language}.gz").write_bytes(gzip.compress(text.encode()))


def test_the_last_years_are_validation_and_test(tmp_path, bind):
    bind(tmp_path)
    for year in (2009, 2011, 2010, 2013):
        write(tmp_path, f"newstest{year}.en-fr", 2)
    ids = {s: [row["id"] for row in wmt.examples("fr", s)] for s in ("train", "validation", "test")}
    assert ids == {
        "train": [f"newstest{year}.en-fr:{line}" for year in (2009, 2010) for line in (1, 2)],
        "validation": ["newstest2011.en-fr:1", "newstest2011.en-fr:2"],
        "test": ["newstest2013.en-fr:1", "newstest2013.en-fr:2"],
    }
    dataset = seqio.get_mixture_or_task("wmt_en_fr").get_dataset(
        {"inputs": 256, "targets": 256}, "test", shuffle=False
    )
    row = next(dataset.as_numpy_iterator())
    text = b"Translate English to French: eng newstest2013.en-fr 0"
    assert row["inputs_pretokenized"] == text
    assert row["targets_pretokenized"] == b"fra newstest2013.en-fr 0"


def test_fewer_files_are_cut_by_their_english_sentences(tmp_path, bind):
    bind(tmp_path)
    write(tmp_path / "extra_en_ro", "web.v1", 300, "ron")
    english = tmp_path / "extra_en_ro" / "web.v1.eng.gz"
    english.write_bytes(gzip.compress("".join(f"I am {n // 2}\n" for n in range(300)).encode()))
    splits = {s: wmt.examples("ro", s) for s in ("train", "validation", "test")}
    assert sum(map(len, splits.values())) == 300
    sentences = [{row["source_id"] for row in rows} for rows in splits.values()]
    assert sum(map(len, sentences)) == 150  # two translations of a sentence stay together
    assert all(len(part) >= 5 for part in sentences)


def test_bad_input_is_named(tmp_path, bind):
    bind(tmp_path)
    with pytest.raises(UserError, match="wmt_data.directory: .* has no newstest or extra_en_de"):
        wmt.examples("de", "train")
    write(tmp_path, "newstest2009.en-de", 3, "deu")
    (tmp_path / "newstest2009.en-de.deu.gz").write_bytes(gzip.compress(b"Eins\nZwei\n"))
    with pytest.raises(UserError, match="ends in line 3, newstest2009.en-de.deu.gz in line 2"):
        wmt.examples("de", "train")
    (tmp_path / "newstest2009.en-de.deu.gz").unlink()
    with pytest.raises(UserError, match="there is no newstest2009.en-de.deu beside it"):
        wmt.examples("de", "train")
    with gin.unlock_config():
        gin.clear_config()
    with pytest.raises(UserError, match="bind wmt_data.directory"):
        wmt.examples("de", "train")


def test_real_files(shared_dir, bind):
    bind(shared_dir / "data" / "wmt")
    counts = {lang: [len(wmt.examples(lang, s)) for s in wmt.SPLITS] for lang in wmt.LANGUAGES}
    assert counts["fr"] == counts["de"] == [2525 + 2489 + 3003, 3003, 3000, 1012]
    assert sum(counts["ro"][:3]) == 5508 and counts["ro"][3] == 1012
    assert min(counts["ro"]) > 400


def test_the_formats_tell_the_languages_apart(shared_dir, bind):
    bind(shared_dir / "data" / "wmt")
    texts = {lang: [r["targets"] for r in wmt.examples(lang, "flores")] for lang in wmt.LANGUAGES}
    texts["en"] = [row["source_id"] for row in wmt.examples("fr", "flores")]
    for target in wmt.LANGUAGES:
        for language, sentences in texts.items():
            hits = in_format(sentences, f"wmt_en_{target}")
            share = sum(hits) / len(hits)
            assert share > 0.99 if language == target else share < 0.01, (target, language)
    for target in wmt.LANGUAGES:
        assert in_format(["cat", "True", "3", "A", ""], f"wmt_en_{target}") == [0.0] * 5


def test_outputs_are_cleaned_and_scored_by_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    task = seqio.get_mixture_or_task("wmt_en_fr")
    output = "Le chat dort sur le lit. Translate English to French: The dog"
    clean = task.postprocess_fn(output, example={}, is_target=False)
    assert clean == "Le chat dort sur le lit."
    (metric,) = task.metric_fns
    assert metric([clean], [clean])["bleu"] == pytest.approx(100)
    targets, outputs = ["Le chat dort sur le lit rouge."], ["Le chat dort sur un lit."]
    expected = sacrebleu.corpus_bleu(outputs, [targets]).score
    assert 0 < expected < 100 and metric(targets, outputs)["bleu"] == pytest.approx(expected)
