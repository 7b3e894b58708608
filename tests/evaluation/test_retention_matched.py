"""Arms at matched target score: which steps are paired, and what is told of them."""

from hypothesis import given
from hypothesis import strategies as st
from retention_rows import CLAIMS, target_row, task_rows

from kaft_promot.evaluation import page_retention_matched, table
from kaft_promot.evaluation.retention import NAMES, OTHER, SHARE, TARGET, measure
from kaft_promot.evaluation.retention_matched import Pair, matched, pairs, target_scores

LAST = {"finetune": 30, "promot": 30, "lora": 30}


def test_whichever_scores_more_is_taken_back():
    scores = {
        "base": {0: 0.9},
        "finetune": {10: 0.5, 20: 0.62, 30: 0.8},
        "promot": {10: 0.5, 20: 0.78, 30: 0.95},
        "lora": {10: 0.5, 20: 0.55, 30: 0.6},
    }
    found = pairs(scores, LAST)
    assert found == {
        "promot": Pair("promot", {"promot": 20, "finetune": 30}, {"promot": 0.78, "finetune": 0.8}),
        "lora": Pair("lora", {"lora": 30, "finetune": 20}, {"lora": 0.6, "finetune": 0.62}),
    }
    earlier = pairs(scores, LAST | {"promot": 10})["promot"]  # no arm goes past what is reported
    assert earlier.steps == {"promot": 10, "finetune": 10}
    assert pairs({"promot": scores["promot"]}, LAST) == {}


def test_of_equally_near_steps_the_last():
    scores = {"finetune": {10: 0.5, 30: 0.5}, "promot": {10: 0.4, 20: 0.6, 30: 0.5}}
    assert pairs(scores, LAST)["promot"].steps == {"promot": 30, "finetune": 30}
    scores["promot"][30] = 0.9
    assert pairs(scores, LAST)["promot"].steps == {"promot": 20, "finetune": 30}


SCORES = st.dictionaries(st.integers(1, 9), st.floats(0, 1), min_size=1)


@given(finetune=SCORES, promot=SCORES)
def test_a_pair_is_never_further_apart_than_the_reported_steps(finetune, promot):
    scores = {"finetune": finetune, "promot": promot}
    reported = {arm: max(of_arm) for arm, of_arm in scores.items()}
    steps = pairs(scores, reported)["promot"].steps
    assert any(steps[arm] == reported[arm] for arm in steps)

    def apart(at):
        return abs(finetune[at["finetune"]] - promot[at["promot"]])

    assert apart(steps) <= apart(reported) + 1e-9


def rows_at(arm, step, right, words):
    target = [target_row(arm, n, n < right, question_id=f"fact {n}") for n in range(10)]
    return [row | {"step": step} for row in target + task_rows(arm, "first", words)]


def seed_rows(right):
    return [
        *rows_at("base", 0, 0, ["cat"] * 10),
        *rows_at("finetune", 30, 2, ["True"] * 9 + ["cat"]),
        *rows_at("promot", 20, right, ["cat"] * 9 + ["True"]),
        *rows_at("promot", 30, 10, ["True"] * 10),
    ]


def test_figures_are_those_of_the_two_steps():
    rows, validated = {0: seed_rows(2), 2: seed_rows(10)}, {0: seed_rows(2), 2: seed_rows(2)}
    pair = Pair("promot", {"promot": 20, "finetune": 30}, {"promot": 0.2, "finetune": 0.2})
    pairs_of = {0: {"promot": pair, "lora": pair}, 2: {"promot": pair}}
    found = matched(rows, validated, pairs_of, CLAIMS)
    assert list(found) == ["promot"]  # the other one is not in every seed
    promot = found["promot"]
    assert promot.matched == [0, 2]
    for seed, of_seed in rows.items():
        of_pair = [row for row in of_seed if (row["arm"], row["step"]) != ("promot", 30)]
        assert promot.tables[seed].estimates("promot") == measure(of_pair, CLAIMS)["promot"]
    said = promot.to_json()
    assert said["steps"] == {seed: {"promot": 20, "finetune": 30} for seed in ("0", "2")}
    assert said["validation"]["2"] == {"promot": 0.2, "finetune": 0.2}
    assert said["differences_of_seeds"]["finetune"]["0"]["promot"][TARGET]["value"] == 0
    assert said["differences"]["finetune"]["promot"][OTHER]["value"] == 0.8
    same = "promot's and finetune's target scores do not measurably differ"
    kept = "promot's in-context score on other formats is at least 80 % of base's"
    assert said["claims"][same] == {"holds": 1, "seeds": 2}
    assert said["claims"][kept] == {"holds": 2, "seeds": 2}
    page = page_retention_matched.section(found).html
    for text in ("20 / 30", "<b>20.0</b> / 20.0", "<b>90.0</b> / 10.0", "+80.0", "in 1 of 2 seeds"):
        assert text in page
    assert "not equally good" not in page
    assert set(NAMES) <= set(said["figures"]["0"]["promot"]) and SHARE in NAMES
    for width in (60, 400):
        shown = table.render_matched(found, width=width)
        assert "promot, seed 2" in shown and "20 / 30" in shown and "90.0 / 10.0, +80.0" in shown
        assert "20.0 / 20.0" in shown and "not matched" not in shown


def test_arms_that_still_differ_on_validation_are_not_matched():
    """Few measured steps, or none where the two would be equally good."""
    pair = Pair("promot", {"promot": 20, "finetune": 30}, {"promot": 1.0, "finetune": 0.2})
    rows = {0: seed_rows(10), 2: seed_rows(2)}
    found = matched(rows, rows, {0: {"promot": pair}, 2: {"promot": pair}}, CLAIMS)
    assert found["promot"].matched == [2]
    assert {looked for _, looked in found["promot"].claims().values()} == {1}
    assert found["promot"].to_json()["matched"] == [2]
    assert page_retention_matched.section(found).html.count("not equally good") == 1
    assert table.render_matched(found, width=400).count("not matched") == 1


def test_target_scores_are_means_of_the_target_alone():
    rows = rows_at("a", 20, 4, ["cat"]) + rows_at("a", 10, 2, ["cat"])
    assert target_scores(rows) == {"a": {10: 0.2, 20: 0.4}}
