"""Learning rates as products of named factors, in T5X's vocabulary."""

from __future__ import annotations

import dataclasses

import gin
import jax
import jax.numpy as jnp

from kaft_promot.errors import UserError

FACTORS = (
    "constant",
    "linear_warmup",
    "linear_decay",
    "rsqrt_decay",
    "rsqrt_normalized_decay",
    "decay_every",
    "cosine_decay",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning rate as a function of the step; a value, so that equal ones share a program.

    Calling it with a step (int or int32 scalar) gives a float32 scalar.
    """

    factors: tuple[str, ...]
    base_learning_rate: float
    warmup_steps: int
    decay_factor: float
    steps_per_decay: int
    steps_per_cycle: int
    step_offset: int
    min_learning_rate: float

    def __call__(self, step: jax.Array | int) -> jax.Array:
        step = jnp.maximum(0, jnp.asarray(step, jnp.float32) - self.step_offset)
        warmup = float(self.warmup_steps)
        rate = jnp.float32(1.0)
        for factor in self.factors:
            if factor == "constant":
                rate *= self.base_learning_rate
            elif factor == "linear_warmup":
                rate *= jnp.minimum(1.0, step / warmup)
            elif factor == "linear_decay":
                rate *= self.base_learning_rate * jnp.minimum(
                    step / warmup, 1.0 + self.decay_factor * (warmup - step)
                )
            elif factor == "rsqrt_decay":
                rate /= jnp.sqrt(jnp.maximum(step, warmup))
            elif factor == "rsqrt_normalized_decay":
                rate *= jnp.sqrt(warmup) / jnp.sqrt(jnp.maximum(step, warmup))
            elif factor == "decay_every":
                rate *= self.decay_factor ** (step // self.steps_per_decay)
            elif factor == "cosine_decay":
                progress = jnp.maximum(0.0, (step - warmup) / float(self.steps_per_cycle))
                rate *= jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (progress % 1.0))))
        return jnp.maximum(rate, self.min_learning_rate)


@gin.configurable(module="kaft_promot.utils")
def create_learning_rate_scheduler(
    factors: str = "constant * linear_warmup * rsqrt_decay",
    base_learning_rate: float = 0.5,
    warmup_steps: int = 1000,
    decay_factor: float = 0.5,
    steps_per_decay: int = 20000,
    steps_per_cycle: int = 100000,
    step_offset: int = 0,
    min_learning_rate: float = 1e-8,
) -> Schedule:
    """A learning-rate schedule; names, defaults and formulas are those of T5X's function.

    >>> float(create_learning_rate_scheduler("constant", base_learning_rate=0.25)(7))
    0.25

    Args:
      factors: names joined by '*': `constant` (base_learning_rate), `linear_warmup`
        (min(1, step / warmup_steps)), `linear_decay` (warm-up to base_learning_rate, then a
        straight line that loses the share decay_factor of it a step; used alone), `rsqrt_decay`
        (1 / sqrt(max(step, warmup_steps))), `rsqrt_normalized_decay` (the same, 1 at the end of
        the warm-up), `decay_every` (decay_factor each steps_per_decay steps), `cosine_decay`
        (from 1 to 0 over steps_per_cycle steps after the warm-up, then again).
      base_learning_rate: see `constant` and `linear_decay`.
      warmup_steps: steps.
      decay_factor: see `linear_decay` and `decay_every`.
      steps_per_decay: steps.
      steps_per_cycle: steps.
      step_offset: the step that counts as 0.
      min_learning_rate: the result is never below.

    Raises:
      UserError: for an unknown factor, or a factor without the number that it needs.
    """
    names = tuple(name.strip() for name in factors.split("*"))
    for name in names:
        if name not in FACTORS:
            raise UserError(
                f"create_learning_rate_scheduler.factors = {factors!r}: unknown factor {name!r}; "
                f"choose from {', '.join(FACTORS)}"
            )
    for argument, value, divided in (
        (
            "warmup_steps",
            warmup_steps,
            ("linear_warmup", "linear_decay", "rsqrt_decay", "rsqrt_normalized_decay"),
        ),
        ("steps_per_decay", steps_per_decay, ("decay_every",)),
        ("steps_per_cycle", steps_per_cycle, ("cosine_decay",)),
    ):
        found = [name for name in names if name in divided]
        if value < 1 and found:
            raise UserError(
                f"create_learning_rate_scheduler.{argument} = {value}: must be at least 1 with "
                f"{found[0]}"
            )
    return Schedule(
        factors=names,
        base_learning_rate=base_learning_rate,
        warmup_steps=warmup_steps,
        decay_factor=decay_factor,
        steps_per_decay=steps_per_decay,
        steps_per_cycle=steps_per_cycle,
        step_offset=step_offset,
        min_learning_rate=min_learning_rate,
    )
