"""The training loop.

    params = train(
        model_config=config, train_dataset_cfg=DatasetConfig(...), model_dir="runs/a",
        total_steps=1000, optimizer=Adafactor(learning_rate=1e-3), stage=FULL,
        initial_checkpoint_path="mini",
    )

A run directory holds `checkpoints/`, `metrics.jsonl`, TensorBoard events, `operative_config.gin`,
and at the end `model.safetensors` with `model_config.json`, `prompt.safetensors` where soft prompts
were used, and `lora.safetensors` where LoRA was. A run that finds a checkpoint in its directory
goes on from it, as if it had never stopped.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gin
import jax
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import Params, T5Config
from kaft_promot.scale.mesh import MeshConfig, check_divides, shard_batch
from kaft_promot.training.checkpoints import CheckpointConfig
from kaft_promot.training.feed import (
    Source,
    blank_batch,
    check_ids,
    eval_batches,
    how_to_go_on,
    open_feed,
    peek,
)
from kaft_promot.training.hooks import Hook
from kaft_promot.training.lora import Lora, frozen_lora
from kaft_promot.training.optimizers import Adafactor, Optimizer
from kaft_promot.training.prompts import SoftPrompts
from kaft_promot.training.run import Run
from kaft_promot.training.signals import Interrupted, StopRequests
from kaft_promot.training.specialization import Specialization
from kaft_promot.training.stages import FULL, Stage
from kaft_promot.training.start import load_start
from kaft_promot.training.state import TrainState, init_state, model_features
from kaft_promot.training.step import make_eval_step, make_train_step


@gin.configurable
def train(
    *,
    train_dataset_cfg: Source,
    model_dir: str | pathlib.Path | None,
    total_steps: int,
    model_config: T5Config | None = None,
    initial_checkpoint_path: str | None = None,
    initial_params: Params | None = None,
    optimizer: Optimizer = Adafactor(),  # noqa: B008 (a frozen value)
    stage: Stage = FULL,
    prompts: SoftPrompts | None = None,
    lora: Lora | None = None,
    train_eval_dataset_cfg: Source | None = None,
    eval_period: int = 1000,
    eval_steps: int | None = None,
    stats_period: int = 100,
    random_seed: int = 0,
    checkpoint_cfg: CheckpointConfig = CheckpointConfig(),  # noqa: B008
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
    num_microbatches: int = 1,
    global_norm_clip_threshold: float | None = None,
    dropout_rate: float | None = None,
    mesh_config: MeshConfig = MeshConfig(),  # noqa: B008
    hooks: Sequence[Hook] = (),
    specialization: Specialization | None = None,
    vocabulary: str | None = None,
    tensorboard: bool = True,
    progress: bool = True,
) -> Params:
    """Trains, or goes on training, and returns the final parameters.

    Args:
      train_dataset_cfg: a `feeding.DatasetConfig`, or a function that returns an iterator over
        batches (dicts of int arrays `[B, length]`), the same ones each time.
      model_dir: the run's directory; None writes nothing and cannot be continued.
      total_steps: updates of this run, counted from its own start (unlike T5X, which counts the
        pre-training's steps too).
      model_config: the network; None takes that of the initial checkpoint.
      initial_checkpoint_path: where parameters start: what `interop.load_model` reads ('mini', an
        exported folder, a T5X or Hugging Face checkpoint), or the directory of another run.
      initial_params: the same as a nested dict in memory (needs model_config). With neither, they
        are random.
      optimizer: `Adafactor` or `AdamW`, with its learning rate.
      stage: which parameters are trained.
      prompts: soft prompts to put in front of every example (None: none); whether they are trained
        is the stage's to say. With batches from a function, these must hold the placeholder ids.
      lora: low-rank additions to kernels (None: none); whether they are trained is the stage's to
        say.
      train_eval_dataset_cfg: validation batches; `eval/loss` and `eval/accuracy` (of tokens).
      eval_period: steps between evaluations; there is also one after the last step.
      eval_steps: batches an evaluation (None: all, the last one filled with rows of padding).
      stats_period: steps between rows of metrics, which are means over these steps.
      random_seed: of dropout and of random parameters.
      checkpoint_cfg: when to save and what to keep.
      label_smoothing, z_loss, loss_normalizing_factor, num_microbatches,
        global_norm_clip_threshold: see `step.make_train_step`.
      dropout_rate: overrides the configuration's (None: does not).
      mesh_config: how devices share the work.
      hooks: measurements during training.
      specialization: signs of format specialization to measure during training (None: none).
      vocabulary: path or name of the vocabulary, for the export (None: the initial checkpoint's).
      tensorboard: whether to write TensorBoard events.
      progress: whether to show a progress bar.

    Returns:
      The parameters after `total_steps`, a nested dict.

    Raises:
      UserError: for a mistake in the arguments or files; if the loss is not finite (naming the
        step); if a checkpoint cannot be written. Checkpoints saved before are kept.
      Interrupted: a `SystemExit`, after SIGTERM or Ctrl-C, when the state is saved.
    """
    for name, value in (
        ("total_steps", total_steps),
        ("eval_period", eval_period),
        ("eval_steps", 1 if eval_steps is None else eval_steps),
        ("stats_period", stats_period),
    ):
        if value < 1:
            raise UserError(f"train.{name} = {value}: must be at least 1")
    checkpoint_cfg.check_monitored(
        eval_period if train_eval_dataset_cfg else None,
        total_steps,
        others=bool(hooks or (specialization and specialization.period)),
    )
    mesh = mesh_config.make()
    start = load_start(
        model_config, initial_checkpoint_path, initial_params, random_seed, dropout_rate
    )
    vocabulary = vocabulary or start.vocabulary
    if prompts is not None:
        start = prompts.attach(start, vocabulary, train_dataset_cfg)
        train_dataset_cfg = prompts.feed(train_dataset_cfg, start)
        train_eval_dataset_cfg = prompts.feed(train_eval_dataset_cfg, start, training=False)
    if lora is not None:
        start = lora.attach(start)
        frozen_lora(start.params, stage)  # refuses a stage that trains a part of them
    state = init_state(start.params, optimizer, stage, mesh, random_seed)
    step_fn = make_train_step(
        start.config,
        optimizer,
        label_smoothing,
        z_loss,
        loss_normalizing_factor,
        num_microbatches,
        global_norm_clip_threshold,
    )
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    with ThreadPoolExecutor(1) as pool:  # opening imports and reads much: compile meanwhile
        opening = pool.submit(open_feed, train_dataset_cfg, **processes)
        blank = blank_batch(train_dataset_cfg, jax.process_count())
        if blank is not None:
            step_fn.compile(state, shard_batch(model_features(blank), mesh))
        feed = opening.result()
    if specialization is not None and specialization.period:
        hooks = (*hooks, specialization.hook(start, stage, peek(feed), mesh))
    evaluate = None
    if train_eval_dataset_cfg is not None:
        held_out = eval_batches(train_eval_dataset_cfg, eval_steps, **processes)
        evaluate = _Evaluation(start.config, held_out, mesh)
    run = Run(model_dir, checkpoint_cfg, start, stage, vocabulary, tensorboard)
    state = run.resume(state, feed, total_steps)
    first = int(state.step)

    bar = _progress_bar(first, total_steps, stage.name, progress)
    window = _Window(first)
    with StopRequests() as stop, run, bar:
        for step in range(first + 1, total_steps + 1):
            try:
                batch = next(feed)
            except StopIteration:
                if step == 1:
                    raise UserError("train_dataset_cfg: no batch in it") from None
                if window:  # nothing is saved before it is known to be finite
                    run.write(step - 1, window.close())
                run.save(state, feed, {})
                raise UserError(
                    f"the data ended after step {step - 1} of {total_steps} (saved): "
                    f"{how_to_go_on(feed)}"
                ) from None
            features = model_features(batch)
            check_ids(features, start.config)
            state, metrics = step_fn(state, shard_batch(features, mesh))
            window.add(metrics, batch)
            bar.update()

            last = step == total_steps
            interrupted = _agree_to_stop(stop.received, step)
            saves = last or interrupted is not None or step % checkpoint_cfg.period == 0
            row: dict[str, float] = {}
            if last or saves or step % stats_period == 0:
                row |= window.close()
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            measured: dict[str, float] = {}
            if evaluate is not None and (last or step % eval_period == 0):
                measured |= evaluate(state)
            for hook in hooks:
                if last or step % hook.period == 0:
                    measured |= hook.measure(step, state.params)
            row |= measured
            if row:
                run.write(step, row)
            if saves:
                run.save(state, feed, measured)
                if interrupted is None or last:
                    run.check_measured(step, measured)
            window.skip_time()
            if interrupted is not None and not last:
                raise Interrupted(interrupted, step)
        run.export(state)
    return state.params


class _Window:
    """Metrics of the steps since the last row, kept on the device until the row is written."""

    def __init__(self, step: int):
        self._step = step
        self._clear()

    def __len__(self) -> int:
        """Steps since the last row."""
        return len(self._metrics)

    def _clear(self) -> None:
        self._metrics: list[dict[str, jax.Array]] = []
        self._sequences = 0
        self._seconds = 0.0
        self._mark = time.perf_counter()

    def add(self, metrics: dict[str, jax.Array], batch: Mapping[str, np.ndarray]) -> None:
        """Notes one step; waits for the step before it, so that steps do not pile up."""
        if self._metrics:
            jax.block_until_ready(self._metrics[-1]["loss"])
        self._metrics.append(metrics)
        self._sequences += len(batch["decoder_target_tokens"]) * jax.process_count()
        self._step += 1

    def close(self) -> dict[str, float]:
        """Means over the window; checks that every loss is finite."""
        rows = jax.device_get(self._metrics)
        self._seconds += time.perf_counter() - self._mark
        first = self._step - len(rows) + 1
        for step, row in enumerate(rows, start=first):
            if not math.isfinite(row["loss"]) or not math.isfinite(row["gradient_norm"]):
                raise UserError(
                    f"the loss or gradient of step {step} is not finite (loss {row['loss']}); the "
                    "last checkpoint before it is kept: lower the learning rate, or set "
                    "train.global_norm_clip_threshold, and run again"
                )
        tokens = np.asarray([row["tokens"] for row in rows])
        weights = tokens / max(tokens.sum(), 1.0)
        means = {
            name: float(np.dot([row[name] for row in rows], weights))
            for name in ("loss", "z_loss", "accuracy")
        }
        means["learning_rate"] = float(rows[-1]["learning_rate"])
        means["gradient_norm"] = float(np.mean([row["gradient_norm"] for row in rows]))
        means["timing/steps_per_second"] = len(rows) / self._seconds
        means["timing/target_tokens_per_second"] = float(tokens.sum()) / self._seconds
        means["timing/seqs_per_second"] = self._sequences / self._seconds
        self._clear()
        return means

    def skip_time(self) -> None:
        """Leaves out the time since `close` if nothing was added: it was spent on other work."""
        if not self._metrics:
            self._mark = time.perf_counter()


class _Evaluation:
    """Loss and token accuracy on fixed batches."""

    def __init__(self, config: T5Config, batches: Sequence[Mapping[str, np.ndarray]], mesh: Any):
        self._step = make_eval_step(config)
        self._batches = [model_features(batch) for batch in batches]
        self._mesh = mesh
        for batch in self._batches:  # now, not when the first evaluation is due
            check_ids(batch, config)
            check_divides(batch, mesh)

    def __call__(self, state: TrainState) -> dict[str, float]:
        params = state.params
        sums = [self._step(params, shard_batch(batch, self._mesh)) for batch in self._batches]
        total = {name: sum(float(s[name]) for s in sums) for name in ("loss", "correct", "weights")}
        weights = max(total["weights"], 1e-6)
        return {
            "eval/loss": total["loss"] / weights,
            "eval/accuracy": total["correct"] / weights,
        }


def _agree_to_stop(received: int | None, step: int) -> int | None:
    """The signal to stop for, the same at the same step in every process."""
    if jax.process_count() == 1:
        return received
    from jax.experimental import multihost_utils

    numbers = multihost_utils.process_allgather(np.int32(received or 0))
    return int(numbers.max()) or None


def _progress_bar(first: int, total: int, name: str, progress: bool) -> Any:
    import tqdm

    hide = not progress or jax.process_index() != 0
    return tqdm.tqdm(
        initial=first,
        total=total,
        desc=f"train ({name})",
        unit="step",
        disable=hide,
        mininterval=0.5,
        dynamic_ncols=True,
    )
