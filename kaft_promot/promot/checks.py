"""What a comparison refuses before it trains anything, since it would fail hours later."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gin

from kaft_promot.errors import UserError
from kaft_promot.evaluation import output_share, suites
from kaft_promot.evaluation.retention import IN_CONTEXT_SUITE
from kaft_promot.evaluation.row_checks import problem
from kaft_promot.evaluation.runner import check_unique, make_row
from kaft_promot.promot.settings import Promot

# What a comparison sets by itself for its runs and predictors, and the setting that it comes from.
OWN: Mapping[str, Mapping[str, str | None]] = {
    "train": {
        "train_dataset_cfg": "target",
        "train_eval_dataset_cfg": None,
        "eval_period": None,
        "model_dir": None,
        "total_steps": "steps",
        "initial_checkpoint_path": "base_checkpoint",
        "model_config": "model_config",
        "optimizer": "optimizer",
        "stage": "arms",
        "prompts": "prompt_length",
        "lora": "lora",
        "dropout_rate": "dropout_rate",
        "label_smoothing": "label_smoothing",
        "global_norm_clip_threshold": "global_norm_clip_threshold",
        "random_seed": "seeds",
        "stats_period": None,
        "checkpoint_cfg": "curve_points",
        "vocabulary": "vocabulary",
        "tensorboard": None,
    },
    "SoftPrompts": {
        "length": "prompt_length",
        "init": "prompt_init",
        "path": None,
        "tasks": None,
        "seed": "seeds",
    },
    "DatasetConfig": {
        "mixture_or_task_name": "target",
        "module": "module",
        "task_feature_lengths": "task_feature_lengths",
        "split": "test_split",
        "batch_size": "batch_size",
        "shuffle": None,
        "num_epochs": None,
        "seed": "seeds",
        "pack": None,
    },
    "CheckpointConfig": {
        "period": "curve_points",
        "keep": None,
        "metric_name_to_monitor": "select",
    },
    "Predictor": {"max_decode_length": "in_context_decode_length"},
    "Lora": {"seed": "seeds"},
    "Demonstrations": {"seed": "seeds"},
}


def check_bindings() -> None:
    """Refuses gin bindings that would do nothing, since a comparison sets these by itself.

    Raises:
      UserError: one is bound; the message names the setting to use instead.
    """
    for configurable, arguments in OWN.items():
        for argument, setting in arguments.items():
            try:
                gin.query_parameter(f"{configurable}.{argument}")
            except ValueError:  # not bound
                continue
            raise UserError(
                f"{configurable}.{argument} does nothing here: a comparison sets it by itself"
                + (f"; set Promot.{setting}" if setting else "")
            )


def check(settings: Promot, say: Callable[[str], None]) -> None:
    """Refuses a target, a format or a suite that cannot be used.

    Args:
      settings: of the comparison.
      say: takes warnings.

    Raises:
      UserError: for what would otherwise fail after the training.
    """
    from kaft_promot.feeding.seqio_door import get_mixture_or_task  # imports TensorFlow

    target = get_mixture_or_task(settings.target, settings.module)
    output_share.format_of(settings.target)
    for split in ("train", "validation", settings.test_split):
        if split not in target.splits:
            raise UserError(
                f"Promot.target = {settings.target!r} has no split {split!r} "
                f"(it has {', '.join(sorted(target.splits))})"
            )
    of_curves, of_figures = (_asked(settings, for_curves) for for_curves in (True, False))
    if not of_curves or not of_figures:
        raise UserError(f"Promot.suite = {settings.suite!r} asks nothing")
    if settings.test_split != "validation" and of_curves <= of_figures:
        say(
            f"warning: all that the suite {settings.suite!r} asks of split='validation' it asks of "
            "split='test' too, so that figures are of queries that settings may be chosen on"
        )
    if settings.grounding_data is not None:
        suites.get("grounding").load(settings.grounding_data)


def _asked(settings: Promot, for_curves: bool) -> set[str]:
    """The prompts of the suite of in-context tasks; each task's first row is tried."""
    in_context = suites.get(settings.suite, settings.suite_module)
    arguments = settings.suite_arguments(for_curves)
    work = []
    try:
        data = in_context.load(arguments)
        for task in in_context.tasks:
            for number, example in enumerate(task.examples(data)):
                work.append((task, example))
                if number == 0:
                    _check_row(settings, in_context, task, example)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"Promot.suite = {settings.suite!r} cannot be asked of what it is given, {arguments} "
            "(Promot.suite_data, `split` and for the curves `queries`): "
            f"{type(error).__name__}: {error}"
        ) from error
    check_unique(work, settings.suite)
    return {example.prompt for _, example in work}


def _check_row(
    settings: Promot, suite: suites.Suite, task: suites.EvalTask, example: suites.EvalExample
) -> None:
    """Refuses a task whose rows lack what arms are compared by."""
    row = make_row(suite, task, example, "", "base", {})
    wrong = problem({**row, "suite": IN_CONTEXT_SUITE})
    if wrong is not None:
        raise UserError(
            f"Promot.suite = {settings.suite!r}: a row of its task {task.name!r} {wrong}. Arms are "
            "compared by a score from 0 to 1 for each example, exact_match unless EvalTask.main "
            "names another, and by answers against the example's `target` (EvalExample.fields)"
        )
