"""What a comparison of ProMoT with other ways of tuning is made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import gin

from kaft_promot.errors import UserError
from kaft_promot.feeding import DatasetConfig
from kaft_promot.models import T5Config
from kaft_promot.promot import arms as arms_lib
from kaft_promot.promot.arms import BASE
from kaft_promot.training import Lora
from kaft_promot.training.optimizers import Optimizer, check_clipping


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Promot:
    """Settings of a comparison.

    Attributes:
      target: SeqIO task to tune on, with splits `train`, `validation` and `test`, and a registered
        output format (`evaluation.output_share`). Arms are compared by the first figure of its
        `metric_fns`, example by example (`evaluation.example_scores`), or by exact match.
      module: a module of the user's own that registers the target.
      base_checkpoint: what every arm starts from.
      model_config: the base's network; None takes the checkpoint's own.
      vocabulary: the base's, name or path; None takes the checkpoint's own.
      arms: names in `kaft_promot.promot.arms.ARMS`.
      task_feature_lengths: tokens of a row's `inputs` (a soft prompt's included) and `targets`.
      batch_size: packed rows of a batch.
      prompt_length: P of the soft prompts.
      prompt_init: how a new prompt starts, see `training.SoftPrompts`.
      prompt_steps: updates of stage 1.
      prompt_optimizer: of stage 1.
      steps: updates of every arm.
      optimizer: of every arm but `lora`.
      lora: the low-rank additions of the arm `lora`.
      lora_optimizer: of the arm `lora`.
      dropout_rate, label_smoothing, global_norm_clip_threshold: of every arm (see
        `training.train`); stage 1 has none of them.
      curve_points: how often each arm is measured on its way, the last step included.
      curve_examples: target examples, and queries of each in-context task, of these measurements.
      select: which checkpoint of an arm the figures are of: 'last' (all arms after as many steps)
        or 'best' on the target's validation split.
      suite: evaluation suite of in-context tasks that no arm is tuned on, with queries of their own
        for each `split` (a run warns where they are the same). Its examples have a `target`, and
        arms are compared by its tasks' main scores (`EvalTask.main`).
      suite_module: a module of the user's own that registers the suite.
      suite_data: what that suite reads, besides `split` and, for the curves, `queries`: see
        `suite_arguments`.
      in_context_decode_length: tokens of an answer in context at most; None for as many as the
        suite's longest target has, and not fewer than the target task's.
      grounding_data: KAFT records that arms are asked as well, with their prompt (None: none).
      test_split: split of the target that the figures are of. If it is `validation`, so that
        settings can be chosen, the suite's queries are those of its validation split, too.
      seeds: each repeats stage 1 and every arm with other data order and prompts.

    Raises:
      UserError: for values that make no sense.
    """

    target: str
    module: str | None = None
    base_checkpoint: str
    model_config: T5Config | None = None
    vocabulary: str | None = None
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
    global_norm_clip_threshold: float | None = None
    curve_points: int = 4
    curve_examples: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"target": 200, "queries": 20}
    )
    select: str = "best"
    suite: str
    suite_module: str | None = None
    suite_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_context_decode_length: int | None = None
    grounding_data: str | None = None
    test_split: str = "test"
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in ("arms", "seeds"):
            if not isinstance(getattr(self, name), (tuple, list)):
                value = getattr(self, name)
                raise UserError(f"Promot.{name} = {value!r}: give a tuple, such as ({value!r},)")
        if not self.arms or len({BASE, *self.arms}) != len(self.arms) + 1:
            raise UserError(
                f"Promot.arms = {self.arms!r}: name arms, each once; {BASE!r} is measured anyway"
            )
        for name in self.arms:
            arms_lib.get(name)
            needed = arms_lib.NEEDS.get(name)
            if needed and needed not in self.arms[: self.arms.index(name)]:
                raise UserError(f"Promot.arms: {name!r} needs the arm {needed!r} before it")
        for name in ("prompt_length", "prompt_steps", "steps", "batch_size", "curve_points"):
            if not _is_count(getattr(self, name)):
                raise UserError(
                    f"Promot.{name} = {getattr(self, name)!r}: must be at least 1, a whole number"
                )
        if not (self.in_context_decode_length is None or _is_count(self.in_context_decode_length)):
            raise UserError(
                f"Promot.in_context_decode_length = {self.in_context_decode_length!r}: must be at "
                "least 1, a whole number, or None"
            )
        if not isinstance(self.suite_data, Mapping):
            raise UserError(
                f"Promot.suite_data = {self.suite_data!r}: give a dict, such as {{'queries': 50}}"
            )
        limits = self.curve_examples
        known = isinstance(limits, Mapping) and set(limits) == {"target", "queries"}
        if not known or not all(map(_is_count, limits.values())):
            raise UserError(
                f"Promot.curve_examples = {limits!r}: give a number of target examples and of "
                "queries a task, such as {'target': 200, 'queries': 20}"
            )
        if self.global_norm_clip_threshold is not None:
            check_clipping("Promot.global_norm_clip_threshold", self.global_norm_clip_threshold)
        if self.select not in ("last", "best"):
            raise UserError(f"Promot.select = {self.select!r}: choose 'last' or 'best'")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"Promot.seeds = {self.seeds!r}: name seeds, each once")

    def described(self) -> dict[str, Any]:
        """The settings as JSON values; those of LoRA only where an arm uses it."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if not any(arms_lib.get(name).lora for name in self.arms):
            del fields["lora"], fields["lora_optimizer"]
        del fields["vocabulary"]  # where it lies; the checkpoint says which it must be
        # With the queries' split, so that rows of one split are never added to those of another.
        fields["suite_data"] = self.suite_arguments(for_curves=False)
        return json.loads(json.dumps(fields, default=repr))

    def suite_arguments(self, for_curves: bool) -> dict[str, Any]:
        """What the suite's `load` gets: for the curves fewer queries, and always of validation."""
        if for_curves:
            queries = self.curve_examples["queries"]
            return {**self.suite_data, "queries": queries, "split": "validation"}
        split = "validation" if self.test_split == "validation" else "test"
        return {**self.suite_data, "split": split}

    def dataset(self, split: str, seed: int = 0, pack: bool = False) -> DatasetConfig:
        """The target's data: its training split without end and shuffled, others once."""
        return DatasetConfig(
            mixture_or_task_name=self.target,
            module=self.module,
            task_feature_lengths=self.task_feature_lengths,
            split=split,
            batch_size=self.batch_size,
            shuffle=split == "train",
            num_epochs=None if split == "train" else 1,
            seed=seed,
            pack=pack,
        )

    @property
    def curve_period(self) -> int:
        """Steps between two measurements of an arm."""
        return -(-self.steps // self.curve_points)

    @property
    def curve_steps(self) -> list[int]:
        """The steps after which arms are measured; the last one is always the end."""
        return [*range(self.curve_period, self.steps, self.curve_period), self.steps]
