"""A training step as a compiled program that callers can treat as a function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from kaft_promot.errors import UserError
from kaft_promot.models import Params
from kaft_promot.scale.memory import give_back_memory
from kaft_promot.training.state import TrainState, model_features

Metrics = dict[str, jax.Array]


class TrainStep:
    """`step(state, batch) -> (state, metrics)`, compiled once for each shape and sharding.

    It takes over the memory of the state's trainable part; the frozen parameters are left alone, so
    several states may share them. The new state lies on the devices as the old one did.

    Args:
      function: `(state without frozen, frozen, batch) -> (state without frozen, metrics)`.
      num_microbatches: what the batch's rows must be a multiple of.
    """

    def __init__(self, function: Callable[..., Any], num_microbatches: int):
        self._function = function
        self._num_microbatches = num_microbatches
        self._jitted: dict[Any, Any] = {}
        self._compiled: dict[Any, Any] = {}

    def __call__(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        """One update.

        Raises:
          UserError: if the batch lacks a feature or does not divide into microbatches.
        """
        batch = model_features(batch)
        live = dataclasses.replace(state, frozen={})
        new, metrics = self._program(live, state.frozen, batch)(live, state.frozen, batch)
        return dataclasses.replace(new, frozen=state.frozen), metrics

    def compile(self, state: TrainState, batch: Mapping[str, Any]) -> None:
        """Compiles ahead of the first call, for batches of the shapes and shardings of this one.

        Raises:
          UserError: as a call does.
        """
        live = dataclasses.replace(state, frozen={})
        self._program(live, state.frozen, model_features(batch))

    def _program(self, live: TrainState, frozen: Params, batch: Mapping[str, Any]) -> Any:
        key = self._key(live, frozen, batch)
        if key not in self._compiled:
            rows = batch["decoder_target_tokens"].shape[0]
            if rows % self._num_microbatches:
                raise UserError(
                    f"a batch of {rows} rows does not divide into num_microbatches = "
                    f"{self._num_microbatches}"
                )
            self._compiled[key] = self._jit(live).lower(live, frozen, batch).compile()
            give_back_memory()
        return self._compiled[key]

    def _jit(self, live: TrainState) -> Any:
        shardings = jax.tree.map(lambda x: x.sharding, live)
        key = (jax.tree.structure(shardings), *jax.tree.leaves(shardings))
        if key not in self._jitted:
            self._jitted[key] = jax.jit(
                self._function, donate_argnums=0, out_shardings=(shardings, None)
            )
        return self._jitted[key]

    def _key(self, live: TrainState, frozen: Params, batch: Mapping[str, Any]) -> Any:
        features = ((n, x.shape, x.dtype, getattr(x, "sharding", None)) for n, x in batch.items())
        state = (live, frozen)
        leaves = ((x.shape, x.sharding) for x in jax.tree.leaves(state))
        return (jax.tree.structure(state), *features, *leaves)
