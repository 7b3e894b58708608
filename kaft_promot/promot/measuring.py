"""Asks the checkpoints of a comparison of ProMoT's arms, and keeps the rows (see `measured`).

The target is asked with the arm's prompt attached, in-context tasks without it. What is there
already is not asked again.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from kaft_promot.evaluate import task_suite
from kaft_promot.evaluation import suites
from kaft_promot.evaluation.retention import IN_CONTEXT_SUITE, TARGET_SUITE
from kaft_promot.evaluation.rows import RowWriter
from kaft_promot.evaluation.runner import make_row, run_suite
from kaft_promot.feeding import load_vocabulary
from kaft_promot.infer import checkpoint_name, load_predictor
from kaft_promot.interop import choose_vocabulary
from kaft_promot.interop.vocabulary import checkpoint_vocabulary
from kaft_promot.promot import arms as arms_lib
from kaft_promot.promot.arms import BASE
from kaft_promot.promot.measured import CURVES, MATCHED, ROWS, Steps, rows_of
from kaft_promot.promot.settings import Promot


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


class Measuring:
    """Asks a comparison's checkpoints; what they are asked is made once, not for each.

    Raises:
      UserError: a suite cannot be loaded.
    """

    def __init__(self, settings: Promot):
        self._settings = settings
        figures, grounding = _asked(settings, for_curves=False), _grounding(settings)
        self._asked = {
            CURVES: _asked(settings, for_curves=True),
            ROWS: [*figures, *grounding],
            MATCHED: figures,
        }

    def scored_by(self) -> str:
        """The scores that arms are compared by on the target; reads its examples."""
        suite = self._asked[ROWS][0].suite
        firsts: dict[str, tuple[suites.EvalTask, suites.EvalExample]] = {}  # by SeqIO task
        for task in suite.tasks:
            for example in task.examples(None):
                firsts.setdefault(example.fields["seqio_task"], (task, example))
        rows = [make_row(suite, task, first, "", BASE, {}) for task, first in firsts.values()]
        return ", ".join(sorted({row.get("main_score", suites.MAIN_SCORE) for row in rows}))

    def run(self, place: pathlib.Path, seed: int) -> None:
        """Rows of the base and all arms of one seed, whose runs are in `place`."""
        settings = self._settings
        with RowWriter(place / CURVES) as writer:
            for name in (BASE, *settings.arms):
                for step in _checkpoints(place, name, settings):
                    self._ask(writer, name, step, seed)
        steps = Steps.of(rows_of(place.parent, seed, CURVES), settings)
        with RowWriter(place / ROWS) as writer:
            for name, step in steps.reported.items():
                self._ask(writer, name, step, seed)
        if steps.taken_back:
            with RowWriter(place / MATCHED) as writer:
                for name, step in steps.taken_back:
                    self._ask(writer, name, step, seed)

    def _ask(self, writer: RowWriter, name: str, step: int, seed: int) -> None:
        """Rows of one checkpoint."""
        settings, place, file = self._settings, writer.path.parent, writer.path.name
        checkpoint = _checkpoints(place, name, settings)[step]
        attached = _attached(place, name, checkpoint)
        called = name if file == ROWS else f"{name}@{step}"
        predictor, loaded = None, None
        for part in self._asked[file]:
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
                arm=called,
                rows_path=writer,
                # Named by the arm, so that the folder may be moved.
                checkpoint=checkpoint_name(called, predictor.params),
                note={"seed": seed, "steps": step},
            )


def _checkpoints(place: pathlib.Path, name: str, settings: Promot) -> dict[int, str]:
    """The checkpoints of an arm that are measured: step -> where. 0 where nothing is trained."""
    arm = None if name == BASE else arms_lib.get(name)
    if arm is not None and arm.stage is not None:
        return {step: f"{place / name}/checkpoints/{step}" for step in settings.curve_steps}
    if arm is not None and arm.between is not None:
        return {0: str(place / name)}
    return {0: settings.base_checkpoint}


def _attached(place: pathlib.Path, name: str, checkpoint: str) -> dict[str, Any]:
    """What `load_predictor` puts onto an arm's checkpoint on the target task."""
    if name == BASE:
        return {}
    arm = arms_lib.get(name)
    if arm.lora == arms_lib.TUNED:
        return {"lora_path": str(place / arms_lib.NEEDS[name])}
    if arm.prompt == arms_lib.TUNED:
        return {"prompt_path": str(place / arms_lib.STAGE_1 / "checkpoints" / "best")}
    return {"prompt_path": checkpoint} if arm.prompt else {}


def _asked(settings: Promot, for_curves: bool) -> list[_Asked]:
    """The target and in-context tasks; for the curves fewer examples, all of validation splits."""
    split = "validation" if for_curves else settings.test_split
    most = settings.curve_examples["target"] if for_curves else None
    target = task_suite(settings.dataset(split), most, compared=True)
    in_context = suites.get(settings.suite, settings.suite_module)
    data = settings.suite_arguments(for_curves)
    return [
        _Asked(
            suite=dataclasses.replace(target, name=TARGET_SUITE),
            data=None,
            length=settings.task_feature_lengths["targets"],
            attached=True,
        ),
        _Asked(
            suite=dataclasses.replace(in_context, name=IN_CONTEXT_SUITE),
            data=data,
            length=in_context_length(settings, in_context, data),
            attached=False,
        ),
    ]


def _grounding(settings: Promot) -> list[_Asked]:
    """KAFT records, where the settings name some."""
    if not settings.grounding_data:
        return []
    length = settings.task_feature_lengths["targets"]
    suite = suites.get("grounding")
    return [_Asked(suite=suite, data=settings.grounding_data, length=length, attached=True)]


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
