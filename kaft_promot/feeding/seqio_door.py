"""The door to SeqIO, and so to TensorFlow: tasks and mixtures by name, and their tokens.

Everything behind this file (token stores, Grain, batches) runs without TensorFlow, so the rest of
the library imports this module only inside the functions that need it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: its start-up notices

import numpy as np
import seqio
import tensorflow as tf
from absl import logging

from kaft_promot.errors import UserError
from kaft_promot.feeding import materialize
from kaft_promot.feeding.dataset import DatasetConfig, check_lengths
from kaft_promot.feeding.features import FEATURES
from kaft_promot.feeding.fingerprint import task_fingerprint
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.prompts import check_room, prepend
from kaft_promot.feeding.seqio_vocabulary import TaskVocabulary
from kaft_promot.feeding.token_store import TokenStore, write_store
from kaft_promot.user_modules import import_user_module

TASKS_PACKAGE = "kaft_promot.tasks"
# Input never needs an accelerator; without this TensorFlow takes all of a GPU's memory.
tf.config.set_visible_devices([], "GPU")


def output_features(
    vocabulary: str | Path | None = None, add_eos: bool = True
) -> dict[str, seqio.Feature]:
    """Features `inputs` and `targets` for a task.

    Args:
        vocabulary: name or path as in `load_vocabulary`; None for the one that gin binds to
            `task_vocabulary.path` (default: mini's), looked up when it is first used.
        add_eos: whether `seqio.preprocessors.append_eos` ends inputs and targets.
    """
    found = TaskVocabulary(None if vocabulary is None else str(vocabulary))
    return {name: seqio.Feature(vocabulary=found, add_eos=add_eos) for name in FEATURES}


def get_mixture_or_task(name: str, module: str | None = None) -> seqio.Task | seqio.Mixture:
    """A registered task or mixture.

    Args:
        name: its SeqIO name.
        module: module to import first, also from the current folder. Then the files of
            `kaft_promot.tasks` are imported until one registers the name, those whose name begins
            like the task's first.

    Raises:
        UserError: the module does not import, or nothing has that name; near names are listed.
    """
    if module:
        import_user_module(module, "MIXTURE_OR_TASK_MODULE")
    failed = _import_tasks_until(name)
    if _registered(name):
        return seqio.get_mixture_or_task(name)
    known = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    raise UserError(
        f"no task or mixture is called {name!r} (MIXTURE_OR_TASK_NAME)"
        + (f"; near names: {', '.join(near)}" if near else "")
        + (f"; could not import {'; '.join(failed)}" if failed else "")
        + ("" if module else "; a module of your own is named by MIXTURE_OR_TASK_MODULE")
    )


def _registered(name: str) -> bool:
    return name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names()


def _import_tasks_until(name: str) -> list[str]:
    """Import task files until the name is registered; what could not be imported, and why."""
    failed: list[str] = []
    if _registered(name):
        return failed
    try:
        package = importlib.import_module(TASKS_PACKAGE)
    except ModuleNotFoundError:
        return failed
    files = [f.name for f in pkgutil.iter_modules(package.__path__)]
    files.sort(key=lambda file: (-len(os.path.commonprefix([file, name])), file))
    for file in files:
        try:
            importlib.import_module(f"{TASKS_PACKAGE}.{file}")
        except Exception as e:
            failed.append(f"{TASKS_PACKAGE}.{file} ({type(e).__name__}: {e})")
        if _registered(name):
            break
    return failed


def tasks_with_rates(provider: seqio.Task | seqio.Mixture) -> list[tuple[seqio.Task, float]]:
    """The tasks of a mixture with their rates; nested mixtures and rate functions resolved.

    Raises:
        UserError: a rate is negative or not a number, or none is positive.
    """
    if isinstance(provider, seqio.Task):
        return [(provider, 1.0)]
    try:
        provider._check_compatible_features()
    except ValueError as e:
        raise UserError(f"mixture {provider.name!r}: {materialize.first_line(e)}") from e
    try:
        rated = [(task, float(provider.get_rate(task))) for task in provider.tasks]
    except (ValueError, TypeError, AssertionError) as e:  # the last from rates by cached examples
        why = materialize.first_line(e)
        raise UserError(
            f"mixture {provider.name!r}: cannot tell its rates: {why} (a rate by number of "
            "examples needs an offline cache or a source with num_input_examples)"
        ) from e
    for task, rate in rated:
        if not 0 <= rate < float("inf"):
            raise UserError(f"mixture {provider.name!r} gives task {task.name!r} the rate {rate}")
    positive = [(task, rate) for task, rate in rated if rate > 0]
    if not positive:
        raise UserError(f"every rate of mixture {provider.name!r} is 0")
    return positive


def _tasks_with_split(cfg: DatasetConfig) -> list[tuple[seqio.Task, float]]:
    provider = get_mixture_or_task(cfg.mixture_or_task_name, cfg.module)
    rated = tasks_with_rates(provider)
    found = [(task, rate) for task, rate in rated if cfg.split in task.splits]
    if not found:
        splits = sorted({str(split) for task, _ in rated for split in task.splits})
        raise UserError(
            f"{provider.name!r} has no split {cfg.split!r} (DatasetConfig.split); it has: "
            f"{', '.join(splits)}"
        )
    for task, _ in rated:
        if cfg.split not in task.splits:
            logging.warning("task %s has no split %r: left out", task.name, cfg.split)
    return found


def token_sources(cfg: DatasetConfig) -> list[Source]:
    """Run the tasks of `cfg`, or open what `cfg.cache_dir` has of them.

    Raises:
        UserError: unknown name or split, missing lengths, a task without examples or without
            `inputs` and `targets`, unreadable files.
    """
    check_lengths(cfg)
    sources = []
    for task, rate in _tasks_with_split(cfg):
        store = _store(task, cfg)
        if not len(store):
            raise UserError(f"task {task.name!r} has no examples in split {cfg.split!r}")
        sources.append(Source(name=task.name, rate=rate, store=store))
    return sources


def _store(task: seqio.Task, cfg: DatasetConfig) -> TokenStore:
    if not cfg.cache_dir:
        return TokenStore.from_chunks(materialize.token_chunks(task, cfg), FEATURES)
    key = task_fingerprint(task, cfg)
    if key is None:
        return TokenStore.from_chunks(materialize.token_chunks(task, cfg), FEATURES)
    folder = Path(cfg.cache_dir).expanduser() / f"{seqio.utils.get_task_dir_from_name(task.name)}"
    folder = folder / f"{cfg.split}-{key}".replace("/", "_")
    if not (folder / "meta.json").exists():
        about = {"task": task.name, "split": cfg.split, "lengths": dict(cfg.task_feature_lengths)}
        write_store(materialize.token_chunks(task, cfg), FEATURES, folder, about)
    return TokenStore.open(folder)


def eval_examples(
    cfg: DatasetConfig, *, max_examples: int | None = None, raw: bool = False
) -> list[dict[str, Any]]:
    """See `kaft_promot.feeding.eval_examples`."""
    check_lengths(cfg)
    found: list[dict[str, Any]] = []
    for task, _ in _tasks_with_split(cfg):
        data = materialize.dataset(task, cfg)
        if max_examples is not None:
            data = data.take(max_examples)
        before = len(found)
        try:
            for example in data.as_numpy_iterator():
                plain = {"task": task.name, **{k: _plain(v) for k, v in example.items()}}
                found.append(plain | {"raw": example} if raw else plain)
        except tf.errors.OpError as e:
            raise UserError(
                f"task {task.name!r}, split {cfg.split!r}: {materialize.first_line(e)}"
            ) from e
        if len(found) == before:
            raise UserError(f"task {task.name!r} has no examples in split {cfg.split!r}")
        if cfg.prompts is not None:
            room, prompt_P = cfg.prompts.room(cfg.task_feature_lengths), cfg.prompts.of(task.name)
            lengths = np.array([len(example["inputs"]) for example in found[before:]])
            check_room(task.name, lengths, cfg.prompts, cfg.task_feature_lengths)
            for example in found[before:]:
                example["inputs"] = prepend(prompt_P, example["inputs"], room)
    return found


def _plain(value: Any) -> Any:
    """Text as str, lists of text as lists, token ids as arrays, other scalars as Python's."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(v) for v in value]
    if isinstance(value, tf.RaggedTensor | tf.compat.v1.ragged.RaggedTensorValue):
        return [_plain(v) for v in value.to_list()]
    if isinstance(value, np.generic):
        return value.item()
    return value
