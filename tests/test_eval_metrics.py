"""`eval` reports a task's own metrics: the figures that SeqIO's evaluation gives a T5X user."""

import json
import pathlib

import gin
import numpy as np
import pytest
from byte_model import write_byte_model

from kaft_promot import cli, evaluate
from kaft_promot.evaluation.example_scores import ExampleScores
from kaft_promot.evaluation.own_metrics import TaskMetrics
from kaft_promot.evaluation.retention import main_score
from kaft_promot.evaluation.runner import make_row
from kaft_promot.evaluation.task_metrics import bleu
from kaft_promot.feeding import DatasetConfig, eval_examples
from kaft_promot.infer import load_predictor

seqio = pytest.importorskip("seqio")

LENGTHS = "--gin.TASK_FEATURE_LENGTHS={'inputs': 96, 'targets': 64}"
MODULE = "metric_tasks_of_the_test"
TASKS = '''
import numpy as np
import seqio
from kaft_promot.feeding.jsonl_task import register_jsonl_task


def postprocess(text, example=None, is_target=False):
    """Targets become all accepted answers, as T5's `qa` does it, in bytes as SeqIO has them."""
    if is_target:
        return tuple(answer.decode() for answer in example["answers"])
    return text.strip().lower() + ("!" if example["loud"] else "")


def exact(targets, predictions):
    assert all(isinstance(p, str) for p in predictions)
    right = [p in t for t, p in zip(targets, predictions)]
    return {"em": seqio.metrics.Scalar(100 * np.mean(right))}


def distinct(targets, predictions):
    return {"distinct": len(set(predictions)) / len(predictions)}


def perplexity(targets, scores):
    return {"perplexity": float(np.exp(-np.mean(scores)))}


def confident(targets, predictions, aux_values):
    return {"confident": 0.0}


def add(name, fields, **more):
    register_jsonl_task(name, lambda split: f"{name}.jsonl", fields=fields, **more)


TEXT = {"inputs": str, "targets": str}
add(
    "metrics_qa",
    {**TEXT, "answers": list, "loud": bool},
    postprocess_fn=postprocess,
    metric_fns=[exact, distinct],
)
add("metrics_score", TEXT, metric_fns=[perplexity, distinct])
add("metrics_aux", TEXT, metric_fns=[confident])
add("metrics_none", TEXT)
add("metrics_wrong", TEXT, metric_fns=[lambda labels, predictions: {}])
add("metrics_set", TEXT, postprocess_fn=lambda text, **_: {text}, metric_fns=[distinct])
seqio.MixtureRegistry.add("metrics_all", ["metrics_qa", "metrics_score"], default_rate=1.0)
'''
ANSWERS = ["rome", "oslo", "bonn", "lima", "cairo"]


class Parrot:
    """Answers from a table of prompts."""

    params: dict = {}

    def __init__(self, answers):
        self.answers = answers

    def generate(self, prompts):
        return [self.answers[prompt] for prompt in prompts]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with a random model `base`, tasks in a module, and their data; the current one."""
    folder = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_byte_model("base")
        pathlib.Path(f"{MODULE}.py").write_text(TASKS)
        for name in ("qa", "score", "aux", "none", "wrong", "set"):
            rows = [
                {
                    "inputs": f"{name} {i}" + "?" * (i % 5),
                    "targets": ANSWERS[i % 5],
                    "answers": [ANSWERS[i % 5], f"{ANSWERS[i % 5]}!"],
                    "loud": i % 3 == 0,
                }
                for i in range(20)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            pathlib.Path(f"metrics_{name}.jsonl").write_text(text)
        yield folder
    gin.clear_config()
    for name in ("qa", "score", "aux", "none", "wrong", "set"):
        seqio.TaskRegistry.remove(f"metrics_{name}")
    seqio.MixtureRegistry.remove("metrics_all")


def run(task, output, *more, status=0, module=MODULE):
    arguments = [
        "eval",
        "--gin_file=runs/eval.gin",
        f"--gin.MIXTURE_OR_TASK_NAME={task}",
        "--gin.CHECKPOINT_PATH=base",
        f"--gin.EVAL_OUTPUT_DIR={output}",
        "--gin.MAX_DECODE_LENGTH=6",
        "--gin.BATCH_SIZE=8",
        LENGTHS,
        *([f"--gin.MIXTURE_OR_TASK_MODULE={module}"] if module else []),
        *more,
    ]
    assert cli.main(arguments) == status


def dataset_of(task):
    return DatasetConfig(
        mixture_or_task_name=task,
        task_feature_lengths={"inputs": 96, "targets": 64},
        split="validation",
        batch_size=1,
        module=MODULE,
    )


def results(output):
    return json.loads(pathlib.Path(output, "results.json").read_text())["tasks"]


def rows_of(output):
    lines = pathlib.Path(output, "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "prediction" in row]


def seqios_figures(task, outputs, scores=None):
    """What SeqIO's own evaluation makes of outputs and scores, both in the order of the task."""
    evaluator = seqio.Evaluator(
        task,
        seqio.EncDecFeatureConverter(pack=False),
        sequence_length={"inputs": 96, "targets": 64},
        async_compute_metrics=False,
    )
    vocabulary = seqio.ByteVocabulary()
    tokens = [[*vocabulary.encode(output), 1] for output in outputs]
    length = max(map(len, tokens))
    padded = [(i, [*row, *[0] * (length - len(row))]) for i, row in enumerate(tokens)]
    found, _ = evaluator.evaluate(
        compute_metrics=True,
        predict_fn=lambda _: padded,
        score_fn=lambda _: list(enumerate(np.asarray(scores))),
    )
    figures = found.result()[task]
    return {name: float(getattr(value, "value", value)) for name, value in figures.items()}


def in_order(rows, task):
    """The rows of a task in the order of its examples."""
    return sorted(
        (row for row in rows if row["seqio_task"] == task),
        key=lambda row: int(row["prompt"].split()[1].rstrip("?")),
    )


def test_every_task_of_a_mixture_has_the_figures_that_seqio_gives(folder, monkeypatch, capsys):
    answers = {}
    for number in range(20):
        right, wrong = ANSWERS[number % 5], ANSWERS[(number + 1) % 5]
        answers[f"qa {number}" + "?" * (number % 5)] = f" {(right, wrong)[number % 4 == 0].upper()}"
        answers[f"score {number}" + "?" * (number % 5)] = wrong
    model = load_predictor("base")
    parrot = Parrot(answers)
    parrot.score = model.score
    monkeypatch.setattr(evaluate, "load_predictor", lambda *_: parrot)
    run("metrics_all", "mixed", "--gin.evaluate.resamples=50")
    found = results("mixed")["model"]
    assert set(found) == {"metrics_qa/validation", "metrics_score/validation"}
    for task in ("metrics_qa", "metrics_score"):
        rows = in_order(rows_of("mixed"), task)
        outputs = [answers[row["prompt"]] for row in rows]
        scores = None
        if task == "metrics_score":
            targets = [ANSWERS[i % 5] for i in range(20)]
            scores = model.score([row["prompt"] for row in rows], targets)
        expected = seqios_figures(task, outputs, scores)
        values = {name: f["value"] for name, f in found[f"{task}/validation"].items()}
        assert values == pytest.approx(expected, rel=1e-5)  # float32 scores
        assert expected.get("em", 50) not in (0, 100)
    exact = found["metrics_qa/validation"]["em"]
    assert exact["low"] < exact["value"] < exact["high"] and exact["n"] == 20
    assert found["metrics_qa/validation"]["distinct"]["resamples"] == 50
    said = capsys.readouterr().out
    assert "metrics_score/validation" in said and f"{exact['value']:.2f} [" in said
    # What the rows hold is what was compared.
    first = in_order(rows_of("mixed"), "metrics_qa")[0]
    assert first["postprocessed"] == {"target": ["rome", "rome!"], "prediction": "oslo!"}


def test_a_real_model_and_a_stopped_evaluation(folder):
    run("metrics_score", "real")
    rows = in_order(rows_of("real"), "metrics_score")
    expected = seqios_figures(
        "metrics_score",
        [row["prediction"] for row in rows],
        load_predictor("base").score([r["prompt"] for r in rows], [r["target"] for r in rows]),
    )
    whole = results("real")
    found = whole["model"]["metrics_score/validation"]
    assert found["perplexity"]["value"] == pytest.approx(expected["perplexity"], rel=1e-5)
    path = pathlib.Path("real/rows.jsonl")
    path.write_bytes(path.read_bytes()[:-700])
    run("metrics_score", "real")
    assert results("real")["model"]["metrics_score/validation"] == {
        name: pytest.approx(figure, rel=1e-5) for name, figure in found.items()
    }


def test_a_task_without_metrics_keeps_exact_match_and_f1(folder, capsys):
    run("metrics_none", "plain")
    assert set(results("plain")["model"]["metrics_none/validation"]) == {"exact_match", "f1"}
    run("metrics_aux", "plain")
    assert "metric confident of task 'metrics_aux' is not computed: " in capsys.readouterr().out
    assert set(results("plain")["model"]["metrics_aux/validation"]) == {"exact_match", "f1"}


def test_other_arms_of_the_folder_keep_their_figures(folder):
    run("metrics_score", "two", "--gin.ARM=first")
    first = results("two")["first"]
    run("metrics_none", "two", "--gin.ARM=second")
    assert results("two")["first"] == first and set(results("two")) == {"first", "second"}


def test_a_tasks_examples_are_read_once_for_many_checkpoints(folder, monkeypatch):
    reads = []

    def counted(*arguments, **more):
        reads.append(arguments)
        return eval_examples(*arguments, **more)

    monkeypatch.setattr(evaluate, "eval_examples", counted)
    dataset = dataset_of("metrics_none")
    (task,) = evaluate.task_suite(dataset, 3).tasks
    assert reads == []
    first = list(task.examples(None))
    assert [e.prompt for e in first] == [e.prompt for e in task.examples(None)]
    assert len(first) == 3 and len(reads) == 1


@pytest.mark.parametrize(
    "task, message",
    [
        ("metrics_wrong", "error: task 'metrics_wrong': Metric functions must have positional"),
        ("metrics_set", "task 'metrics_set': its postprocess_fn fails on the target 'rome'"),
    ],
)
def test_mistakes_in_a_tasks_functions_are_one_line_before_decoding(folder, capsys, task, message):
    run(task, "bad", status=2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not pathlib.Path("bad/rows.jsonl").exists()


RTE = [("It rains.", "It is wet.", "entailment"), ("It snows.", "It is hot.", "not_entailment")]


def test_rte_is_scored_by_its_accuracy(folder, monkeypatch):
    pathlib.Path("superglue/RTE").mkdir(parents=True)
    lines = [
        {"premise": p, "hypothesis": h, "label": label, "idx": i}
        for i, (p, h, label) in enumerate(RTE * 10)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    pathlib.Path("superglue/RTE/val.jsonl").write_text(text)
    # Right on the first kind, with what the task's postprocess_fn cuts off; on the second never.
    answers = {
        f"{p} question: {h} Is it true or false? answer:": "<extra_id_0> True <extra_id_1> so"
        for p, h, _ in RTE
    }
    monkeypatch.setattr(evaluate, "load_predictor", lambda *_: Parrot(answers))
    run("rte", "rte", "--gin.superglue_data.directory=superglue", module=None)
    found = results("rte")["model"]["rte/validation"]
    assert list(found) == ["accuracy"] and found["accuracy"]["value"] == 50.0
    assert 20 < found["accuracy"]["low"] < 50 < found["accuracy"]["high"] < 80


def test_compared_arms_are_scored_by_the_tasks_own_metrics_example_by_example(folder):
    dataset = dataset_of("metrics_qa")
    suite = evaluate.task_suite(dataset, compared=True)
    (task,) = suite.tasks
    first = next(iter(task.examples(None)))
    right, wrong = (make_row(suite, task, first, said, "arm", {}) for said in (" ROME", "Oslo"))
    assert first.fields["target"] == "rome"
    assert right["postprocessed"] == {"target": ["rome", "rome!"], "prediction": "rome!"}
    assert right["main_score"] == wrong["main_score"] == "em"
    assert (main_score(right), main_score(wrong)) == (1.0, 0.0)
    plain = evaluate.task_suite(dataset)
    row = make_row(plain, plain.tasks[0], first, " ROME", "arm", {})
    assert set(row["scores"]) == {"exact_match", "f1"}


def test_a_sentences_bleu_is_its_score():
    sacrebleu = pytest.importorskip("sacrebleu")
    target, part = "le chat dort sur un lit rouge ce soir", "le chat dort sur un lit vert"
    scores = ExampleScores.of(TaskMetrics(task="t", predict=[bleu]), ["oui", target])
    assert scores.main == "bleu"
    assert (
        scores(target, target) == {"bleu": pytest.approx(1.0)} and scores(target, "")["bleu"] == 0
    )
    assert scores(target, part)["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu([part], [[target]]).score / 100
    )


@pytest.mark.parametrize(
    ("given", "tops"),
    [
        (lambda t, p: {"a": 100.0 * (t == p), "b": 3.0}, {"a": 100.0}),
        (lambda t, p: {"a": float(t == p)}, {"a": 1.0}),
        (lambda t, p: {"loss": -5.0}, {}),
        (lambda t, p: 1 / 0, {}),
    ],
)
def test_only_metrics_of_a_known_scale_compare_arms(given, tops):
    scores = ExampleScores.of(TaskMetrics(task="t", predict=[given]), ["x", "y"])
    assert scores.tops == tops and scores.main == next(iter(tops), None)
    assert scores("x", "x") == dict.fromkeys(tops, 1.0)
    assert scores("x", "y") == dict.fromkeys(tops, 0.0)


def test_wmt_is_scored_by_sacrebleu(folder, monkeypatch, capsys):
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = np.random.default_rng(0)
    words = "le chat dort sur un lit rouge et la porte est ouverte ce soir".split()
    other = [" ".join(rng.choice(words, 9)) + "." for _ in range(30)]
    pathlib.Path("wmt").mkdir()
    for year in (2009, 2010, 2011):
        english = "".join(f"Sentence {i} of {year}\n" for i in range(30))
        pathlib.Path(f"wmt/newstest{year}.en-fr.eng").write_text(english)
        pathlib.Path(f"wmt/newstest{year}.en-fr.fra").write_text("\n".join(other) + "\n")
    made = [" ".join(w for w in t.split() if rng.random() < 0.8) for t in other]
    prefix = "Translate English to French:"
    answers = {
        f"{prefix} Sentence {i} of 2011": f"{text} {prefix} More" for i, text in enumerate(made)
    }
    monkeypatch.setattr(evaluate, "load_predictor", lambda *_: Parrot(answers))
    test = ["--gin.wmt_data.directory=wmt", "--gin.MIXTURE_OR_TASK_SPLIT=test"]
    run("wmt_en_fr", "wmt-out", *test, module=None)
    found = results("wmt-out")["model"]["wmt_en_fr/test"]
    expected = sacrebleu.corpus_bleu(made, [other]).score
    assert list(found) == ["bleu"] and found["bleu"]["value"] == pytest.approx(expected)
    assert 0 < found["bleu"]["low"] < expected < found["bleu"]["high"] < 100
    assert found["bleu"]["n"] == 30 and found["bleu"]["resamples"] == 4000
    assert f"{expected:.2f} [" in capsys.readouterr().out
