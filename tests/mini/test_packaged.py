"""The model that the package ships: small enough for git, whole, and better than chance."""

import pytest

from kaft_promot.infer import load_predictor
from kaft_promot.interop import load_model
from kaft_promot.interop.vocabulary import MINI
from kaft_promot.knowledge.targets import format_input
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.reading import held_out_examples


def test_mini_fits_git_and_names_its_sources():
    assert sum(path.stat().st_size for path in MINI.iterdir()) < 16e6
    text = (MINI / "README.md").read_text(encoding="utf-8")
    for source in ("Wikidata", "CC0", "T-REx", "SQuAD", "Natural Questions", "CC BY-SA"):
        assert source in text


def test_mini_loads_with_its_vocabulary():
    model = load_model("mini")
    assert model.config.emb_dim == 128 and model.config.vocab_size == 4096
    predictor = load_predictor("mini", max_decode_length=8)
    assert predictor.vocabulary.vocab_size == 4096


@pytest.mark.slow
def test_mini_reads_and_remembers_better_than_guessing():
    facts = facts_lib.load_facts()
    predictor = load_predictor("mini", max_decode_length=16)

    def share(rows: list[dict[str, str]]) -> float:
        outputs = predictor.generate([row["inputs"] for row in rows])
        return sum(o == row["targets"] for o, row in zip(outputs, rows, strict=True)) / len(rows)

    reading = held_out_examples(facts, facts_lib.READING_TEST, 0, seed=0)
    assert share(reading) > 0.8
    remembered = [f for f in facts if f.split == facts_lib.REMEMBERED_TEST]
    asked = [{"inputs": format_input(f.question()), "targets": f.answer} for f in remembered]
    assert share(asked) > 0.9
