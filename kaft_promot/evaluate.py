"""Evaluates a checkpoint: a suite (of KAFT records, of in-context tasks), or a SeqIO task.

Sample rows are appended to `rows.jsonl`; the same command again evaluates only what is missing. A
SeqIO task is scored by its own `postprocess_fn` and `metric_fns`, as in T5X.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gin

from kaft_promot import specialize
from kaft_promot.errors import UserError
from kaft_promot.evaluation import in_context as _in_context  # noqa: F401 (gin binds its settings)
from kaft_promot.evaluation import metrics, own_metrics, suites, task_figures
from kaft_promot.evaluation.example_scores import ExampleScores
from kaft_promot.evaluation.report import build, write_html, write_results
from kaft_promot.evaluation.results import earlier
from kaft_promot.evaluation.runner import run_suite
from kaft_promot.evaluation.statistics import Estimate
from kaft_promot.evaluation.table import render
from kaft_promot.feeding import DatasetConfig, eval_examples
from kaft_promot.infer import checkpoint_name, load_predictor
from kaft_promot.knowledge.targets import split_source
from kaft_promot.models import T5Config
from kaft_promot.specialize import OutputShare


@gin.configurable
def evaluate(
    *,
    checkpoint_path: str,
    output_dir: str,
    suite: str | None = None,
    data: str | None = None,
    dataset: DatasetConfig | None = None,
    arm: str = "model",
    module: str | None = None,
    model_config: T5Config | None = None,
    vocabulary: str | None = None,
    prompt_path: str | None = None,
    prompt_name: str | None = None,
    lora_path: str | None = None,
    base_checkpoint_path: str | None = None,
    output_share: OutputShare | None = None,
    specialization_examples: int = 128,
    bootstrap_seed: int = 0,
    resamples: int = own_metrics.RESAMPLES,
) -> str:
    """Evaluates one checkpoint and writes rows, `results.json` and, with `data`, `report.html`.

    Args:
      checkpoint_path: any checkpoint.
      output_dir: made if it does not exist; several arms may share one.
      suite: name of a suite (see `eval/`); None for `grounding`, unless `dataset` names a task.
      data: what the suite reads; for `grounding`, a records file of `kaft-promot augment`. None
        for suites that need no data, such as `mini_in_context`.
      dataset: a SeqIO task or mixture instead of a suite. Each task is scored by its own
        `metric_fns`, on their own scale; one that has none, by exact match and F1 of the outputs
        against its targets (announced sources stripped).
      arm: name of this checkpoint in rows and report.
      module: a module of the user's own that registers the suite.
      model_config: None takes the checkpoint's own.
      vocabulary: None takes the checkpoint's own.
      prompt_path, prompt_name, lora_path: what to attach, see `infer.load_predictor`.
      base_checkpoint_path: the base, for the divergence from it on `dataset`'s task and the
        alignment of gradients there, see `specialize.figures` (None: not measured).
      output_share: from `specialize.output_share`, how many outputs on in-context tasks are in the
        format of `dataset`'s task (None: not measured).
      specialization_examples: how many of `dataset`'s examples the divergence and the alignment are
        measured on.
      bootstrap_seed: of the intervals.
      resamples: of the examples, for the interval of a metric that is no mean over them: each is
        scored anew, so that fewer make a slow metric's interval quicker.

    Returns:
      The figures as a table.

    Raises:
      UserError: for data, checkpoints and vocabularies that cannot be used.
    """
    if resamples < 1:
        raise UserError(f"evaluate.resamples = {resamples}: must be at least 1")
    chosen = _suite_or_task(suite, data, dataset, module)
    with_task = dataset is not None and bool(dataset.mixture_or_task_name)
    if (base_checkpoint_path or output_share) and not with_task:
        raise UserError(
            "BASE_CHECKPOINT_PATH and SPECIALIZATION_TASKS measure format specialization on a "
            "target task: add --gin.MIXTURE_OR_TASK_NAME=..."
        )
    signs: dict[str, Estimate] = {}
    if dataset is not None and (base_checkpoint_path or output_share):
        signs = specialize.figures(
            checkpoint_path,
            dataset,
            base_checkpoint_path=base_checkpoint_path,
            share=output_share,
            examples=specialization_examples,
            seed=bootstrap_seed,
            model_config=model_config,
            vocabulary=vocabulary,
            prompt_path=prompt_path,
            prompt_name=prompt_name,
            lora_path=lora_path,
        )
    predictor = load_predictor(
        checkpoint_path, model_config, vocabulary, prompt_path, prompt_name, lora_path
    )
    folder = pathlib.Path(output_dir)
    rows_path = folder / "rows.jsonl"
    run_suite(
        chosen,
        predictor,
        data,
        arm=arm,
        rows_path=rows_path,
        checkpoint=checkpoint_name(checkpoint_path, predictor.params),
    )
    # Everything that was evaluated into this folder, whatever this call has added.
    results = build(rows_path, bootstrap_seed)
    tasks = task_figures.measure(results.rows.samples, _metrics_of, bootstrap_seed, resamples)
    # Of other arms' too, which no rows hold.
    specialization = dict(earlier(folder).get("specialization", {}))
    if signs:
        measured = {name: figure.to_json() for name, figure in signs.items()}
        specialization[arm] = specialization.get(arm, {}) | measured
    sections = {"tasks": tasks.to_json(), "specialization": specialization}
    write_results(results, folder, **{name: found for name, found in sections.items() if found})
    if data is None:
        # Rows are written longest prompt first.
        figures = tasks.table(arm, [task.name for task in chosen.tasks])
        return f"{figures}\n\n{specialize.table(signs)}" if signs else figures
    write_html(results, folder / "report.html")
    return "\n\n".join([render(results.estimates), *results.warnings])


def _suite_or_task(
    suite: str | None, data: str | None, dataset: DatasetConfig | None, module: str | None
) -> suites.Suite:
    """The suite that was asked for, or the task as one."""
    if dataset is not None and dataset.mixture_or_task_name:
        for name, value in (("EVAL_DATA", data), ("SUITE", suite)):
            if value is not None:
                raise UserError(
                    f"eval takes one of --gin.{name} and --gin.MIXTURE_OR_TASK_NAME: a suite, or a "
                    "task, in a call each"
                )
        return task_suite(dataset)
    suite = suite or "grounding"
    chosen = suites.get(suite, module)
    if chosen.needs_data and data is None:
        raise UserError(
            f"eval needs --gin.EVAL_DATA for the suite {suite!r}, or --gin.MIXTURE_OR_TASK_NAME"
        )
    if data is not None and not chosen.needs_data:
        raise UserError(f"EVAL_DATA={data}: the suite {suite!r} takes no data")
    if data is not None and not pathlib.Path(data).exists():
        raise UserError(f"EVAL_DATA={data}: no such file")
    return chosen


def task_suite(
    dataset: DatasetConfig, max_examples: int | None = None, compared: bool = False
) -> suites.Suite:
    """A SeqIO task or mixture as a suite.

    It loads no data of its own; examples of a mixture are told apart by their task's name. They are
    read when they are first asked for, and kept: a suite may be put to many checkpoints. A row's
    scores are exact match and F1 against its target; it also holds what the task's own metrics need
    (`own_metrics.figures`).

    Args:
      dataset: task, split and module.
      max_examples: of each task, the first ones; None for all.
      compared: whether rows also have what the task's own metrics give for the example alone
        (`example_scores`), with the first of these as the main score.
    """
    own: dict[str, ExampleScores] = {}  # by the SeqIO task's name
    read = functools.cache(lambda: tuple(_task_examples(dataset, max_examples, compared, own)))
    return suites.Suite(
        name=dataset.mixture_or_task_name,
        description=f"{dataset.mixture_or_task_name}, split {dataset.split}",
        tasks=(
            suites.EvalTask(
                name=dataset.mixture_or_task_name,
                examples=lambda _: read(),
                read=_read,
                score=functools.partial(_score, own),
            ),
        ),
    )


def _task_examples(
    dataset: DatasetConfig,
    max_examples: int | None,
    compared: bool,
    own: dict[str, ExampleScores],
) -> Iterator[suites.EvalExample]:
    """The examples; where they are `compared`, `own` gets the scores of each of their tasks."""
    from kaft_promot.feeding.seqio_door import get_mixture_or_task  # imports TensorFlow

    found = eval_examples(dataset, max_examples=max_examples, raw=True)
    for example in found:
        for name in ("inputs_pretokenized", "targets_pretokenized"):
            if name not in example:
                raise UserError(
                    f"task {example['task']!r} gives no {name}: put "
                    "seqio.preprocessors.tokenize among its preprocessors"
                )
    targets: dict[str, list[Any]] = {}
    for example in found:
        # Targets are read now, before anything is decoded: what fails, fails early.
        task = get_mixture_or_task(example["task"])
        example["read_target"] = example["targets_pretokenized"]
        if task.postprocessor is not None:
            example["read_target"] = own_metrics.postprocessed(
                task, example["targets_pretokenized"], example["raw"], is_target=True
            )
        targets.setdefault(task.name, []).append(example["read_target"])
    metrics_of = {name: own_metrics.TaskMetrics.of(get_mixture_or_task(name)) for name in targets}
    if compared:
        own |= {name: ExampleScores.of(metrics_of[name], targets[name]) for name in targets}
    for number, example in enumerate(found):
        task_name = example["task"]
        name = f"{task_name}:{dataset.split}:{number}"
        target = example["targets_pretokenized"]
        yield suites.EvalExample(
            example_id=name,
            question_id=str(example.get("source_id", example.get("id", name))),
            prompt=example["inputs_pretokenized"],
            fields={"seqio_task": task_name, "split": dataset.split, "target": target},
            read=_reader(example, dataset, own[task_name].main if task_name in own else None),
            scored=target if metrics_of[task_name].score else None,
        )


def _reader(
    example: Mapping[str, Any], dataset: DatasetConfig, main: str | None
) -> Callable[[str], Mapping[str, Any]]:
    """What adds to a row how the example's task reads it and which score is the main one."""
    from kaft_promot.feeding.seqio_door import get_mixture_or_task

    task = get_mixture_or_task(example["task"])
    further: dict[str, Any] = {"seqio_module": dataset.module} if dataset.module else {}
    if main is not None:
        further["main_score"] = main
    if task.postprocessor is None:
        return lambda output: further

    def read(output: str) -> Mapping[str, Any]:
        prediction = own_metrics.postprocessed(task, output, example["raw"], is_target=False)
        both = {"target": example["read_target"], "prediction": prediction}
        return {**further, "postprocessed": both}

    return read


def _metrics_of(name: str, module: str | None) -> own_metrics.TaskMetrics:
    from kaft_promot.feeding.seqio_door import get_mixture_or_task

    return own_metrics.TaskMetrics.of(get_mixture_or_task(name, module))


def _read(output: str) -> Mapping[str, Any]:
    answer, source = split_source(output)
    return {"answer": answer, "source": source}


def _score(own: Mapping[str, ExampleScores], row: Mapping[str, Any]) -> dict[str, float]:
    answer, _ = split_source(row["target"])
    scores = {
        "exact_match": metrics.exact_match(row["answer"], [answer]),
        "f1": metrics.f1(row["answer"], [answer]),
    }
    if row["seqio_task"] in own:
        read = row.get("postprocessed", row)
        scores |= own[row["seqio_task"]](read["target"], read["prediction"])
    return scores
