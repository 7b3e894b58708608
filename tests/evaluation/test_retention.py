"""Retention figures by hand, and what they must not depend on."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retention_rows import CLAIMS, target_row, task_row, task_rows
from scipy import stats

from kaft_promot.errors import UserError
from kaft_promot.evaluation import measurements, retention, retention_seeds, seeds, table
from kaft_promot.evaluation.output_share import register_format
from kaft_promot.evaluation.retention import ALL, NAMES, OTHER, SAME, SHARE, TARGET, Scores, measure
from kaft_promot.evaluation.retention_steps import curves
from kaft_promot.evaluation.retention_words import focus_arm, headline


@pytest.fixture
def rows():
    """`first`: 4 examples, `last`: 2 (one target looks like the format), `is_it`: 4."""
    found = []
    for arm, first, last, is_it, right in (
        ("promot", ["cat", "cat", "cat", "dog"], ["cat", "True"], ["True"] * 2 + ["cat"] * 2, 3),
        ("base", ["cat"] * 4, ["cat", "True"], ["True"] * 4, 1),
        ("finetune", ["True", "cat", "false.", "dog"], ["True", "True"], ["True"] * 4, 3),
    ):
        found += task_rows(arm, "first", first)
        found += [
            task_row(arm, "last", n, a, t)
            for n, (a, t) in enumerate(zip(last, ("cat", "True"), strict=True))
        ]
        found += task_rows(arm, "is_it", is_it, "True")
        found += [target_row(arm, n, n < right) for n in range(4)]
    return found


def test_by_hand(rows):
    figures = measure([*rows, {"suite": "grounding", "arm": "kaft"}, {"arm": "kaft"}], CLAIMS)
    assert list(figures) == ["base", "finetune", "promot"]
    values = {
        arm: [(estimate.value, estimate.n) for estimate in of_arm.values()]
        for arm, of_arm in figures.items()
    }
    assert all(tuple(of_arm) == NAMES for of_arm in figures.values())
    assert values["base"] == [(0.25, 4), (1.0, 6), (1.0, 4), (pytest.approx((0 + 0.5) / 2), 6)]
    # first 1/4 right, last 1/2 right: a task counts once, however many examples it has.
    finetune = [(0.75, 4), (pytest.approx(0.375), 6), (1.0, 4), (pytest.approx((0.5 + 1) / 2), 6)]
    assert values["finetune"] == finetune
    assert values["promot"] == [(0.75, 4), (0.875, 6), (0.5, 4), (pytest.approx(0.25), 6)]
    for of_arm in figures.values():
        for estimate in of_arm.values():
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    # The two claims about a fact are one question.
    assert figures["base"][TARGET].clusters == 2 and figures["base"][OTHER].clusters == 6


def test_details_hold_what_the_page_shows_beside_the_four_figures(rows):
    scores = Scores(rows, CLAIMS)
    details = retention.details_json(scores)
    assert json.loads(json.dumps(details)) == details
    four = retention.results_json(measure(rows, CLAIMS))["promot"]
    for arm, of_arm in four.items():
        assert details["arms"][arm] == {**of_arm, ALL: details["arms"][arm][ALL]}
    # first 1/4, last 1/2, is_it 4/4
    assert details["arms"]["finetune"][ALL]["value"] == pytest.approx((0.25 + 0.5 + 1) / 3)
    assert set(details["differences"]) == {"base", "finetune"}
    assert set(details["differences"]["finetune"]) == {"base", "promot"}
    to_base = details["differences"]["base"]["promot"][OTHER]
    assert to_base == scores.difference("promot", "base", OTHER).to_json()
    assert to_base["value"] == -0.125 and to_base["p_value"] == 1.0
    first, is_it = details["tasks"]["first_2shot"], details["tasks"]["is_it_2shot"]
    assert (first["target_format"], is_it["target_format"]) == (False, True)
    assert first["scores"]["finetune"]["value"] == 0.25
    assert {arm: loss["value"] for arm, loss in first["losses"].items()} == {
        "finetune": 0.75,
        "promot": 0.25,
    }
    assert first["output_shares"]["finetune"]["value"] == 0.5 and not is_it["output_shares"]
    without = retention.details_json(Scores([r for r in rows if r["arm"] != "base"], CLAIMS))
    assert (
        set(without["differences"]) == {"finetune"}
        and not without["tasks"]["first_2shot"]["losses"]
    )


def test_the_format_is_that_of_all_targets_of_a_task(rows):
    scores = Scores(rows, CLAIMS)
    assert scores.tasks == {"first_2shot": False, "last_2shot": False, "is_it_2shot": True}
    assert scores.labels["is_it_2shot"] == "is_it, 2 shots"
    register_format("retention_any", lambda output: True)
    everything = Scores([row for row in rows if row["suite"] != "target"], "retention_any")
    assert set(everything.tasks.values()) == {True}
    assert everything.estimate("base", OTHER).value is None
    assert everything.estimate("base", SHARE).n == 0
    assert everything.estimate("base", TARGET).to_json()["value"] is None


def test_a_format_shows_in_the_output_as_written_or_as_read():
    register_format("retention_suffix", lambda output: output.endswith("(from context)"))
    written = task_row("a", "first", 0, "cat") | {"prediction": "cat (from context)"}
    sentinel = task_row("a", "first", 0, "True") | {"prediction": "<extra_id_0> True"}
    assert measure([written], "retention_suffix")["a"][SHARE].value == 1
    assert measure([sentinel], CLAIMS)["a"][SHARE].value == 1


def test_results_json(rows):
    written = json.loads(json.dumps(retention.results_json(measure(rows, CLAIMS))))
    assert list(written) == ["promot"] and set(written["promot"]) == {"base", "finetune", "promot"}
    for of_arm in written["promot"].values():
        assert tuple(of_arm) == NAMES == tuple(m.name for m in measurements.RETENTION)
        assert all(set(figure) == {"value", "low", "high", "n"} for figure in of_arm.values())
    assert written["promot"]["promot"][OTHER]["value"] == 0.875


def test_terminal_table_has_one_line_a_figure(rows):
    lines = table.render(measure(rows, CLAIMS), NAMES, width=150).splitlines()
    assert lines[0].split()[-4:] == ["base", "finetune", "promot", "n"]
    for m in measurements.RETENTION:
        (line,) = [line for line in lines if line.startswith(m.title + "  ")]
        assert "[" in line
    assert next(line for line in lines if line.startswith("Output share")).endswith("6")


def test_paired_differences_and_losses():
    right = {"base": 11, "finetune": 3, "promot": 10}
    rows = []
    for arm, count in right.items():
        for task in ("first", "last"):
            rows += task_rows(arm, task, ["cat"] * count + ["True"] * (12 - count))
        rows += [target_row(arm, 2 * n, n < count) for n in range(12)]
    scores = Scores(rows, CLAIMS)
    to_base = retention.differences(scores, "base")
    assert set(to_base) == {"finetune", "promot"}
    change = to_base["finetune"][OTHER]
    assert change.value == pytest.approx(-8 / 12) and (change.wins, change.losses) == (0, 16)
    assert change.p_value == pytest.approx(stats.binomtest(0, 16).pvalue)
    assert to_base["finetune"][SHARE].value == pytest.approx(8 / 12)
    assert to_base["promot"][TARGET].p_value == 1.0
    loss = retention.losses(scores)["finetune"]
    assert loss[OTHER].value == loss[ALL].value == pytest.approx(8 / 12)
    assert loss["first_2shot"].p_value == pytest.approx(stats.binomtest(8, 8).pvalue)
    assert loss[SAME].value is None
    against = retention.differences(scores, "finetune", names=[TARGET])
    assert against["promot"] == {TARGET: scores.difference("promot", "finetune", TARGET)}


def test_differences_are_over_the_examples_that_both_arms_have():
    rows = task_rows("base", "first", ["cat"] * 4) + task_rows("base", "last", ["cat"] * 4)
    rows += task_rows("lora", "first", ["cat", "dog", "dog"])
    difference = Scores(rows, CLAIMS).difference("lora", "base", OTHER)
    assert difference.n == 3 and difference.value == pytest.approx(-2 / 3)
    nothing = Scores(rows, CLAIMS).difference("lora", "base", TARGET)
    assert nothing.value is None and nothing.n == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["cat", "dog", "True"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["cat", "True"]), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_names_of_rows_matter(first, last, right, shuffler: random.Random):
    rows = task_rows("base", "first", ["cat"] * 6) + task_rows("x", "first", first)
    rows += task_rows("x", "last", last)
    rows += [target_row("x", n, ok) for n, ok in enumerate(right)]
    expected = measure(rows, CLAIMS)
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert measure(shuffled, CLAIMS) == expected
    scores = Scores(rows, CLAIMS), Scores(shuffled, CLAIMS)
    assert scores[0].difference("x", "base", OTHER) == scores[1].difference("x", "base", OTHER)
    keys = list({row["example_id"] for row in rows})
    names = dict(zip(keys, shuffler.sample(range(1000), len(keys)), strict=True))
    named = [
        row
        | {
            "example_id": f"e{names[row['example_id']]}",
            "question_id": f"q {row['question_id']}",
            "task": row["task"] if row["suite"] == "target" else f"t{row['task']}",
            "arm": {"base": "b", "x": "a"}[row["arm"]],
        }
        for row in shuffled
    ]
    renamed = measure(named, CLAIMS)
    for arm, other in (("base", "b"), ("x", "a")):
        for name in NAMES:
            there, back = expected[arm][name], renamed[other][name]
            assert (there.n, there.clusters) == (back.n, back.clusters)
            assert there.value == pytest.approx(back.value)


def test_bad_rows_are_named(rows):
    with pytest.raises(UserError, match="target task 'retention_none' has no format predicate"):
        measure(rows, "retention_none")
    other = target_row("base", 9) | {"task": "rte"}
    with pytest.raises(UserError, match="arm 'base': .* target task 'rte', not of"):
        measure([*rows, other], CLAIMS)
    blank = {k: v for k, v in task_row("a", "first", 0, "x").items() if k != "target"}
    with pytest.raises(UserError, match="arm 'a', example 'first:0': .* has no target;"):
        measure([blank | {"scores": {}}], CLAIMS)
    with pytest.raises(ValueError, match="example .* twice"):
        measure([*rows, rows[0] | {"seed": 1}], CLAIMS)
    assert measure([], CLAIMS) == {}


def curve(arm, right_by_step, other_by_step):
    rows = []
    for (step, right), other in zip(right_by_step.items(), other_by_step, strict=True):
        rows += [target_row(arm, n, n < right, step=step) for n in range(10)]
        rows += [
            row | {"step": step}
            for row in task_rows(arm, "first", ["cat"] * other + ["True"] * (10 - other))
        ]
    return rows


def test_curves():
    rows = curve("finetune", {10: 4, 20: 9, 30: 8}, [8, 4, 0])
    rows += curve("promot", {30: 8, 10: 6, 20: 9}, [10, 10, 9])
    rows += curve("lora", {10: 5, 30: 7}, [10, 10]) + curve("base", {0: 9}, [10])
    found = curves(rows, CLAIMS)
    assert {arm: list(of_arm) for arm, of_arm in found.items()} == {
        "base": [0],
        "finetune": [10, 20, 30],
        "promot": [10, 20, 30],
        "lora": [10, 30],
    }
    assert found["finetune"][20][SHARE].value == 0.6 and found["promot"][30][OTHER].value == 1
    with pytest.raises(UserError, match="needs an integer step"):
        curves([target_row("finetune", 0)], CLAIMS)


def test_over_seeds(rows):
    worse = [
        row | {"scores": {"exact_match": 0.0}}
        if (row["suite"], row["arm"]) == ("target", "promot")
        else row
        for row in rows
    ]
    everything = [row | {"seed": 4} for row in rows] + [row | {"seed": 2} for row in worse]
    per_seed = seeds.by_seed(everything)
    assert list(per_seed) == [2, 4] and list(seeds.by_seed(rows)) == [0]
    over = retention_seeds.over_seeds(retention_seeds.tables_of(everything, CLAIMS))
    spread = over.spreads()["promot"][TARGET]
    assert spread == seeds.Spread(minimum=0.0, median=0.375, maximum=0.75, seeds=2)
    assert over.figures == {seed: measure(of_seed, CLAIMS) for seed, of_seed in per_seed.items()}
    change = over.changes("finetune")["promot"][TARGET]  # 0 in seed 4, -0.75 in seed 2
    assert change.value == -0.375 and change.seeds == 2
    assert change.low == -1.0 and change.high == 1.0  # of two seeds, cut off at what is possible
    none = retention_seeds.over_seeds({0: Scores(rows[:1], CLAIMS)}).spreads()["promot"][TARGET]
    assert none.median is None and none.seeds == 0
    held = retention_seeds.seeds_that_hold(
        {seed: retention_seeds.claims(Scores(r, CLAIMS)) for seed, r in per_seed.items()}
    )
    assert held == {
        "finetune's in-context score on other formats is at most 25 % of base's": (0, 2),
        "finetune's output share is above 80 %": (0, 2),
        "promot's in-context score on other formats is at least 80 % of base's": (2, 2),
        "promot's target score is not measurably below finetune's": (2, 2),
        "promot's and finetune's target scores do not measurably differ": (2, 2),
    }
    assert retention_seeds.claims(Scores(rows[:1], CLAIMS)) == {}


def test_a_claim_fails_where_the_interval_says_so():
    rows = [target_row("finetune", 2 * n, True) for n in range(20)]
    rows += [target_row("promot", 2 * n, n < 2) for n in range(20)]
    claims = retention_seeds.claims(Scores(rows, CLAIMS))
    assert claims == {
        "promot's target score is not measurably below finetune's": False,
        "promot's and finetune's target scores do not measurably differ": False,
    }


def test_a_claim_stands_where_the_test_cannot_say_otherwise():
    """Three questions: the interval is below zero, but p is 0.25."""
    rows = [
        target_row(arm, 2 * n, arm == "finetune")
        for arm in ("finetune", "promot")
        for n in range(3)
    ]
    assert Scores(rows, CLAIMS).difference("promot", "finetune", TARGET).high < 0
    assert all(retention_seeds.claims(Scores(rows, CLAIMS)).values())


def test_headline(rows):
    assert headline(measure(rows, CLAIMS)) == (
        "promot gets 75.0 % of the target task right (finetune: 75.0 %) and scores 87.5 % on "
        "in-context tasks of other formats (base: 100.0 %; finetune: 37.5 %)"
    )
    two = measure([row for row in rows if row["arm"] != "promot"], CLAIMS)
    assert focus_arm(two) == "finetune"
    assert headline(two).startswith("finetune gets 75.0 % of the target task right and scores")
    assert headline({}) == "No arm was evaluated on retention"


def test_a_score_that_is_not_right_or_wrong_is_not_called_right(rows):
    graded = {"main_score": "bleu", "scores": {"exact_match": 0.0, "bleu": 0.35}}

    def said_of(rows):
        table = Scores(rows, CLAIMS)
        return headline({arm: table.estimates(arm) for arm in table.arms}, table.graded(TARGET))

    said = said_of([r | graded if r["suite"] == "target" else r for r in rows])
    assert said.startswith(
        "promot scores 35.0 % on the target task (bleu, mean over examples; finetune: 35.0 %) and "
        "scores 87.5 % on in-context tasks"
    )
    accuracy = [r | {"main_score": "accuracy", "scores": {"accuracy": 1.0}} for r in rows]
    assert "gets 100.0 % of the target task right" in said_of(accuracy)
    half = [r | {"scores": {"exact_match": 0.5}} for r in rows]
    assert "scores 50.0 % on the target task (exact_match, mean" in said_of(half)
    one_of_them = Scores([rows[0], *[r | graded for r in rows[1:]]], CLAIMS)
    assert one_of_them.graded(SAME) == "bleu"
    assert one_of_them.graded(OTHER) == "bleu, exact_match"
    assert one_of_them.graded(SHARE) == ""
