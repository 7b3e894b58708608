"""A task's own metric functions: which figures are means, their intervals, and what is said."""

import functools

import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation.own_metrics import TaskMetrics, figures
from kaft_promot.evaluation.statistics import bootstrap, bootstrap_figures
from kaft_promot.evaluation.task_metrics import accuracy, bleu

N = 200
WORDS = "the cat sleeps on red beds while dogs run far away from old towns".split()


def texts(seed=0):
    """Sentences, and outputs that get about two thirds of their words right."""
    rng = np.random.default_rng(seed)
    targets = [list(rng.choice(WORDS, 12)) for _ in range(N)]
    outputs = [[w if rng.random() < 0.66 else rng.choice(WORDS) for w in t] for t in targets]
    return [" ".join(t) + "." for t in targets], [" ".join(o) + "." for o in outputs]


def rows(targets, predictions, questions=None, **more):
    return [
        {
            "arm": "a",
            "question_id": f"q{i}" if questions is None else questions[i],
            "target": t,
            "prediction": p,
        }
        | {name: values[i] for name, values in more.items()}
        for i, (t, p) in enumerate(zip(targets, predictions, strict=True))
    ]


def labels(right, n=N):
    return ["yes"] * n, ["yes"] * right + ["no"] * (n - right)


def of(*predict, **more):
    return TaskMetrics(task="t", predict=predict, **more)


def f1_of_yes(targets, predictions):
    """No mean over examples, and undefined without a target 'yes'."""
    hits = sum(t == p == "yes" for t, p in zip(targets, predictions, strict=True))
    both = sum(t == "yes" for t in targets) + sum(p == "yes" for p in predictions)
    return {"f1": 100 * 2 * hits / both}


def test_bleu_is_sacrebleus_of_the_whole_corpus_with_a_bootstrap_over_sentences():
    sacrebleu = pytest.importorskip("sacrebleu")
    targets, outputs = texts()
    found, missing = figures(of(bleu), rows(targets, outputs))
    expected = sacrebleu.corpus_bleu(outputs, [targets]).score
    assert found["bleu"].value == expected and not missing
    # SacreBLEU's own bootstrap: the same interval up to the noise of resampling.
    theirs = sacrebleu.metrics.BLEU().corpus_score(outputs, [targets], n_bootstrap=1000)
    half_width = (found["bleu"].high - found["bleu"].low) / 2
    assert half_width == pytest.approx(theirs._ci, rel=0.1)
    assert (found["bleu"].n, found["bleu"].resamples) == (N, 4000)


def test_the_same_metric_as_a_black_box_has_the_same_interval():
    """Sums of counts are a shortcut, no other figure."""
    targets, outputs = texts()

    def black_box(targets, predictions):
        return bleu(targets, predictions)

    slow, _ = figures(of(black_box), rows(targets[:40], outputs[:40]), resamples=200)
    sums = bleu.statistics(targets[:40], outputs[:40])
    quick = bootstrap_figures(
        lambda row_n: bleu.figures(sums[row_n].sum(axis=0)),
        40,
        [f"q{i}" for i in range(40)],
        replicates=200,
    )
    assert slow["bleu"] == quick["bleu"] and slow["bleu"].resamples == 200


@pytest.mark.parametrize("right", [0, 130, N])
def test_a_mean_gets_the_interval_of_a_mean_on_the_metrics_own_scale(right):
    targets, outputs = labels(right)
    expected = bootstrap([1.0] * right + [0.0] * (N - right))

    def as_fraction(targets, predictions):
        return {"share": float(np.mean(np.array(targets) == np.array(predictions)))}

    found, _ = figures(of(accuracy, as_fraction), rows(targets, outputs))
    for name, scale in (("accuracy", 100), ("share", 1)):
        of_metric = found[name]
        ends = (of_metric.low / scale, of_metric.value / scale, of_metric.high / scale)
        assert ends == pytest.approx((expected.low, expected.value, expected.high))
        assert of_metric.low < of_metric.high  # also at 0 and 100 %


def test_accepted_answers_are_a_scale_too():
    def any_of(targets, predictions):
        pairs = zip(targets, predictions, strict=True)
        return {"em": 100.0 * np.mean([p in t for t, p in pairs])}

    found, _ = figures(of(any_of), rows([["a", "b"]] * 30, ["c"] * 30))
    assert found["em"].value == 0.0 and 5 < found["em"].high < 20


def test_a_mean_on_an_unknown_scale_gets_a_plain_bootstrap():
    def length(targets, predictions):
        return {"words": float(np.mean([len(p.split()) for p in predictions]))}

    outputs = ["x " * (i % 7 + 20) for i in range(N)]
    found, _ = figures(of(length), rows(["x"] * N, outputs))
    counts = [len(o.split()) for o in outputs]
    error = np.std(counts) / np.sqrt(N)
    assert found["words"].value == np.mean(counts)
    assert found["words"].high - found["words"].low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_other_figures_are_computed_anew_on_each_resample():
    rng = np.random.default_rng(1)
    targets = list(rng.choice(["yes", "no"], N))
    outputs = [t if rng.random() < 0.7 else "yes" for t in targets]
    found, _ = figures(of(f1_of_yes), rows(targets, outputs), resamples=300)
    assert found["f1"].value == f1_of_yes(targets, outputs)["f1"]
    drawn = rng.integers(0, N, (2000, N))
    f1s = [f1_of_yes([targets[i] for i in d], [outputs[i] for i in d])["f1"] for d in drawn]
    low, high = np.percentile(f1s, [2.5, 97.5])
    assert (found["f1"].low, found["f1"].high) == pytest.approx((low, high), abs=1.5)


def test_rows_of_a_question_are_drawn_together():
    targets, outputs = texts()
    doubled = rows(targets * 2, outputs * 2, [f"q{i}" for i in range(N)] * 2)
    once, _ = figures(of(bleu), rows(targets, outputs))
    twice, _ = figures(of(bleu), doubled)
    assert twice["bleu"].value == pytest.approx(once["bleu"].value)
    assert (twice["bleu"].low, twice["bleu"].high) == pytest.approx(
        (once["bleu"].low, once["bleu"].high)
    )
    assert (twice["bleu"].n, twice["bleu"].clusters) == (2 * N, N)


def test_one_question_or_no_variation_gives_no_interval():
    for some in (rows(["yes", "no"], ["yes", "yes"], ["q", "q"]), rows(["yes"] * 9, ["yes"] * 9)):
        found, _ = figures(of(f1_of_yes_never_a_mean), some)
        assert found["f1"].value is not None and found["f1"].low is None


def f1_of_yes_never_a_mean(targets, predictions):
    return {"f1": f1_of_yes(targets, predictions)["f1"] + 0.5 * (len(targets) > 1)}


def test_scores_go_to_the_functions_that_take_them():
    def perplexity(targets, scores):
        assert isinstance(scores, np.ndarray)
        return {"perplexity": float(np.exp(-scores.mean()))}

    likelihoods = list(np.random.default_rng(0).normal(-2, 1, N))
    some = rows(*labels(3), log_likelihood=likelihoods)
    found, missing = figures(of(accuracy, score=(perplexity,)), some)
    assert list(found) == ["accuracy", "perplexity"] and not missing
    assert found["perplexity"].value == pytest.approx(np.exp(-np.mean(likelihoods)))
    assert found["perplexity"].low < found["perplexity"].value < found["perplexity"].high
    found, missing = figures(of(accuracy, score=(perplexity,)), some[:5] + rows(["x"], ["y"]))
    assert list(found) == ["accuracy"] and "perplexity" in missing[0] and len(missing) == 1


def test_postprocessed_outputs_are_what_is_scored():
    read = [{"target": "yes", "prediction": "yes" if i < 5 else "no"} for i in range(10)]
    some = rows(["Yes!"] * 10, ["whatever"] * 10, postprocessed=read)
    found, _ = figures(of(accuracy, postprocesses=True), some)
    assert found["accuracy"].value == 50.0
    found, missing = figures(of(accuracy, postprocesses=True), rows(["Yes!"] * 10, ["no"] * 10))
    assert not found and "evaluate it again" in missing[0]


def test_what_is_no_number_is_named_and_left_out():
    class Histogram:
        values = np.arange(3)

    def shown(targets, predictions):
        return {"picture": Histogram(), "count": len(targets)}

    found, missing = figures(of(shown), rows(*labels(3)))
    assert list(found) == ["count"] and found["count"].value == N
    assert missing == ["figure 'picture' of metric shown, task 't', is no number and not shown"]


def test_a_failing_metric_is_one_line_that_names_it():
    def broken(targets, predictions, strict):
        raise KeyError("nothing\nhere")

    with pytest.raises(UserError, match="task 't': its metric broken fails: KeyError: ") as error:
        figures(of(functools.partial(broken, strict=True)), rows(*labels(3)))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="task 't': two metric functions give 'accuracy'"):
        figures(of(accuracy, accuracy), rows(*labels(3)))
