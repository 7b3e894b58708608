"""ProMoT against other ways of tuning, on any target task: one experiment from base to report.

`kaft-promot promot` runs it. Stage 1 tunes a soft prompt and keeps the best on the target's
validation split; every arm then starts from the same base and makes the same number of steps. The
measurements follow (`promot.measuring`). Each part leaves its output in the folder and is skipped,
or continued, when it is there.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluation.results import write_json
from kaft_promot.feeding import Demonstrations
from kaft_promot.interop.interpolate import interpolate
from kaft_promot.interop.native import TENSORS
from kaft_promot.interop.prompts import PROMPTS
from kaft_promot.promot import arms as arms_lib
from kaft_promot.promot.arms import Arm
from kaft_promot.promot.checks import check, check_bindings
from kaft_promot.promot.measured import SETTINGS
from kaft_promot.promot.measuring import Measuring
from kaft_promot.promot.settings import Promot
from kaft_promot.training import LORA, PROMPT, CheckpointConfig, Lora, SoftPrompts, train


def run(folder: pathlib.Path, settings: Promot) -> None:
    """Runs what is missing of every seed: `folder/seedN/` with models, rows and curve rows.

    Raises:
      UserError: the folder holds a comparison with other settings, or a part fails.
    """
    check_bindings()
    check(settings, _say)
    claim(folder / SETTINGS, settings.described(), "seed*/*/metrics.jsonl", free=("seeds",))
    measuring = Measuring(settings)
    _say(f"the target is scored by {measuring.scored_by()}, example by example")
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
        measuring.run(place, seed)


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


def _tune_prompt(place: pathlib.Path, settings: Promot, seed: int) -> None:
    """Stage 1: `place/prompt`, with the best prompt on the validation split kept."""
    if (place / arms_lib.STAGE_1 / PROMPTS).is_file():
        return
    period = max(1, settings.prompt_steps // 5)
    train(
        train_dataset_cfg=settings.dataset("train", seed, pack=True),
        train_eval_dataset_cfg=settings.dataset("validation", seed),
        eval_period=period,
        model_dir=place / arms_lib.STAGE_1,
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
    dataset = settings.dataset("train", seed, pack=True)
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
        return SoftPrompts(path=str(place / arms_lib.STAGE_1 / "checkpoints" / "best"))
    if arm.prompt == arms_lib.NONE:
        return None
    init = "uniform" if arm.prompt == arms_lib.RANDOM else settings.prompt_init
    return SoftPrompts(length=settings.prompt_length, init=init, seed=seed)


def _lora(place: pathlib.Path, name: str, arm: Arm, settings: Promot, seed: int) -> Lora | None:
    if arm.lora == arms_lib.TUNED:
        return Lora(path=str(place / arms_lib.NEEDS[name]))
    return dataclasses.replace(settings.lora, seed=seed) if arm.lora else None
