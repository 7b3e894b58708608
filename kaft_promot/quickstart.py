"""The main job on shipped data, in two halves that may also be run apart.

`kaft`: probe, augment, fine-tune three arms, evaluate their grounding. `promot`: tune on a
true/false task by ProMoT and by other ways, evaluate what is forgotten. `kaft-promot quickstart`
runs both on mini and real facts; `gin/recipes/quickstart.gin` holds every setting. Each part leaves
its output in the folder and is skipped, or continued, when it is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

import gin

from kaft_promot.errors import UserError
from kaft_promot.evaluation.runner import run_suite
from kaft_promot.feeding import DatasetConfig
from kaft_promot.gin_config import OWN_MODEL, parse_gin
from kaft_promot.infer import checkpoint_name, load_predictor
from kaft_promot.interop.native import TENSORS
from kaft_promot.knowledge import QAExample, augment_file, probe_file
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.reading import NameFinder
from kaft_promot.promot import report as promot_report
from kaft_promot.promot.checks import check_bindings
from kaft_promot.promot.experiment import claim
from kaft_promot.promot.experiment import run as run_promot
from kaft_promot.promot.report import PROMOT
from kaft_promot.promot.settings import Promot
from kaft_promot.training import CheckpointConfig, train
from kaft_promot.training.optimizers import Optimizer

RECIPE = "recipes/quickstart.gin"
HALVES = ("kaft", "promot", "both")
BASE_ARM = "base"
# The split of KAFT records -> the split of shipped facts that it is made of. No arm sees `test`;
# hyper-parameters are chosen on `validation`.
SPLITS = {
    "train": facts_lib.REMEMBERED_TRAIN,
    "validation": facts_lib.REMEMBERED_VALIDATION,
    "test": facts_lib.REMEMBERED_TEST,
}
EVALUATION_SPLITS = ("test", "validation")
_HELD_OUT = frozenset(SPLITS[split] for split in EVALUATION_SPLITS)


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Settings of the quickstart.

    Attributes:
      base_checkpoint: the model to probe, tune and compare with.
      facts: a facts file of `python -m kaft_promot.mini.build`; None takes the shipped one.
      arms: mixtures of `tasks/kaft.py`, each trained from the base.
      train_steps: updates of each arm.
      batch_size: packed rows of a batch.
      task_feature_lengths: tokens of a row's `inputs` and `targets`.
      optimizer: of every arm.
      dropout_rate: of every arm.
      evaluation_split: 'test', or 'validation' to choose settings without touching the test.
      questions: evaluated questions (None: all of the split), each in four context kinds. Which
        ones is decided by a hash of their facts' ids: the shipped file goes by relation, so the
        first ones would leave relations out.
      seed: of the records, the order of the data and the intervals.

    Raises:
      UserError: an unknown split, or no arms, one twice, or one that is called like the base.
    """

    base_checkpoint: str
    facts: str | None = None
    arms: tuple[str, ...] = ("relevant_only", "noisy", "kaft")
    train_steps: int
    batch_size: int
    task_feature_lengths: Mapping[str, int]
    optimizer: Optimizer
    dropout_rate: float = 0.0
    evaluation_split: str = "test"
    questions: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.evaluation_split not in EVALUATION_SPLITS:
            raise UserError(
                f"Quickstart.evaluation_split = {self.evaluation_split!r}: "
                f"choose from {', '.join(EVALUATION_SPLITS)}"
            )
        if not self.arms or len({BASE_ARM, *self.arms}) != len(self.arms) + 1:
            raise UserError(
                f"Quickstart.arms = {self.arms!r}: name mixtures, each once; {BASE_ARM!r} is "
                "evaluated anyway"
            )
        if self.questions is not None and self.questions < 1:
            raise UserError(f"Quickstart.questions = {self.questions}: must be at least 1")

    def described(self) -> dict[str, object]:
        """The settings as JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["optimizer"] = repr(self.optimizer)
        fields["arms"] = list(self.arms)
        fields["task_feature_lengths"] = dict(self.task_feature_lengths)
        return fields


def run(
    output_dir: str | os.PathLike[str], bindings: list[str] | None = None, half: str = "both"
) -> pathlib.Path:
    """Runs the quickstart and prints its tables.

    Args:
      output_dir: made if needed; a run that was stopped there is continued.
      bindings: gin bindings that change the recipe.
      half: 'kaft', 'promot' or 'both'. The report shows what the folder holds, whichever half this
        call has run.

    Returns:
      The path of the report.

    Raises:
      UserError: if the folder holds a run with other settings, or a part fails.
    """
    if half not in HALVES:
        raise UserError(f"--half={half}: choose from {', '.join(HALVES)}")
    folder = pathlib.Path(output_dir)
    of_promot = f"MODEL_DIR={str(folder / PROMOT)!r}"
    parse_gin([RECIPE], [of_promot, *(bindings or [])], defaults=OWN_MODEL)
    settings = Quickstart()  # type: ignore[call-arg]  # gin fills it from the recipe
    comparison = Promot()  # type: ignore[call-arg]
    if half != "kaft":
        check_bindings()  # before the first half has spent its minutes
    started = time.monotonic()
    if half != "promot":
        _run_kaft(folder, settings)
    if half != "kaft":
        run_promot(folder / PROMOT, comparison)
    _announce("compute every figure from the sample rows")
    report = promot_report.write_both(folder, comparison, seed=settings.seed)
    print(f"\n{report} ({time.monotonic() - started:.0f} s)")
    return report


def _run_kaft(folder: pathlib.Path, settings: Quickstart) -> None:
    """The half about grounding: leaves records, models and `rows.jsonl`."""
    _check_arms(folder, settings)
    claim(folder / "settings.json", settings.described(), "records/*.answers.jsonl")
    _announce(f"ask {settings.base_checkpoint} closed book what it knows")
    records = _make_records(folder, settings)
    for number, arm in enumerate(settings.arms, start=1):
        _announce(f"fine-tune {arm} ({number} of {len(settings.arms)})")
        _train_arm(folder / arm, records, arm, settings)
    _announce("evaluate the base and every arm on held-out facts")
    checkpoints = {BASE_ARM: settings.base_checkpoint}
    checkpoints |= {arm: str(folder / arm) for arm in settings.arms}
    for arm, checkpoint in checkpoints.items():
        _evaluate(folder, records, arm, checkpoint, settings)


def _announce(what: str) -> None:
    print(f"[quickstart] {what}", flush=True)


def _check_arms(folder: pathlib.Path, settings: Quickstart) -> None:
    """Raises UserError for an arm that no mixture is called like, before any work starts."""
    if all((folder / arm / TENSORS).is_file() for arm in settings.arms):
        return
    from kaft_promot.feeding.seqio_door import get_mixture_or_task  # imports TensorFlow

    for arm in settings.arms:
        get_mixture_or_task(arm)


def _make_records(folder: pathlib.Path, settings: Quickstart) -> pathlib.Path:
    """Probes the base closed book and writes `records/{split}.jsonl`; returns that folder."""
    records = folder / "records"
    facts = facts_lib.load_facts(settings.facts)
    predictor = None
    for split, fact_split in SPLITS.items():
        if (records / f"{split}.jsonl").is_file():
            continue
        if split == "train":
            chosen = training_facts(facts)
        else:
            chosen = [fact for fact in facts if fact.split == fact_split and fact.sentences]
            chosen = sample(chosen, settings.questions)
        if not chosen:
            raise UserError(f"{settings.facts}: no fact of the split {fact_split} has a sentence")
        questions = records / f"{split}.questions.jsonl"
        answers = records / f"{split}.answers.jsonl"
        predictor = predictor or load_predictor(settings.base_checkpoint, max_decode_length=16)
        _write_questions([facts_lib.to_example(fact) for fact in chosen], questions)
        name = checkpoint_name(settings.base_checkpoint, predictor.params)
        probe_file(predictor, questions, answers, checkpoint=name, format="jsonl", progress=True)
        summary = augment_file(
            questions,
            records,
            format="jsonl",
            proposer="relation",
            irrelevant_kinds="random",
            parametric_answers=answers,
            seed=settings.seed,
            split=split,
        )
        print(f"KAFT records, split {split}:\n{summary.table()}")
    return records


def training_facts(facts: Sequence[facts_lib.Fact]) -> list[facts_lib.Fact]:
    """The facts that arms are trained on: their context names no subject that is asked about later.

    A sentence of one fact may tell another one in passing ("a play by Norwegian Henrik Ibsen").
    """
    held_out = NameFinder(fact.subject for fact in facts if fact.split in _HELD_OUT)
    return [
        fact
        for fact in facts
        if fact.split == SPLITS["train"]
        and fact.sentences
        and not held_out.in_text(fact.sentence)
        and not held_out.in_text(fact.subject)
    ]


def sample(facts: Sequence[facts_lib.Fact], count: int | None) -> list[facts_lib.Fact]:
    """`count` of the facts (None: all), whose ids have the smallest hashes, in their order."""
    least = sorted(facts, key=lambda fact: hashlib.sha256(fact.id.encode()).digest())
    ids = {fact.id for fact in least[:count]}
    return [fact for fact in facts if fact.id in ids]


def _write_questions(examples: list[QAExample], path: pathlib.Path) -> None:
    """Writes what `kaft-promot augment` reads: the quickstart goes the way of a user's data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in examples]
    path.write_text("".join(lines), encoding="utf-8")


def _train_arm(
    model_dir: pathlib.Path, records: pathlib.Path, arm: str, settings: Quickstart
) -> None:
    """Fine-tunes the base on one arm's mixture, unless its final parameters are there."""
    if (model_dir / TENSORS).is_file():
        return
    with gin.unlock_config():
        gin.bind_parameter("kaft_records.directory", str(records))
    train(
        train_dataset_cfg=DatasetConfig(
            mixture_or_task_name=arm,
            task_feature_lengths=settings.task_feature_lengths,
            batch_size=settings.batch_size,
            seed=settings.seed,
            pack=True,
        ),
        model_dir=model_dir,
        total_steps=settings.train_steps,
        initial_checkpoint_path=settings.base_checkpoint,
        optimizer=settings.optimizer,
        dropout_rate=settings.dropout_rate,
        random_seed=settings.seed,
        stats_period=10,
        checkpoint_cfg=CheckpointConfig(period=50, keep=1),
        tensorboard=False,
    )


def _evaluate(
    folder: pathlib.Path, records: pathlib.Path, arm: str, checkpoint: str, settings: Quickstart
) -> None:
    predictor = load_predictor(checkpoint, max_decode_length=16)
    run_suite(
        "grounding",
        predictor,
        str(records / f"{settings.evaluation_split}.jsonl"),
        arm=arm,
        rows_path=folder / "rows.jsonl",
        # Named by the arm, so that the folder may be moved or written otherwise.
        checkpoint=checkpoint_name(
            settings.base_checkpoint if arm == BASE_ARM else arm, predictor.params
        ),
        note={"seed": settings.seed, "steps": 0 if arm == BASE_ARM else settings.train_steps},
    )
