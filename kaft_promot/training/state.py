"""What a run carries from step to step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kaft_promot.errors import UserError
from kaft_promot.models import Params, logical_axes
from kaft_promot.scale.mesh import like_params, param_shardings, replicated
from kaft_promot.training.optimizers import Optimizer
from kaft_promot.training.stages import Stage, merge, partition

FEATURES = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
OPTIONAL_FEATURES = ("decoder_loss_weights", "encoder_segment_ids", "decoder_segment_ids")


@functools.partial(jax.tree_util.register_dataclass)
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a run needs to go on, but for its place in the data.

    Attributes:
      step: int32 scalar, how many updates were made.
      trainable: nested dict of the parameters that this stage changes.
      frozen: nested dict of the others.
      opt_state: Optax's state, for the trainable parameters only.
      key: uint32 `[2]`; the dropout key of a step is `fold_in(key, step)`.
    """

    step: jax.Array
    trainable: Params
    frozen: Params
    opt_state: Any
    key: jax.Array

    @property
    def params(self) -> Params:
        """All parameters, as the model takes them."""
        return merge(self.trainable, self.frozen)


def init_state(
    params: Params, optimizer: Optimizer, stage: Stage, mesh: Mesh, random_seed: int = 0
) -> TrainState:
    """The state before the first step, sharded over `mesh`.

    The trainable parameters are copied, so that `params` may be used again although steps take
    over the state's memory.

    Raises:
      UserError: if `stage` does not fit the parameters.
    """
    if jax.process_count() > 1:  # arrays of this process's device cannot be spread over others'
        params = jax.tree.map(np.asarray, params)
    shardings = param_shardings(params, logical_axes(params), mesh)
    trainable, frozen = partition(params, stage)
    trainable_shardings, frozen_shardings = partition(shardings, stage)
    trainable = jax.jit(_copy, out_shardings=trainable_shardings)(trainable)
    frozen = jax.device_put(frozen, frozen_shardings)
    transform = optimizer.make(logical_axes(trainable))
    abstract = jax.eval_shape(transform.init, trainable)
    opt_shardings = like_params(abstract, trainable, trainable_shardings, mesh)
    whole = replicated(mesh)
    return TrainState(
        step=jax.device_put(jnp.int32(0), whole),
        trainable=trainable,
        frozen=frozen,
        opt_state=jax.jit(transform.init, out_shardings=opt_shardings)(trainable),
        key=jax.device_put(jax.random.PRNGKey(random_seed), whole),
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def model_features(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The features of `batch` that the step reads, in its dtypes: int32, weights float32.

    Raises:
      UserError: if one that it needs is missing.
    """
    missing = [name for name in FEATURES if name not in batch]
    if missing:
        raise UserError(f"the batch has no {', '.join(missing)}; it has {', '.join(sorted(batch))}")
    return {
        name: batch[name].astype(np.float32 if name == "decoder_loss_weights" else np.int32)
        for name in (*FEATURES, *OPTIONAL_FEATURES)
        if name in batch
    }
