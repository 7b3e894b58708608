"""Figures over seeds: Student's interval as scipy has it, and what is shown of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kaft_promot.evaluation import formatting, page_seeds, table
from kaft_promot.evaluation.seeds import OverSeeds, mean_change
from kaft_promot.evaluation.statistics import Estimate, paired_difference

NAME = "controllability_strict"
NONE = Estimate(value=None, low=None, high=None, n=0)


@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=9))
def test_the_interval_over_seeds_is_students(values):
    change = mean_change(values)
    assert change.seeds == len(values)
    if max(values) - min(values) < 1e-9:
        assert change.low is change.high is None  # says nothing of how seeds vary
        return
    if max(values) - min(values) > 1e-6:  # scipy warns of what it cannot tell apart
        found = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert change.low == pytest.approx(max(-1.0, found.low), abs=1e-9)
        assert change.high == pytest.approx(min(1.0, found.high), abs=1e-9)
    assert change.low <= change.value <= change.high


def test_one_seed_has_no_interval_and_none_no_value():
    one = mean_change([0.25])
    assert (one.value, one.low, one.high, one.seeds) == (0.25, None, None, 1)
    assert formatting.change(one) == "+25.0"
    none = mean_change([])
    assert (none.value, none.seeds) == (None, 0) and formatting.change(none) == "–"


class Scores:
    """Scores of one seed: arm -> outcome of each example."""

    def __init__(self, outcomes):
        self.arms, self.outcomes = list(outcomes), outcomes

    def estimates(self, arm):
        value = sum(self.outcomes[arm]) / 10
        return {NAME: Estimate(value=value, low=0.0, high=1.0, n=10), "reading_em": NONE}


def differences(scores, reference):
    base = scores.outcomes[reference]
    return {
        arm: {NAME: paired_difference(values, base), "reading_em": NONE}
        for arm, values in scores.outcomes.items()
        if arm != reference
    }


def over_seeds():
    """Three seeds: kaft +0.1, +0.2, +0.3 above the base; lora in the last seed alone, and below."""
    base = [0.0] * 8 + [1.0] * 2
    outcomes = [{"base": base, "kaft": [1.0] * n + [0.0] * (10 - n)} for n in (3, 4, 5)]
    outcomes[2]["lora"] = [0.0] * 10
    tables = {seed: Scores(of_seed) for seed, of_seed in enumerate(outcomes)}
    return OverSeeds.of([NAME, "reading_em"], tables, differences, ["base", "finetune"])


def test_json_has_every_seed_and_the_differences_over_them():
    found = over_seeds().to_json()
    assert [of_seed["kaft"][NAME]["value"] for of_seed in found["figures"].values()] == [
        0.3,
        0.4,
        0.5,
    ]
    assert set(found["differences"]) == {"base"}  # no seed has a finetune
    single = found["differences_of_seeds"]["base"]["1"]["kaft"][NAME]
    assert single == paired_difference([1.0] * 4 + [0.0] * 6, [0.0] * 8 + [1.0] * 2).to_json()
    of_base = found["differences"]["base"]
    assert of_base["kaft"][NAME] == {
        "value": pytest.approx(0.2),
        "low": pytest.approx(0.2 - 4.302653 * 0.1 / 3**0.5, abs=1e-6),
        "high": pytest.approx(0.2 + 4.302653 * 0.1 / 3**0.5, abs=1e-6),
        "seeds": 3,
    }
    assert of_base["lora"][NAME] == {
        "value": pytest.approx(-0.2),
        "low": None,
        "high": None,
        "seeds": 1,
    }


def test_tables_for_people():
    over = over_seeds()
    lines = table.render_changes(over, "base", width=120).splitlines()
    assert lines[0].split() == "minus base over 3 seeds [95 % over seeds] kaft lora".split()
    shown = "Controllability (strict) +20.0 [−4.8, +44.8] −20.0 (1 of them)"
    assert lines[-1].split() == shown.split() and len(lines) == 3  # reading was not measured
    narrow = table.render_changes(over, "base", width=50)
    assert max(map(len, narrow.splitlines())) <= 50
    words = "Controllability (strict) kaft +20.0 [−4.8, +44.8] lora −20.0 (1 of them)".split()
    assert narrow.split()[-len(words) :] == words
    html = page_seeds.section("a", "Over 3 seeds", over, "<p>after</p>").html
    assert "<b>40.0</b>" in html and "30.0 to 50.0" in html and "seeds: 1" in html
    assert "+20.0" in html and "[−4.8, +44.8]" in html and html.endswith("<p>after</p>")
    assert "Differences to base over seeds" in html
