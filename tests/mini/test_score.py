"""The score card, with a stand-in for the model that knows some answers."""

from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.fewshot import TASKS
from kaft_promot.mini.score import SHOTS, score, score_rows


class Knower:
    """Answers every prompt that it was told the answer of, in other letters."""

    def __init__(self, answers: dict[str, str]):
        self.answers = answers

    def generate(self, prompts, progress=False):
        return [self.answers.get(prompt, "").upper() + "." for prompt in prompts]


def test_every_figure_is_asked(split_part):
    rows = score_rows(split_part, 5, 0)
    names = {row["name"] for row in rows}
    assert len(names) == 3 + 2 + len(TASKS) * len(SHOTS)
    tests = [row for row in rows if row["name"] == f"closed_book {facts_lib.REMEMBERED_TEST}"]
    assert len(tests) == 60
    for name in TASKS:
        queries = {
            shots: [
                row["inputs"].split(" ; ")[-1]
                for row in rows
                if row["name"].endswith(f" {name} {shots}-shot")
            ]
            for shots in SHOTS
        }
        assert queries[0] == queries[1] == queries[2] == queries[4]
        assert len(queries[0]) == 5
    assert score_rows(split_part, 5, 0) == rows


def test_right_answers_count(split_part):
    rows = score_rows(split_part, 4, 0)
    known = {row["inputs"]: row["targets"] for row in rows if row["name"].startswith("closed")}
    estimates = score(Knower(known), rows)
    for name, estimate in estimates.items():
        assert estimate.value == (1.0 if name.startswith("closed") else 0.0), name
        assert estimate.low <= estimate.value <= estimate.high
    assert estimates["closed_book remembered_test"].n == 60
