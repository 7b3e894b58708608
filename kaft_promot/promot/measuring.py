"""What a comparison of ProMoT's arms asks of checkpoints, and the rows that it keeps.

The target is asked with the arm's prompt attached, in-context tasks without it. Every arm is asked
on its way (`CURVES`, validation examples), at the step that is reported (`ROWS`, test examples),
and, where arms are compared at matched target score, at another step (`MATCHED`, the same test
examples). What is there already is not asked again.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluate import task_suite
from kaft_promot.evaluation import retention_matched, suites
from kaft_promot.evaluation.retention import IN_CONTEXT_SUITE, TARGET_SUITE
from kaft_promot.evaluation.retention_matched import Pair, target_scores
from kaft_promot.evaluation.rows import Row, RowWriter, read_rows
from kaft_promot.evaluation.runner import make_row, run_suite
from kaft_promot.feeding import load_vocabulary
from kaft_promot.infer import checkpoint_name, load_predictor
from kaft_promot.interop import choose_vocabulary
from kaft_promot.interop.vocabulary import checkpoint_vocabulary
from kaft_promot.promot import arms as arms_lib
from kaft_promot.promot.arms import BASE
from kaft_promot.promot.settings import Promot

ROWS, CURVES, MATCHED = "rows.jsonl", "curves.jsonl", "matched.jsonl"
SETTINGS = "settings.json"


def rows_of(folder: pathlib.Path, seed: int, file: str = ROWS) -> list[Row]:
    """A seed's sample rows; those of `CURVES` and `MATCHED` have a `step`.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / f"seed{seed}" / file
    if file == MATCHED and not path.is_file():  # no arm was taken back
        return []
    rows = []
    for row in read_rows(path).samples:
        if file != ROWS:
            arm, _, step = row["arm"].partition("@")
            if not step.isdecimal():
                raise UserError(f"{path}: the arm {row['arm']!r} names no step; delete the file")
            row = {**row, "arm": arm, "step": int(step)}
        rows.append({**row, "seed": seed})
    return rows


def reported_steps(curve_rows: list[Row], settings: Promot) -> dict[str, int]:
    """Arm -> the step that its figures are of.

    The last, or where `settings.select` is 'best' the one with the best target score on the
    validation split, the first of equals.

    Args:
      curve_rows: from `rows_of(..., CURVES)`.
      settings: of the comparison.
    """
    scores = target_scores(curve_rows)
    if settings.select == "last":
        return {arm: max(of_arm) for arm, of_arm in scores.items()}
    return {arm: max(of_arm, key=lambda step: of_arm[step]) for arm, of_arm in scores.items()}


def matched_pairs(folder: pathlib.Path, settings: Promot, seed: int) -> dict[str, Pair]:
    """Arm -> where it and plain fine-tuning are equally good at the target task (validation)."""
    curve_rows = rows_of(folder, seed, CURVES)
    scores = target_scores(curve_rows)
    return retention_matched.pairs(
        {arm: scores[arm] for arm in (BASE, *settings.arms) if arm in scores},
        reported_steps(curve_rows, settings),
    )


def matched_rows(folder: pathlib.Path, settings: Promot, seed: int) -> list[Row]:
    """A seed's rows of test examples, each with its `step`."""
    reported = reported_steps(rows_of(folder, seed, CURVES), settings)
    rows = [{**row, "step": reported[row["arm"]]} for row in rows_of(folder, seed, ROWS)]
    return rows + rows_of(folder, seed, MATCHED)


def unfinished(folder: pathlib.Path, settings: Promot) -> str | None:
    """Why a folder does not hold all rows of a comparison with these settings; None if it does.

    Raises:
      UserError: its rows are damaged.
    """
    try:
        noted = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = None
    if not isinstance(noted, dict):
        return f"{folder} holds no comparison"
    described = settings.described()
    other = [name for name in described if name != "seeds" and noted.get(name) != described[name]]
    if other:
        return f"{folder} was made with other settings ({', '.join(other)})"
    for seed in settings.seeds:
        if not _is_whole(folder, settings, seed):
            return f"seed {seed} is not measured whole; give the command again that measures it"
    return None


def _is_whole(folder: pathlib.Path, settings: Promot, seed: int) -> bool:
    """Whether every arm has rows of the same examples as the base, where it is matched as well."""
    if not all((folder / f"seed{seed}" / file).is_file() for file in (CURVES, ROWS)):
        return False
    asked: dict[str, set[str]] = {}
    for file in (ROWS, MATCHED):
        for row in rows_of(folder, seed, file):
            if row["suite"] in (TARGET_SUITE, IN_CONTEXT_SUITE):
                called = _called(file, row["arm"], row.get("step", 0))
                asked.setdefault(called, set()).add(row["example_id"])
    if not {BASE, *settings.arms} <= asked.keys():
        return False
    # All arms were asked test examples, which comes after the curves: those are whole.
    reported = reported_steps(rows_of(folder, seed, CURVES), settings)
    back = _taken_back(matched_pairs(folder, settings, seed).values(), reported)
    wanted = [BASE, *settings.arms, *(_called(MATCHED, name, step) for name, step in back)]
    return all(asked.get(called) == asked[BASE] for called in wanted)


def _called(file: str, name: str, step: int) -> str:
    """What rows call an arm: with its step, but where one step alone is asked."""
    return name if file == ROWS else f"{name}@{step}"


def _taken_back(pairs: Iterable[Pair], reported: Mapping[str, int]) -> list[tuple[str, int]]:
    """Arms and steps of pairs that are not those that are reported."""
    found = {at for pair in pairs for at in pair.steps.items()}
    return sorted(at for at in found if at[1] != reported[at[0]])


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
        settings, folder = self._settings, place.parent
        with RowWriter(place / CURVES) as writer:
            for name in (BASE, *settings.arms):
                for step in _checkpoints(place, name, settings):
                    self._ask(writer, name, step, seed)
        reported = reported_steps(rows_of(folder, seed, CURVES), settings)
        with RowWriter(place / ROWS) as writer:
            for name, step in reported.items():
                self._ask(writer, name, step, seed)
        back = _taken_back(matched_pairs(folder, settings, seed).values(), reported)
        if back:
            with RowWriter(place / MATCHED) as writer:
                for name, step in back:
                    self._ask(writer, name, step, seed)

    def _ask(self, writer: RowWriter, name: str, step: int, seed: int) -> None:
        """Rows of one checkpoint."""
        settings, place, file = self._settings, writer.path.parent, writer.path.name
        checkpoint = _checkpoints(place, name, settings)[step]
        attached = _attached(place, name, checkpoint)
        called = _called(file, name, step)
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
