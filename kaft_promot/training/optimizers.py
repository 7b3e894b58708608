"""Optimizers as values: what to update parameters with, equal values share a compiled step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import gin
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from kaft_promot.errors import UserError
from kaft_promot.models import flatten, unflatten
from kaft_promot.training.schedules import Schedule


class Optimizer(Protocol):
    """A hashable description of an Optax transformation."""

    @property
    def learning_rate(self) -> float | Schedule:
        """The learning rate, a number or a schedule."""
        ...

    def __hash__(self) -> int: ...

    def make(self, axes: Mapping[str, Any]) -> optax.GradientTransformation:
        """The transformation for parameters whose logical axes are `axes` (a nested dict)."""
        ...


def learning_rate_at(optimizer: Optimizer, step: jax.Array) -> jax.Array:
    """The float32 learning rate that `optimizer` uses at `step`."""
    rate = optimizer.learning_rate
    return rate(step) if callable(rate) else jnp.float32(rate)


def check_clipping(name: str, threshold: float) -> None:
    """Raises UserError unless `threshold`, of the setting `name`, is above 0."""
    if not threshold > 0:
        raise UserError(f"{name} = {threshold}: must be above 0, or None for no clipping")


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor:
    """Adafactor with T5X's settings and argument names (Shazeer and Stern, arXiv 1804.04235).

    Second moments of matrices are kept as a row and a column; their decay at step t is
    1 - (t + 1)^-decay_rate. The update is clipped to root mean square `clipping_threshold`, then
    multiplied by the learning rate and (with multiply_by_parameter_scale) by the parameter's
    root mean square, at least epsilon2.

    Attributes:
      learning_rate: relative step size, a number or a schedule.
      factored: whether to factor the second moments of matrices.
      multiply_by_parameter_scale: whether steps are relative to the parameter's size.
      beta1: momentum (None: none, no memory).
      decay_rate: exponent of the second moments' decay, above 0.
      step_offset: taken from the step in that decay, at most 0. T5X sets it to the pre-training's
        last step, from which it counts on; a run here counts from its own start.
      clipping_threshold: largest root mean square of an update, above 0 (None: no clipping).
      weight_decay_rate: share of a parameter taken away a step (None: none).
      min_dim_size_to_factor: a matrix with a smaller side is not factored.
      epsilon1: added to squared gradients.
      epsilon2: smallest parameter scale.

    Raises:
      UserError: for a value that makes no sense.
    """

    learning_rate: float | Schedule = 1e-3
    factored: bool = True
    multiply_by_parameter_scale: bool = True
    beta1: float | None = None
    decay_rate: float = 0.8
    step_offset: int = 0
    clipping_threshold: float | None = 1.0
    weight_decay_rate: float | None = None
    min_dim_size_to_factor: int = 128
    epsilon1: float = 1e-30
    epsilon2: float = 1e-3

    def __post_init__(self) -> None:
        if not self.decay_rate > 0:
            raise UserError(f"Adafactor.decay_rate = {self.decay_rate}: must be above 0")
        if self.step_offset > 0:
            raise UserError(
                f"Adafactor.step_offset = {self.step_offset}: leave it out; unlike in T5X a run "
                "counts its steps from its own start, before which the decay is not defined"
            )
        if self.clipping_threshold is not None:
            check_clipping("Adafactor.clipping_threshold", self.clipping_threshold)

    def make(self, axes: Mapping[str, Any]) -> optax.GradientTransformation:
        """See `Optimizer.make`. Layers stacked along axis 0 are updated as if they were apart."""
        parts = [
            optax.scale_by_factored_rms(
                self.factored,
                self.decay_rate,
                self.step_offset,
                self.min_dim_size_to_factor,
                self.epsilon1,
            )
        ]
        if self.clipping_threshold is not None:
            parts.append(optax.clip_by_block_rms(self.clipping_threshold))
        parts.append(optax.scale_by_learning_rate(self.learning_rate, flip_sign=False))
        if self.multiply_by_parameter_scale:
            parts.append(optax.scale_by_param_block_rms(self.epsilon2))
        if self.beta1 is not None:
            parts.append(optax.ema(self.beta1, debias=False))
        if self.weight_decay_rate is not None:
            parts.append(optax.add_decayed_weights(self.weight_decay_rate))
        parts.append(optax.scale(-1.0))
        return _over_layers(optax.chain(*parts), axes)


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).

    Attributes:
      learning_rate: step size, a number or a schedule.
      b1: decay of the first moments.
      b2: decay of the second moments.
      eps: added to the root of the second moments.
      weight_decay: times the learning rate, the share of a parameter taken away a step; layer
        norms' scales do not decay.
      position_bias_factor: multiplies the learning rate of the relative-position biases. Adam
        moves every number by about the learning rate a step, and a head that attends to the token
        before needs a bias of several units: at a small rate that alone takes thousands of steps
        from random parameters. 1 is plain Adam.
    """

    learning_rate: float | Schedule = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    position_bias_factor: float = 1.0

    def make(self, axes: Mapping[str, Any]) -> optax.GradientTransformation:
        """See `Optimizer.make`."""
        decays = unflatten({path: not path.endswith("/scale") for path in flatten(axes)})
        adam = optax.adamw(
            self.learning_rate,
            self.b1,
            self.b2,
            self.eps,
            weight_decay=self.weight_decay,
            mask=decays,
        )
        return _quick_position_biases(adam, axes, self.position_bias_factor)


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon for the layers' matrices, Adam for everything else (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon).

    A matrix moves along its momentum made orthogonal by Newton-Schulz steps, so that all of its
    directions move alike; Optax's `contrib.muon` does it. Embedding, output matrix, position
    biases, soft prompts and norms take Adam's steps with Nesterov momentum. Matrices' steps are
    scaled to the size of Adam's (Liu et al., arXiv 2502.16982, section 2.2), so that one learning
    rate serves both.

    Attributes:
      learning_rate: step size, a number or a schedule.
      beta: decay of the matrices' momentum.
      b1: decay of Adam's first moments.
      b2: decay of Adam's second moments.
      rms: root mean square of a matrix's step, before the learning rate.
      ns_steps: Newton-Schulz steps.
      weight_decay: times the learning rate, the share of a matrix taken away a step.
      position_bias_factor: see `AdamW`.
    """

    learning_rate: float | Schedule = 1e-3
    beta: float = 0.95
    b1: float = 0.9
    b2: float = 0.98
    rms: float = 0.2
    ns_steps: int = 5
    weight_decay: float = 0.0
    position_bias_factor: float = 1.0

    def make(self, axes: Mapping[str, Any]) -> optax.GradientTransformation:
        """See `Optimizer.make`."""
        dimensions = unflatten({path: _matrix(path, a) for path, a in flatten(axes).items()})
        muon = optax.contrib.muon(
            self.learning_rate,
            ns_steps=self.ns_steps,
            beta=self.beta,
            weight_decay=self.weight_decay,
            adam_b1=self.b1,
            adam_b2=self.b2,
            adam_learning_rate=self.learning_rate,
            muon_weight_dimension_numbers=dimensions,
            consistent_rms=self.rms,
        )
        return _quick_position_biases(muon, axes, self.position_bias_factor)


def _matrix(path: str, axes: tuple[str, ...]) -> optax.contrib.MuonDimensionNumbers | None:
    """Which axes of a parameter Muon takes as a matrix's; None leaves it to Adam."""
    stacked = axes[0] == "layers"
    if "/layers" not in path or not path.endswith("/kernel") or len(axes) != 2 + stacked:
        return None
    return optax.contrib.MuonDimensionNumbers(
        reduction_axis=len(axes) - 2, output_axis=len(axes) - 1
    )


def _quick_position_biases(
    transform: optax.GradientTransformation, axes: Mapping[str, Any], factor: float
) -> optax.GradientTransformation:
    """Multiplies the steps of relative-position biases by `factor`."""
    if factor == 1.0:
        return transform
    biases = unflatten({path: path.endswith("/rel_embedding") for path in flatten(axes)})
    return optax.chain(transform, optax.masked(optax.scale(factor), biases))


def _over_layers(
    transform: optax.GradientTransformation, axes: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Applies `transform` to each layer of stacked parameters, so that scanning changes nothing."""
    labels = unflatten(
        {path: "stacked" if a[0] == "layers" else "plain" for path, a in flatten(axes).items()}
    )
    if "stacked" not in jax.tree.leaves(labels):
        return transform
    stacked = optax.GradientTransformation(jax.vmap(transform.init), jax.vmap(transform.update))
    return optax.partition({"plain": transform, "stacked": stacked}, labels)
