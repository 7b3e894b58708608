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

import gin

from kaft_promot import arms as arms_lib
from kaft_promot.arms import BASE, Arm
from kaft_promot.errors import UserError
from kaft_promot.evaluate import task_suite
from kaft_promot.evaluation import output_share, suites
from kaft_promot.evaluation.results import write_json
from kaft_promot.evaluation.rows import Row, read_rows
from kaft_promot.evaluation.runner import run_suite
from kaft_promot.feeding import DatasetConfig, Demonstrations
from kaft_promot.infer import checkpoint_name, load_predictor
from kaft_promot.interop.interpolate import interpolate
from kaft_promot.interop.native import TENSORS
from kaft_promot.training import PROMPT, CheckpointConfig, Lora, SoftPrompts, train
from kaft_promot.training.optimizers import Optimizer

ROWS, CURVES = "rows.jsonl", "curves.jsonl"
_STAGE_1 = "prompt"  # the folder of stage 1's run


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Promot:
    """Settings of a comparison.

    Attributes:
      target: SeqIO task to tune on, with splits `train`, `validation` and `test`, and a registered
        output format (`evaluation.output_share`).
      module: a module of the user's own that registers the target.
      base_checkpoint: what every arm starts from.
      arms: names in `kaft_promot.arms.ARMS`.
      task_feature_lengths: tokens of a row's `inputs` (a soft prompt's included) and `targets`.
      batch_size: packed rows of a batch.
      prompt_length: P of the soft prompts.
      prompt_init: how a new prompt starts, see `training.SoftPrompts`.
      prompt_steps: updates of stage 1.
      prompt_optimizer: of stage 1.
      steps: updates of every arm.
      optimizer: of every arm but `lora`.
      lora: the additions of the arm `lora`.
      lora_optimizer: of the arm `lora`.
      dropout_rate, label_smoothing: of every arm; stage 1 has neither.
      curve_points: how often each arm is measured on its way, the last step included.
      curve_examples: target examples, and queries of each in-context task, of these measurements.
      suite: evaluation suite of in-context tasks that no arm is tuned on.
      suite_data: what that suite reads.
      grounding_data: KAFT records that arms are asked as well, with their prompt (None: none).
      test_split: split of the target that the figures are of.
      seeds: each repeats stage 1 and every arm with other data order and prompts.

    Raises:
      UserError: for values that make no sense.
    """

    target: str
    module: str | None = None
    base_checkpoint: str
    arms: tuple[str, ...] = ("finetune", "promot", "joint", "lora")
    task_feature_lengths: Mapping[str, int]
    batch_size: int
    prompt_length: int = 100
    prompt_init: str = "vocabulary"
    prompt_steps: int
    prompt_optimizer: Optimizer
    steps: int
    optimizer: Optimizer
    lora: Lora = Lora()  # noqa: RUF009 (a frozen value)
    lora_optimizer: Optimizer
    dropout_rate: float = 0.0
    label_smoothing: float = 0.0
    curve_points: int = 4
    curve_examples: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"target": 200, "queries": 20}
    )
    suite: str
    suite_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    grounding_data: str | None = None
    test_split: str = "test"
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.arms or len({BASE, *self.arms}) != len(self.arms) + 1:
            raise UserError(
                f"Promot.arms = {self.arms!r}: name arms, each once; {BASE!r} is measured anyway"
            )
        for name in self.arms:
            between = arms_lib.get(name).between
            if between and between[1] not in self.arms:
                raise UserError(f"Promot.arms: {name!r} needs the arm {between[1]!r} too")
        for name in ("prompt_steps", "steps", "batch_size", "curve_points"):
            if getattr(self, name) < 1:
                raise UserError(f"Promot.{name} = {getattr(self, name)}: must be at least 1")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"Promot.seeds = {self.seeds!r}: name seeds, each once")

    def described(self) -> dict[str, Any]:
        """The settings as JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.loads(json.dumps(fields, default=repr))

    @property
    def curve_steps(self) -> list[int]:
        """The steps after which arms are measured."""
        points = min(self.curve_points, self.steps)
        return [round(self.steps * (i + 1) / points) for i in range(points)]


def run(folder: pathlib.Path, settings: Promot) -> None:
    """Runs what is missing of every seed: `folder/seedN/` with models, rows and curve rows.

    Raises:
      UserError: the folder holds a comparison with other settings, or a part fails.
    """
    claim(folder / "settings.json", settings.described(), free=("seeds",))
    _check(settings)
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
            _measure(place, name, settings, seed)


def rows_of(folder: pathlib.Path, seed: int, file: str = ROWS) -> list[Row]:
    """A seed's sample rows; those of `CURVES` have a `step` and the arm's plain name."""
    rows = []
    for row in read_rows(folder / f"seed{seed}" / file).samples:
        if file == CURVES:
            arm, _, step = row["arm"].partition("@")
            row = {**row, "arm": arm, "step": int(step)}
        rows.append({**row, "seed": seed})
    return rows


def claim(path: pathlib.Path, described: Mapping[str, Any], free: tuple[str, ...] = ()) -> None:
    """Notes settings in a folder, and refuses one where work was done with others.

    Args:
      path: the settings file.
      described: the settings as JSON values.
      free: names of settings that may change between calls.

    Raises:
      UserError: the file is damaged or holds other settings.
    """
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); delete the folder") from error
        for name in described:
            if name not in free and found.get(name) != described[name]:
                raise UserError(
                    f"{path}: this folder was made with another {name} "
                    f"({found.get(name)}, now {described[name]}); "
                    "choose another --output or delete the folder"
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(dict(described), path)


def _say(what: str) -> None:
    print(f"[promot] {what}", flush=True)


def _check(settings: Promot) -> None:
    """What would otherwise fail after the training: the target, its format, the suite."""
    from kaft_promot.feeding.seqio_door import get_mixture_or_task  # imports TensorFlow

    target = get_mixture_or_task(settings.target, settings.module)
    output_share.format_of(settings.target)
    suites.get(settings.suite)
    for split in ("train", "validation", settings.test_split):
        if split not in target.splits:
            raise UserError(
                f"Promot.target = {settings.target!r} has no split {split!r} "
                f"(it has {', '.join(sorted(target.splits))})"
            )


def _dataset(settings: Promot, split: str, seed: int, pack: bool) -> DatasetConfig:
    return DatasetConfig(
        mixture_or_task_name=settings.target,
        module=settings.module,
        task_feature_lengths=settings.task_feature_lengths,
        split=split,
        batch_size=settings.batch_size,
        shuffle=split == "train",
        seed=seed,
        pack=pack,
    )


def _tune_prompt(place: pathlib.Path, settings: Promot, seed: int) -> None:
    """Stage 1: `place/prompt`, with the best prompt on the validation split kept."""
    if (place / _STAGE_1 / TENSORS).is_file():
        return
    period = max(1, settings.prompt_steps // 5)
    train(
        train_dataset_cfg=_dataset(settings, "train", seed, pack=True),
        train_eval_dataset_cfg=_dataset(settings, "validation", seed, pack=False),
        eval_period=period,
        model_dir=place / _STAGE_1,
        total_steps=settings.prompt_steps,
        initial_checkpoint_path=settings.base_checkpoint,
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
        weight, other = arm.between
        interpolate(settings.base_checkpoint, place / other, weight, model_dir)
    if arm.stage is None:
        return
    dataset = _dataset(settings, "train", seed, pack=True)
    if arm.demonstrations:
        dataset = dataclasses.replace(dataset, demonstrations=Demonstrations(seed=seed))
    # Checkpoints at the steps of the curve; the last step is always one.
    period = settings.curve_steps[0]
    train(
        train_dataset_cfg=dataset,
        model_dir=model_dir,
        total_steps=settings.steps,
        initial_checkpoint_path=settings.base_checkpoint,
        optimizer=settings.lora_optimizer if arm.lora else settings.optimizer,
        stage=arm.stage,
        prompts=_prompts(place, arm, settings, seed),
        lora=settings.lora if arm.lora else None,
        dropout_rate=settings.dropout_rate,
        label_smoothing=settings.label_smoothing,
        random_seed=seed,
        stats_period=20,
        checkpoint_cfg=CheckpointConfig(period=period, keep=None),
        tensorboard=False,
    )


def _prompts(place: pathlib.Path, arm: Arm, settings: Promot, seed: int) -> SoftPrompts | None:
    if arm.prompt == arms_lib.TUNED:
        return SoftPrompts(path=str(place / _STAGE_1 / "checkpoints" / "best"))
    if arm.prompt == arms_lib.NO_PROMPT:
        return None
    init = "uniform" if arm.prompt == arms_lib.RANDOM else settings.prompt_init
    return SoftPrompts(length=settings.prompt_length, init=init, seed=seed)


def _measure(place: pathlib.Path, name: str, settings: Promot, seed: int) -> None:
    """Rows of one arm: at its end, and on its way for the curves."""
    arm = None if name == BASE else arms_lib.get(name)
    prompt = str(place / _STAGE_1 / "checkpoints" / "best")
    if arm is None or (arm.stage is None and arm.between is None):
        last = settings.base_checkpoint
    else:
        last = str(place / name)
    note = {"seed": seed, "steps": 0 if arm is None or arm.stage is None else settings.steps}
    with_prompt = None
    if arm is not None and arm.prompt:
        with_prompt = last if arm.stage is not None else prompt
    _ask(place / ROWS, name, name, last, with_prompt, settings, note, None)
    if arm is not None and arm.stage is None:
        return
    points: dict[int, str] = {0: last}
    if arm is not None:
        points = {s: f"{place / name}/checkpoints/{s}" for s in settings.curve_steps}
    for step, checkpoint in points.items():
        attached = None
        if arm is not None and arm.prompt:
            attached = prompt if arm.prompt == arms_lib.TUNED else checkpoint
        _ask(
            place / CURVES,
            f"{name}@{step}",
            f"{name}@{step}",
            checkpoint,
            attached,
            settings,
            note | {"steps": step},
            settings.curve_examples,
        )


def _ask(
    rows_path: pathlib.Path,
    arm: str,
    shown: str,
    checkpoint: str,
    prompt: str | None,
    settings: Promot,
    note: Mapping[str, Any],
    limits: Mapping[str, int] | None,
) -> None:
    """Rows of one checkpoint; with `limits` a part of the validation split, else the test split."""
    lengths = {"max_input_length": 256, "max_decode_length": 16}
    split = "validation" if limits else settings.test_split
    target = task_suite(_dataset(settings, split, 0, pack=False), limits and limits["target"])
    data = dict(settings.suite_data) | ({"queries": limits["queries"]} if limits else {})
    work: list[tuple[suites.Suite, Any, str | None]] = [
        (dataclasses.replace(target, name="target"), None, prompt),
        (dataclasses.replace(suites.get(settings.suite), name="in_context"), data, None),
    ]
    if settings.grounding_data and not limits:
        work.append((suites.get("grounding"), settings.grounding_data, prompt))
    for suite, suite_data, attached in work:
        predictor = load_predictor(checkpoint, prompt_path=attached, **lengths)
        run_suite(
            suite,
            predictor,
            suite_data,
            arm=arm,
            rows_path=rows_path,
            # Named by the arm, so that the folder may be moved.
            checkpoint=checkpoint_name(shown, predictor.params),
            note=note,
        )
