import itertools
import json

import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation import suites
from kaft_promot.evaluation.rows import read_rows
from kaft_promot.evaluation.runner import run_suite
from kaft_promot.knowledge.records import write_records


def run(records, model, tmp_path, **options):
    options = {"arm": "kaft", "rows_path": tmp_path / "rows.jsonl", "progress": False, **options}
    return run_suite("grounding", model, records, **options)


def test_rows_hold_what_measuring_and_reading_need(records, model, tmp_path):
    rows = run(records, model(records), tmp_path, checkpoint="runs/x", note={"seed": 4})
    assert [row["example_id"] for row in rows[:2]] == ["q0/relevant", "q1/relevant"]
    conflict = next(row for row in rows if row["example_id"] == "q0/counterfactual")
    assert conflict["prompt"].startswith("question: Where was person 0 born? context: Person 0")
    assert (conflict["prediction"], conflict["answer"]) == ("Lyon (from context)", "Lyon")
    assert conflict["question_id"] == "towns:q0" and conflict["task"] == "kaft_counterfactual"
    assert conflict["scores"] == {
        "source_accuracy": 1.0,
        "controllability_strict": 1.0,
        "p_s": 1.0,
        "p_o": 0.0,
    }
    read = read_rows(tmp_path / "rows.jsonl")
    assert {json.dumps(r) for r in read.samples} == {json.dumps(r) for r in rows}
    note = read.notes["kaft"]
    assert (note["seed"], note["checkpoint"]) == (4, "runs/x") and "jax" in note["versions"]


def test_a_records_file_gives_the_same_rows(records, model, tmp_path):
    write_records(tmp_path / "records.jsonl", records)
    from_list = run(records, model(records), tmp_path)
    path = tmp_path / "other.jsonl"
    assert run(tmp_path / "records.jsonl", model(records), tmp_path, rows_path=path) == from_list


class Killed(BaseException):
    pass


class Dying:
    """Answers `batches` calls, then the process is gone."""

    def __init__(self, model, batches):
        self.model, self.left = model, batches

    def generate(self, prompts):
        if not self.left:
            raise Killed
        self.left -= 1
        return self.model.generate(prompts)


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_killed_evaluation_continues_where_it_was(records, model, tmp_path, cut):
    whole = run(records, model(records), tmp_path, rows_path=tmp_path / "whole.jsonl")
    path = tmp_path / "rows.jsonl"
    with pytest.raises(Killed):
        run(records, Dying(model(records), 3), tmp_path, batch_size=10)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    second = model(records)
    assert run(records, second, tmp_path, batch_size=10) == whole
    assert second.calls == len(records) - 30 + (cut > 0)
    assert sorted(r["example_id"] for r in read_rows(path).samples) == sorted(r.id for r in records)


def test_a_finished_evaluation_asks_nothing_and_writes_nothing(records, model, tmp_path):
    run(records, model(records), tmp_path)
    before = (tmp_path / "rows.jsonl").read_bytes()
    again = model(records)
    run(records, again, tmp_path)
    assert again.calls == 0 and (tmp_path / "rows.jsonl").read_bytes() == before


def test_arms_share_a_file(records, model, tmp_path):
    for arm in ("base", "kaft"):
        assert len(run(records, model(records), tmp_path, arm=arm)) == len(records)
    assert len(read_rows(tmp_path / "rows.jsonl").samples) == 2 * len(records)


def test_rows_of_another_model_or_prompt_are_refused(records, model, tmp_path):
    run(records, model(records), tmp_path, checkpoint="step 100")
    said = r"arm 'kaft'.*another checkpoint \('step 100', now 'step 200'\)"
    with pytest.raises(UserError, match=said):
        run(records, model(records), tmp_path, checkpoint="step 200")
    changed = [type(r).from_json({**r.to_json(), "question": "Who?"}) for r in records]
    with pytest.raises(UserError, match="rows.jsonl: arm 'kaft' has a row for example .* question"):
        run(changed, model(changed), tmp_path, checkpoint="step 100")


def test_no_examples_and_double_ids_are_user_errors(records, model, tmp_path):
    with pytest.raises(UserError, match="no example"):
        run([], model([]), tmp_path)
    with pytest.raises(UserError, match="two examples have the id 'q0/relevant'"):
        run(records + records[:1], model(records), tmp_path)
    assert not (tmp_path / "rows.jsonl").exists()


def test_unknown_suite_names_near_ones():
    with pytest.raises(UserError, match="no evaluation suite is called 'groundng'; did you mean"):
        suites.get("groundng")
    with pytest.raises(UserError, match="known: .*grounding"):
        suites.get("xyz")
    with pytest.raises(UserError, match=r"no module 'no_such_module' \(SUITE_MODULE"):
        suites.get("grounding", "no_such_module")


def test_a_module_that_does_not_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "half_a_suite.py").write_text("import suites_of_nobody\n")
    (tmp_path / "wrong_suite.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="'half_a_suite' needs 'suites_of_nobody'"):
        suites.get("grounding", "half_a_suite")
    with pytest.raises(UserError, match="'wrong_suite' does not import: ZeroDivisionError"):
        suites.get("grounding", "wrong_suite")


def test_a_users_own_suite_by_module(tmp_path, monkeypatch, model):
    (tmp_path / "shouting_suite.py").write_text(
        "from kaft_promot.evaluation.suites import *\n"
        "from kaft_promot.evaluation import suites\n"
        "examples = lambda words: [EvalExample(example_id=w, question_id=w, prompt=w,"
        " fields={'as': (1, 2)}) for w in words]\n"
        "suites.register(Suite(name='shouting', description='', tasks=(EvalTask(name='shout',"
        " examples=examples, read=lambda text: {'answer': text},"
        " score=lambda row: {'loud': float(row['answer'].isupper())}),)))\n"
    )
    monkeypatch.chdir(tmp_path)  # not on Python's path

    class Shouter:
        def generate(self, prompts):
            return [p.upper() for p in prompts]

    options = {"arm": "a", "rows_path": tmp_path / "rows.jsonl", "module": "shouting_suite"}
    for _ in range(2):  # the second time its rows are there
        rows = run_suite("shouting", Shouter(), ["ab", "c"], progress=False, **options)
        assert [row["scores"] for row in rows] == [{"loud": 1.0}] * 2
        assert rows[0]["as"] == [1, 2]
    del suites._REGISTRY["shouting"]


def test_batches_are_of_like_lengths(records, model, tmp_path):
    class Watching:
        def __init__(self):
            self.lengths = []

        def generate(self, prompts):
            self.lengths += [len(p) for p in prompts]
            return ["x"] * len(prompts)

    watching = Watching()
    run(records, watching, tmp_path, batch_size=7)
    assert all(a >= b for a, b in itertools.pairwise(watching.lengths))
