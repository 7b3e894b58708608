import json

import pytest

from kaft_promot.evaluation import grounding, measurements, results, table
from kaft_promot.evaluation.grounding import measure, score_row
from kaft_promot.evaluation.rows import read_rows
from kaft_promot.evaluation.runner import run_suite

BASE = {
    "context_kind": "relevant",
    "answer": "Paris",
    "source": "context",
    "question": "Where was Ann born?",
    "context": "Ann was born in Paris.",
    "contextual_answers": ["Paris"],
    "gold_answers": ["Paris", "City of Paris"],
    "parametric_answer": "Paris",
}


def score(**fields):
    return score_row({**BASE, **fields})


def test_relevant():
    assert score() == {"source_accuracy": 1, "reading_em": 1, "reading_f1": 1}
    off = score(answer="Paris, France", source=None)
    assert off == {"source_accuracy": 0, "reading_em": 0, "reading_f1": pytest.approx(2 / 3)}


def test_counterfactual_counts_only_what_the_base_knew():
    conflict = {"context_kind": "counterfactual", "contextual_answers": ["Rome", "Roma"]}
    followed = score(**conflict, answer="roma")
    assert followed == {"source_accuracy": 1, "controllability_strict": 1, "p_s": 1, "p_o": 0}
    stubborn = score(**conflict, answer="City of Paris", source="empty context")
    assert stubborn == {"source_accuracy": 0, "controllability_strict": 0, "p_s": 0, "p_o": 1}
    both = score(**conflict, answer="Rome, not Paris")
    assert (both["controllability_strict"], both["p_s"], both["p_o"]) == (0, 1, 1)
    for parametric in ("London", None):
        assert score(**conflict, parametric_answer=parametric) == {"source_accuracy": 1}


def test_a_question_of_several_passages_is_drawn_as_one():
    rows = []
    for question in range(12):
        for passage in range(10):
            right = question % 2 == 0
            name = f"{question}-{passage}"
            rows.append(
                {
                    **BASE,
                    "arm": "kaft",
                    "example_id": name,
                    "question_id": f"nq:{name}",
                    "question": f"Who was number {question}" + ("?" if passage % 2 else " ?"),
                    "answer": "Paris" if right else "Rome",
                }
            )
    found = measure(rows)["kaft"]["reading_em"]
    assert (found.n, found.clusters) == (120, 12)
    once = measure(rows[::10])["kaft"]["reading_em"]
    assert found.low < 0.3 and found.high > 0.7 and once.n == 12  # as wide as with one row each


def test_an_output_that_matches_both_answers_does_not_count():
    same = {"context_kind": "counterfactual", "contextual_answers": ["Paris"]}
    assert score(**same)["controllability_strict"] == 0


def test_irrelevant():
    passage = {"context_kind": "irrelevant", "context": "Bob was born in Oslo, Norway."}
    wrong_memory = {**passage, "parametric_answer": "Rome", "source": "irrelevant context"}

    def robust(**fields):
        scores = score(**fields)
        return scores["robustness_agree"], scores["robustness_no_extraction"]

    assert robust(**wrong_memory, answer="Rome") == (1, 1)  # its own answer, though wrong
    assert robust(**wrong_memory, answer="Paris") == (0, 1)  # right, but not its own
    assert robust(**wrong_memory, answer="Oslo") == (0, 0)
    assert robust(**wrong_memory, answer="Oslo Norway") == (0, 0)
    for span in ("Bergen", "Voss", "1820", "東京"):  # at a dash, at a slash, without spaces
        context = "The Bergen\N{EM DASH}Voss/Oslo line, 1820\N{EN DASH}1830. 彼は東京に住んでいる。"
        assert robust(**{**wrong_memory, "context": context}, answer=span) == (0, 0)
    assert robust(**wrong_memory, answer="born") == (0, 1)  # the question's own word
    assert robust(**{**wrong_memory, "parametric_answer": "Oslo"}, answer="Oslo") == (1, 1)
    assert robust(**wrong_memory, answer="unanswerable") == (0, 1)
    assert score(**{**wrong_memory, "parametric_answer": None}) == {"source_accuracy": 1}


def test_empty():
    closed = {"context_kind": "empty", "context": "", "source": "empty context"}
    assert score(**closed) == {"source_accuracy": 1, "retention_em": 1, "retention_agree": 1}
    kept = score(**closed, answer="Rome", parametric_answer="Rome")
    assert (kept["retention_em"], kept["retention_agree"]) == (0, 1)
    learned = score(**closed, parametric_answer="Rome")
    assert (learned["retention_em"], learned["retention_agree"]) == (1, 0)
    assert "retention_em" not in score(**closed, gold_answers=[])


def test_rows_of_other_suites_earn_nothing():
    assert score(context_kind="fewshot") == {}
    assert measure([{"arm": "a", "example_id": "e", "context_kind": None}]) == {}


@pytest.fixture
def rows(records, model, tmp_path):
    arms = {
        "kaft": {},
        "base": {"follow": 0.4, "distracted": 0.9, "suffix": False},
        "relevant_only": {"distracted": 1.0, "keep": 0.5},
    }
    for arm, habits in arms.items():
        path = tmp_path / "rows.jsonl"
        run_suite("grounding", model(records, **habits), records, arm=arm, rows_path=path)
    return read_rows(tmp_path / "rows.jsonl").samples


def test_a_perfect_arm_and_a_distracted_one(rows):
    figures = measure(rows)
    assert list(figures) == ["base", "relevant_only", "kaft"]
    kaft, distracted = figures["kaft"], figures["relevant_only"]
    assert kaft["controllability_strict"].value == 1 and kaft["controllability_strict"].n == 10
    assert kaft["controllability_strict"].low < 0.9  # ten examples are not certain
    assert kaft["robustness_agree"].value == kaft["robustness_no_extraction"].value == 1
    assert kaft["source_accuracy"].value == 1 and kaft["source_accuracy"].n == 80
    assert distracted["robustness_agree"].value == 0
    assert kaft["memorization_ratio"].value == 0
    assert kaft["retention_em"].value == 0.5 and kaft["retention_agree"].value == 1


def test_every_figure_is_a_mean_over_rows(rows):
    """Recomputes results.json from the rows by hand."""
    written = json.loads(json.dumps(results.results_json(measure(rows), promot={"base": {}})))
    assert list(written) == ["arms", "promot"]
    assert {m.name for m in measurements.MAIN} == set(grounding.MAIN_NAMES)
    for arm, of_arm in written["arms"].items():
        assert tuple(of_arm) == grounding.MAIN_NAMES
        for name, figure in of_arm.items():
            scores = [
                row["scores"][name] for row in rows if row["arm"] == arm and name in row["scores"]
            ]
            assert set(figure) == {"value", "low", "high", "n"}
            assert figure["n"] == len(scores) > 0
            assert figure["value"] == pytest.approx(sum(scores) / len(scores))
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


def test_stored_scores_are_those_that_are_measured(rows):
    assert all(row["scores"] == score_row(row) for row in rows)


def test_order_of_rows_does_not_matter(rows):
    there, back = measure(rows), measure(rows[::-1])
    for arm, of_arm in there.items():
        for name, estimate in of_arm.items():
            assert estimate.value == pytest.approx(back[arm][name].value)
            assert estimate.n == back[arm][name].n


def test_irrelevant_kinds_apart(rows):
    figures = measure(rows)["base"]
    apart = [figures["robustness_agree_random"], figures["robustness_agree_annotated"]]
    assert sum(e.n for e in apart) == figures["robustness_agree"].n
    total = sum(e.value * e.n for e in apart)
    assert total == pytest.approx(figures["robustness_agree"].value * figures["robustness_agree"].n)


def test_shared_conflicts_are_known_to_every_arm(rows):
    figures = measure(rows)
    forgotten = {
        row["question_id"]
        for row in rows
        if row["context_kind"] == "empty" and row["answer"] == "Nowhere"
    }
    known = {row["question_id"] for row in rows if grounding.knew(row)}
    expected = len(known - forgotten)
    assert 0 < expected < figures["kaft"]["controllability_strict"].n
    for of_arm in figures.values():
        assert of_arm["controllability_strict_shared"].n == expected


def test_paired_differences_are_on_the_same_examples(rows):
    without = [r for r in rows if (r["arm"], r["question_id"]) != ("kaft", "towns:q3")]
    scores = grounding.Scores(without)
    difference = grounding.differences(scores, "base")["kaft"]["robustness_agree"]
    assert difference.n == 19
    by_hand = {
        arm: [
            row["scores"]["robustness_agree"]
            for row in rows
            if row["arm"] == arm
            and row["context_kind"] == "irrelevant"
            and row["example_id"] != "q3/irrelevant"
        ]
        for arm in ("kaft", "base")
    }
    assert difference.value == pytest.approx((sum(by_hand["kaft"]) - sum(by_hand["base"])) / 19)
    assert difference.p_value < 0.001


def test_arm_without_rows_of_a_kind_has_no_value(rows):
    only = [row for row in rows if row["context_kind"] == "relevant"]
    figures = measure(only)["kaft"]
    assert figures["controllability_strict"].to_json() == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }
    assert figures["memorization_ratio"].value is None and figures["reading_em"].n == 20
    assert "–" in table.render(measure(only))


def test_table_side_by_side_and_in_blocks(rows):
    figures = measure(rows)
    wide = table.render(figures, width=200).splitlines()
    assert wide[0].split()[-4:] == ["base", "relevant_only", "kaft", "n"]
    line = next(line for line in wide if line.startswith("Robustness (agree)"))
    assert line.split()[-1] == "20" and "100.0 [" in line
    narrow = table.render(figures, width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.count("n = 20") >= 9
    assert table.render({}) == "no arm was evaluated"
