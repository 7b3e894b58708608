"""Where a run's parameters start."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import (
    Params,
    T5Config,
    abstract_params,
    flatten,
    init_params,
    params_digest,
    remove_prompts,
    stack_layers,
    unflatten,
)
from kaft_promot.models.lora import merge_lora
from kaft_promot.models.prompts import PROMPT, uniform_rows
from kaft_promot.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from kaft_promot.interop import LoraWeights, Prompts

# What may differ between a checkpoint and the run that continues it.
_RUN_FIELDS = ("dropout_rate", "dtype", "remat")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """The parameters that a run starts from, and where they came from.

    Attributes:
      config: the network.
      params: nested dict, as `config` wants it.
      vocabulary: path or name, None if the checkpoint does not say.
      path: the checkpoint's path, None if they are random or were given in memory.
      location: where that is, absolute and with `best` as its step; None without a path and for
        'mini'.
      digest: of the checkpoint's parameters (`models.params_digest`), None without a path.
      random_seed: that random parameters were made from.
      in_memory: whether they were given in memory.
      prompts: the soft prompts that were attached, None if none were.
      lora: the low-rank additions that were attached, None if none were.
    """

    config: T5Config
    params: Params
    vocabulary: str | None
    path: str | None
    random_seed: int
    in_memory: bool = False
    location: str | None = None
    digest: str | None = None
    prompts: Prompts | None = None
    lora: LoraWeights | None = None

    def origin(self) -> dict[str, Any]:
        """JSON values from which the frozen parameters can be found again."""
        origin = {
            "model_config": dataclasses.asdict(self.config),
            "initial_checkpoint_path": self.path,
            "initial_checkpoint_digest": self.digest,
            # For who reads the run from another folder.
            "initial_checkpoint_location": self.location,
            "random_seed": self.random_seed,
            "in_memory": self.in_memory,
        }
        if self.prompts is not None:
            origin["prompts"] = {"names": list(self.prompts.names), "start": self.prompts.digest}
        if self.lora is not None:
            origin["lora"] = {"base": self.lora.base_checkpoint, "start": self.lora.digest}
        return origin

    def check_same(self, origin: dict[str, Any], model_dir: pathlib.Path, frozen: bool) -> None:
        """Raises UserError unless a checkpoint with that `origin` may be continued from here.

        With `frozen` parameters, which it does not hold, they must still be what they were.
        """
        mine = self.origin()
        for name in ("initial_checkpoint_path", "random_seed"):
            if origin.get(name) != mine[name]:
                raise UserError(
                    f"{model_dir} was started with {name} = {origin.get(name)!r}, not "
                    f"{mine[name]!r}; use the same one, or another model_dir"
                )
        if frozen:
            _check_unchanged(origin, self.digest, model_dir)
        for name, words in (("prompts", "soft prompts"), ("lora", "LoRA additions")):
            if origin.get(name) != mine.get(name):
                raise UserError(
                    f"{model_dir} was started with other {words}; use the same ones, or another "
                    "model_dir"
                )
        for name, value in mine["model_config"].items():
            before = origin["model_config"].get(name)
            before = tuple(before) if isinstance(before, list) else before
            if name not in _RUN_FIELDS and before != value:
                raise UserError(
                    f"{model_dir} was started with T5Config.{name} = {before!r}, not {value!r}; "
                    "use the same one, or another model_dir"
                )


def load_start(
    config: T5Config | None,
    path: str | None,
    params: Params | None,
    random_seed: int,
    dropout_rate: float | None = None,
) -> Start:
    """Loads or makes the parameters that a run starts from.

    Soft prompts that the configuration has and the checkpoint has not are made from the seed.

    Raises:
      UserError: if nothing says what the network is, or the parameters do not fit it.
    """
    if path is not None and params is not None:
        raise UserError("train: give initial_checkpoint_path or initial_params, not both")
    vocabulary, location, digest = None, None, None
    in_memory = params is not None
    if path is not None:
        location = _location(str(path))
        config, params, vocabulary, digest = _read(str(path), config)
    if config is None:
        raise UserError(
            "train.model_config: say which network to train (T5Config), or give an "
            "initial_checkpoint_path that says it"
        )
    if dropout_rate is not None:
        config = dataclasses.replace(config, dropout_rate=dropout_rate)
    if params is not None:
        params = _complete(params, config, random_seed, str(path or "initial_params"))
    else:
        params = init_params(config, jax.random.key(random_seed))
    return Start(
        config=config,
        params=params,
        vocabulary=vocabulary,
        path=None if path is None else str(path),
        random_seed=random_seed,
        in_memory=in_memory,
        location=location,
        digest=digest,
    )


def load_run(model_dir: str | pathlib.Path, step: int | str = "latest") -> tuple[T5Config, Params]:
    """The configuration and all parameters of a run's checkpoint.

    Low-rank additions that the run tuned are merged; those that it left frozen are left out, as
    they are at inference on other tasks.

    Args:
      model_dir: the run's directory.
      step: a step that has a checkpoint, or 'latest'.

    Raises:
      UserError: if there is none, or the parameters that the run left frozen are gone.
    """
    checkpoints = Checkpoints(model_dir, read_only=True)
    try:
        steps = checkpoints.steps()
        if step == "latest" and steps:
            step = steps[-1]
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(f"{model_dir}: no checkpoint of step {step}; it has {known}")
        origin = checkpoints.origin(int(step))
        trainable = checkpoints.trainable(int(step))
    finally:
        checkpoints.close()
    config = T5Config(**origin["model_config"])
    flat = flatten(trainable)
    if config.prompt_rows and PROMPT not in flat:
        flat[PROMPT] = _frozen_prompts(pathlib.Path(model_dir), config)
    if flat.keys() != flatten(abstract_params(config)).keys():
        if origin["in_memory"]:
            raise UserError(
                f"{model_dir}: its frozen parameters were given in memory and are not on disk"
            )
        base = load_start(config, _base_path(origin), None, origin["random_seed"])
        _check_unchanged(origin, base.digest, model_dir)
        flat = {**flatten(base.params), **flat}
    return config, merge_lora(flat)


def _location(path: str) -> str | None:
    from kaft_promot.interop.best import find_checkpoint

    return None if path == "mini" else os.path.abspath(find_checkpoint(path))


def _base_path(origin: dict[str, Any]) -> str | None:
    """The checkpoint that the run started from; by its path if it is not where it was."""
    location = origin.get("initial_checkpoint_location")
    return location if location and os.path.exists(location) else origin["initial_checkpoint_path"]


def _check_unchanged(
    origin: dict[str, Any], digest: str | None, model_dir: str | pathlib.Path
) -> None:
    """Refuses another base than the one that the run's checkpoints belong to."""
    before = origin.get("initial_checkpoint_digest")
    if before is not None and before != digest:
        raise UserError(
            f"{model_dir}: its checkpoints lack the frozen parameters, which are those of "
            f"{origin['initial_checkpoint_path']}; that checkpoint has changed since (a run that "
            "was gone on with, perhaps): bring it back, or name the run's exported files"
        )


def _frozen_prompts(model_dir: pathlib.Path, config: T5Config) -> Any:
    """The table `[K * P, D]` of prompts that a run did not train, which it keeps in its folder."""
    from kaft_promot import interop

    prompts = interop.read_prompts(model_dir / interop.PROMPTS)
    return prompts.table.reshape(config.prompt_rows, config.emb_dim)


def _read(path: str, config: T5Config | None) -> tuple[T5Config, Params, str | None, str]:
    """Configuration, parameters, vocabulary and parameters' digest of a checkpoint.

    Soft prompts that it holds are left out unless `config` has them: the run attaches its own.
    """
    from kaft_promot import interop

    model = interop.load_model(path, config and dataclasses.replace(config, scan_layers=False))
    assert model.config is not None  # load_model always finds one
    digest = params_digest(model.params)
    if config is None:
        bare, params = remove_prompts(model.config, model.params)
        return bare, params, model.vocabulary, digest
    return config, model.params, model.vocabulary, digest


def _complete(params: Params, config: T5Config, random_seed: int, origin: str) -> Params:
    """Stacks layers if `config` does, adds missing prompts, and checks shapes."""
    expected = flatten(abstract_params(config))
    if config.scan_layers and "encoder/layers/mlp/wo/kernel" not in flatten(params):
        params = stack_layers(params)
    flat = flatten(params)
    missing = [name for name in expected if name not in flat]
    if missing == [PROMPT]:
        rng = np.random.default_rng(random_seed)
        flat = {**flat, PROMPT: uniform_rows(config.prompt_rows, config.emb_dim, rng)}
    for name in sorted(expected.keys() | flat.keys()):
        shapes = [tuple(x[name].shape) if name in x else "absent" for x in (flat, expected)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{origin}: parameter {name} is {shapes[0]}, the model wants {shapes[1]}"
            )
    return unflatten(flat)
