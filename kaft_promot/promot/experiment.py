"""ProMoT against other ways of tuning, on any target task: one experiment from base to report.

`kaft-promot promot` runs it. Stage 1 tunes a soft prompt and keeps the best on the target's
validation split; every arm then starts from the same base and makes the same number of steps. The
target is asked with the arm's prompt attached, in-context tasks without it. Each part leaves its
output in the folder and is skipped, or continued, when it is there.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluate import task_suite
from kaft_promot.evaluation import suites
from kaft_promot.evaluation.results import write_json
from kaft_promot.evaluation.retention import IN_CONTEXT_SUITE, TARGET_SUITE, main_score
from kaft_promot.evaluation.rows import Row, read_rows
from kaft_promot.evaluation.runner import make_row, run_suite
from kaft_promot.feeding import DatasetConfig, Demonstrations, load_vocabulary
from kaft_promot.infer import checkpoint_name, load_predictor
from kaft_promot.interop import choose_vocabulary
from kaft_promot.interop.interpolate import interpolate
from kaft_promot.interop.native import TENSORS
from kaft_promot.interop.prompts import PROMPTS
from kaft_promot.interop.vocabulary import checkpoint_vocabulary
from kaft_promot.promot import arms as arms_lib
from kaft_promot.promot.arms import BASE, Arm
from kaft_promot.promot.checks import check, check_bindings
from kaft_promot.promot.settings import Promot
from kaft_promot.training import LORA, PROMPT, CheckpointConfig, Lora, SoftPrompts, train

ROWS, CURVES = "rows.jsonl", "curves.jsonl"
_STAGE_1 = "prompt"  # the folder of stage 1's run


def run(folder: pathlib.Path, settings: Promot) -> None:
    """Runs what is missing of every seed: `folder/seedN/` with models, rows and curve rows.

    Raises:
      UserError: the folder holds a comparison with other settings, or a part fails.
    """
    check_bindings()
    check(settings, _say)
    claim(folder / "settings.json", settings.described(), "seed*/*/metrics.jsonl", free=("seeds",))
    asked = {file: _asked(settings, file) for file in (CURVES, ROWS)}
    _say(f"the target is scored by {_scored_by(asked[ROWS][0].suite)}, example by example")
    for seed in settings.seeds:
        place = folder / f"seed{seed}"
        chosen = [arms_lib.get(name) for name in settings.arms]
        if any(arm.prompt == arms_lib.TUNED for arm in chosen):
            _say(f"seed {seed}: tune a soft prompt, the model frozen")
            _tune_prompt(place, settings, seed)
        for name, arm in zip(settings.arms, chosen, strict=True):
            if arm.stage is not None:
                _say(f"seed {seed}: tune {name}")
            _tune(place, name, arm, settings, seed)
        _say(f"seed {seed}: measure the target with prompts, in-context tasks without")
        for name in (BASE, *settings.arms):
            _measure(place, name, settings, seed, asked)


def rows_of(folder: pathlib.Path, seed: int, file: str = ROWS) -> list[Row]:
    """A seed's sample rows; those of `CURVES` have a `step` and the arm's plain name."""
    rows = []
    for row in read_rows(folder / f"seed{seed}" / file).samples:
        if file == CURVES:
            arm, _, step = row["arm"].partition("@")
            if not step.isdecimal():
                raise UserError(
                    f"{folder / f'seed{seed}' / file}: the arm {row['arm']!r} names no step; "
                    "delete the file"
                )
            row = {**row, "arm": arm, "step": int(step)}
        rows.append({**row, "seed": seed})
    return rows


def claim(
    path: pathlib.Path, described: Mapping[str, Any], work: str, free: tuple[str, ...] = ()
) -> None:
    """Notes settings in a folder, and refuses one where work was done with others.

    Args:
      path: the settings file.
      described: the settings as JSON values.
      work: pattern of the files, from the folder, that show that work was done.
      free: names of settings that may change between calls.

    Raises:
      UserError: the file is damaged or holds other settings.
    """
    described = dict(described)
    found: Any = None
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); delete the folder") from error
    if found == described:
        return
    if found is not None and any(path.parent.glob(work)):
        if not isinstance(found, dict):
            raise UserError(f"{path}: holds no settings; delete the folder")
        for name in described:
            if name not in free and found.get(name) != described[name]:
                raise UserError(
                    f"{path}: this folder was made with another {name} "
                    f"({found.get(name)}, now {described[name]}); "
                    "choose another folder or delete this one"
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(described, path)


def _say(what: str) -> None:
    print(f"[promot] {what}", flush=True)


def _dataset(settings: Promot, split: str, seed: int, pack: bool) -> DatasetConfig:
    return DatasetConfig(
        mixture_or_task_name=settings.target,
        module=settings.module,
        task_feature_lengths=settings.task_feature_lengths,
        split=split,
        batch_size=settings.batch_size,
        shuffle=split == "train",
        num_epochs=None if split == "train" else 1,
        seed=seed,
        pack=pack,
    )


def _tune_prompt(place: pathlib.Path, settings: Promot, seed: int) -> None:
    """Stage 1: `place/prompt`, with the best prompt on the validation split kept."""
    if (place / _STAGE_1 / PROMPTS).is_file():
        return
    period = max(1, settings.prompt_steps // 5)
    train(
        train_dataset_cfg=_dataset(settings, "train", seed, pack=True),
        train_eval_dataset_cfg=_dataset(settings, "validation", seed, pack=False),
        eval_period=period,
        model_dir=place / _STAGE_1,
        total_steps=settings.prompt_steps,
        model_config=settings.model_config,
        initial_checkpoint_path=settings.base_checkpoint,
        vocabulary=settings.vocabulary,
        optimizer=settings.prompt_optimizer,
        stage=PROMPT,
        prompts=SoftPrompts(length=settings.prompt_length, init=settings.prompt_init, seed=seed),
        random_seed=seed,
        stats_period=20,
        checkpoint_cfg=CheckpointConfig(
            period=period, keep=1, metric_name_to_monitor="eval/accuracy"
        ),
        tensorboard=False,
    )


def _tune(place: pathlib.Path, name: str, arm: Arm, settings: Promot, seed: int) -> None:
    """The arm's run in `place/name`, unless its final parameters are there."""
    model_dir = place / name
    if (model_dir / TENSORS).is_file():
        return
    if arm.between is not None:
        tuned = place / arms_lib.NEEDS[name]
        interpolate(settings.base_checkpoint, tuned, arm.between, model_dir)
    if arm.stage is None:
        return
    dataset = _dataset(settings, "train", seed, pack=True)
    if arm.demonstrations:
        dataset = dataclasses.replace(dataset, demonstrations=Demonstrations(seed=seed))
    train(
        train_dataset_cfg=dataset,
        model_dir=model_dir,
        total_steps=settings.steps,
        model_config=settings.model_config,
        initial_checkpoint_path=settings.base_checkpoint,
        vocabulary=settings.vocabulary,
        optimizer=settings.lora_optimizer if arm.stage == LORA else settings.optimizer,
        stage=arm.stage,
        prompts=_prompts(place, arm, settings, seed),
        lora=_lora(place, name, arm, settings, seed),
        dropout_rate=settings.dropout_rate,
        label_smoothing=settings.label_smoothing,
        global_norm_clip_threshold=settings.global_norm_clip_threshold,
        random_seed=seed,
        stats_period=20,
        checkpoint_cfg=CheckpointConfig(period=settings.curve_period, keep=None),
        tensorboard=False,
    )


def _prompts(place: pathlib.Path, arm: Arm, settings: Promot, seed: int) -> SoftPrompts | None:
    if arm.prompt == arms_lib.TUNED:
        return SoftPrompts(path=str(place / _STAGE_1 / "checkpoints" / "best"))
    if arm.prompt == arms_lib.NONE:
        return None
    init = "uniform" if arm.prompt == arms_lib.RANDOM else settings.prompt_init
    return SoftPrompts(length=settings.prompt_length, init=init, seed=seed)


def _lora(place: pathlib.Path, name: str, arm: Arm, settings: Promot, seed: int) -> Lora | None:
    if arm.lora == arms_lib.TUNED:
        return Lora(path=str(place / arms_lib.NEEDS[name]))
    return dataclasses.replace(settings.lora, seed=seed) if arm.lora else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """What every checkpoint is asked of one suite.

    Attributes:
      suite, data: the suite and what it loads.
      length: tokens of an answer at most.
      attached: whether the arm's prompt, or its additions, are attached.
    """

    suite: suites.Suite
    data: Any
    length: int
    attached: bool


def _asked(settings: Promot, file: str) -> list[_Asked]:
    """What rows of `file` are of: the target, in-context tasks and, in `ROWS`, grounding.

    For the curves there are fewer examples, all of validation splits.
    """
    for_curves = file == CURVES
    split = "validation" if for_curves else settings.test_split
    most = settings.curve_examples["target"] if for_curves else None
    target = task_suite(_dataset(settings, split, 0, pack=False), most, compared=True)
    target = dataclasses.replace(target, name=TARGET_SUITE)
    in_context = suites.get(settings.suite, settings.suite_module)
    data = settings.suite_arguments(for_curves)
    length = settings.task_feature_lengths["targets"]
    asked = [
        _Asked(suite=target, data=None, length=length, attached=True),
        _Asked(
            suite=dataclasses.replace(in_context, name=IN_CONTEXT_SUITE),
            data=data,
            length=in_context_length(settings, in_context, data),
            attached=False,
        ),
    ]
    if settings.grounding_data and not for_curves:
        grounding, records = suites.get("grounding"), settings.grounding_data
        asked.append(_Asked(suite=grounding, data=records, length=length, attached=True))
    return asked


def _scored_by(target: suites.Suite) -> str:
    """The scores that arms are compared by on the target. Reads its examples: now, or too late."""
    firsts: dict[str, tuple[suites.EvalTask, suites.EvalExample]] = {}  # by SeqIO task
    for task in target.tasks:
        for example in task.examples(None):
            firsts.setdefault(example.fields["seqio_task"], (task, example))
    rows = [make_row(target, task, first, "", BASE, {}) for task, first in firsts.values()]
    return ", ".join(sorted({row.get("main_score", suites.MAIN_SCORE) for row in rows}))


def _measure(
    place: pathlib.Path,
    name: str,
    settings: Promot,
    seed: int,
    asked: Mapping[str, list[_Asked]],
) -> None:
    """Rows of one arm: on its way, for the curves, and of the checkpoint that is reported."""
    arm = None if name == BASE else arms_lib.get(name)
    points = {0: settings.base_checkpoint}
    if arm is not None and arm.stage is not None:
        points = {s: f"{place / name}/checkpoints/{s}" for s in settings.curve_steps}
    elif arm is not None and arm.between is not None:
        points = {0: str(place / name)}

    def attached(step: int) -> dict[str, Any]:
        """What `load_predictor` puts onto the model on the target task."""
        if arm is None:
            return {}
        if arm.lora == arms_lib.TUNED:
            return {"lora_path": str(place / arms_lib.NEEDS[name])}
        if arm.prompt == arms_lib.TUNED:
            return {"prompt_path": str(place / _STAGE_1 / "checkpoints" / "best")}
        return {"prompt_path": points[step]} if arm.prompt else {}

    def ask(file: str, called: str, step: int) -> None:
        note = {"seed": seed, "steps": step}
        _ask(place / file, called, points[step], attached(step), asked[file], settings, note)

    for step in points:
        ask(CURVES, f"{name}@{step}", step)
    step = max(points)
    if settings.select == "best":
        step = best_step(rows_of(place.parent, seed, CURVES), name)
    ask(ROWS, name, step)


def best_step(curve_rows: list[Row], arm: str) -> int:
    """The step at which an arm's target score on the validation split is best; the first of equals.

    Args:
      curve_rows: from `rows_of(..., CURVES)`.
      arm: its name.
    """
    scores: dict[int, list[float]] = {}
    for row in curve_rows:
        if row["arm"] == arm and row["suite"] == TARGET_SUITE:
            scores.setdefault(row["step"], []).append(main_score(row))
    return max(sorted(scores), key=lambda step: sum(scores[step]) / len(scores[step]))


def _ask(
    rows_path: pathlib.Path,
    arm: str,
    checkpoint: str,
    attached: Mapping[str, Any],
    asked: list[_Asked],
    settings: Promot,
    note: Mapping[str, Any],
) -> None:
    """Rows of one checkpoint, with what is `attached` where that is asked for."""
    predictor, loaded = None, None
    for part in asked:
        wanted = {"max_decode_length": part.length, **(attached if part.attached else {})}
        if predictor is None or loaded != wanted:
            base = checkpoint == settings.base_checkpoint
            predictor = load_predictor(
                checkpoint,
                settings.model_config if base else None,  # the runs' own say what they are
                settings.vocabulary,
                **wanted,
            )
            loaded = wanted
        run_suite(
            part.suite,
            predictor,
            part.data,
            arm=arm,
            rows_path=rows_path,
            # Named by the arm, so that the folder may be moved.
            checkpoint=checkpoint_name(arm, predictor.params),
            note=note,
        )


def in_context_length(settings: Promot, suite: suites.Suite, data: Mapping[str, Any]) -> int:
    """How many tokens in-context answers may have: none of the suite's targets is cut.

    Not fewer than the target task's, so that all mostly share their compiled programs.
    """
    if settings.in_context_decode_length is not None:
        return settings.in_context_decode_length
    name = settings.vocabulary or checkpoint_vocabulary(settings.base_checkpoint)
    vocabulary = load_vocabulary(choose_vocabulary(name, None, settings.base_checkpoint))
    loaded = suite.load(data)
    texts = {e.fields["target"] for task in suite.tasks for e in task.examples(loaded)}
    longest = max(len(vocabulary.encode(text)) + 1 for text in texts)  # and the end
    return max(longest, settings.task_feature_lengths["targets"])
