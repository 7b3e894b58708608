"""Soft prompts in files of their own: kilobytes that attach to any model of the same width.

`prompt.safetensors` holds a tensor `[P, D]` for each prompt under its name (the task that it was
tuned for), and says in its metadata which base checkpoint and vocabulary they belong to. Prompts
are also read from a training run, a T5X checkpoint that has one, and the `.npy` files that
google-research/prompt-tuning publishes.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import load_vocabulary
from kaft_promot.interop.best import resolve_best
from kaft_promot.interop.tensors import read_metadata, read_safetensors, write_safetensors
from kaft_promot.models import Params, T5Config, attach_prompts, prompts_of

PROMPTS = "prompt.safetensors"
_KIND = "kaft-promot soft prompt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Named soft prompts of one length, with what is known about them.

    Attributes:
      rows: float32 `[P, D]` by name, in the order of their numbers in the model's table.
      base_checkpoint: the frozen model that they were tuned on; None where it is not known.
      vocab_size: rows of its token embedding; None where it is not known.
      vocabulary_digest: of its vocabulary (`Vocabulary.digest`); None where it is not known.
      origin: the path that they were read from.
    """

    rows: Mapping[str, np.ndarray]
    base_checkpoint: str | None = None
    vocab_size: int | None = None
    vocabulary_digest: str | None = None
    origin: str = "prompt"

    def __post_init__(self) -> None:
        shapes = {name: np.shape(rows) for name, rows in self.rows.items()}
        if not shapes:
            raise UserError(f"{self.origin}: no soft prompt in it")
        for name, shape in shapes.items():
            if len(shape) != 2 or 0 in shape:
                raise UserError(f"{self.origin}: prompt {name!r} has shape {shape}, not [P, D]")
        if len(set(shapes.values())) > 1:
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise UserError(
                f"{self.origin}: prompts of different shapes cannot share a model: {found}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The prompts' names in the order of their numbers."""
        return tuple(self.rows)

    @property
    def length(self) -> int:
        """P, the rows of each prompt."""
        return next(iter(self.rows.values())).shape[0]

    @property
    def table(self) -> np.ndarray:
        """Float32 `[K, P, D]`."""
        return np.stack([np.asarray(rows, np.float32) for rows in self.rows.values()])

    def only(self, name: str) -> "Prompts":
        """The prompt of that name alone.

        Raises:
          UserError: if there is none.
        """
        if name not in self.rows:
            raise UserError(
                f"{self.origin}: no prompt is called {name!r}; it has {', '.join(self.names)}"
            )
        return dataclasses.replace(self, rows={name: self.rows[name]})

    def replaced(self, config: T5Config, params: Mapping[str, Any]) -> "Prompts":
        """The same prompts with the rows that they have in a network's table now."""
        table = prompts_of(config, params)
        assert table is not None and len(table) == len(self.rows)
        return dataclasses.replace(self, rows=dict(zip(self.rows, table, strict=True)))

    @property
    def digest(self) -> str:
        """Of names and rows: equal digests, equal prompts."""
        digest = hashlib.sha256(json.dumps(self.names).encode())
        digest.update(np.ascontiguousarray(self.table).tobytes())
        return digest.hexdigest()[:16]


def prompts_in(
    config: T5Config,
    params: Mapping[str, Any],
    names: tuple[str, ...],
    *,
    vocabulary: str | None = None,
    base_checkpoint: str | None = None,
    origin: str = "parameters",
) -> Prompts:
    """The prompts of a network as they stand in its table, under the given names.

    Raises:
      UserError: if the network has no prompts, or another number of them.
    """
    table = prompts_of(config, params)
    if table is None:
        raise UserError(f"{origin}: no soft prompt in it")
    if len(names) != len(table):
        raise UserError(f"{origin}: {len(table)} soft prompts but {len(names)} names for them")
    return Prompts(
        rows=dict(zip(names, table, strict=True)),
        base_checkpoint=base_checkpoint,
        vocab_size=config.vocab_size,
        vocabulary_digest=None if vocabulary is None else load_vocabulary(vocabulary).digest,
        origin=origin,
    )


def write_prompts(path: str | os.PathLike, prompts: Prompts) -> pathlib.Path:
    """Writes a prompt file whole or not at all, and returns its path."""
    path = pathlib.Path(path)
    metadata = {
        "kind": _KIND,
        "tasks": json.dumps(prompts.names),
        "length": str(prompts.length),
        "width": str(prompts.table.shape[-1]),
        "base_checkpoint": prompts.base_checkpoint,
        "vocab_size": None if prompts.vocab_size is None else str(prompts.vocab_size),
        "vocabulary_digest": prompts.vocabulary_digest,
    }
    known = {name: value for name, value in metadata.items() if value is not None}
    rows = {name: np.asarray(value, np.float32) for name, value in prompts.rows.items()}
    write_safetensors(path, rows, known)
    return path


def read_prompts(path: str | os.PathLike) -> Prompts:
    """Reads soft prompts.

    Args:
      path: a prompt file; a run's MODEL_DIR, one of its `checkpoints/STEP` or `checkpoints/best`;
        a `.npy` array `[P, D]`; or any checkpoint that has a prompt among its parameters.

    Raises:
      UserError: if there is no prompt, or the file is damaged.
    """
    path = resolve_best(path)
    if not path.exists():
        raise UserError(f"{path}: no such prompt (a prompt file, .npy, or a run's folder)")
    if path.suffix == ".npy":
        return _read_npy(path)
    if path.suffix == ".safetensors" and read_metadata(path).get("kind") == _KIND:
        return _read_file(path)
    if (path / PROMPTS).is_file():
        return _read_file(path / PROMPTS)
    from kaft_promot.interop.checkpoint import infer_config, read  # which imports this room

    model = read(path)
    config = model.config or infer_config(model.params, model.origin)
    return prompts_in(
        config,
        model.params,
        _names_in_run(path) or tuple(f"prompt_{i}" for i in range(config.num_prompts)),
        vocabulary=model.vocabulary,
        origin=str(path),
    )


def join_prompts(paths: Mapping[str, str | os.PathLike]) -> Prompts:
    """Prompts from several files, one a name: `{'rte': 'runs/a', 'wic': 'runs/b'}`.

    Raises:
      UserError: if a file holds several prompts and none of that name, if their shapes differ, or
        if they belong to different vocabularies.
    """
    found: dict[str, Prompts] = {}
    for name, path in paths.items():
        prompts = read_prompts(path)
        found[name] = prompts if len(prompts.names) == 1 else prompts.only(name)
    if not found:
        raise UserError("PROMPT_PATH: no prompts in it")
    for field in ("vocab_size", "vocabulary_digest"):
        values = {getattr(p, field): p.origin for p in found.values() if getattr(p, field)}
        if len(values) > 1:
            raise UserError(
                f"{' and '.join(values.values())}: prompts of different vocabularies ({field})"
            )
    first = next(iter(found.values()))
    return dataclasses.replace(
        first,
        rows={name: next(iter(p.rows.values())) for name, p in found.items()},
        origin=", ".join(p.origin for p in found.values()),
    )


def attach(
    prompts: Prompts, config: T5Config, params: Mapping[str, Any], vocabulary: str | None
) -> tuple[T5Config, Params]:
    """The network with `prompts` in its table.

    Args:
      prompts: what to attach.
      config: the network.
      params: its parameters.
      vocabulary: name or path of its vocabulary; None if it is not known, when only the number of
        its embeddings is compared.

    Raises:
      UserError: if the prompts are for another width or another vocabulary.
    """
    width = prompts.table.shape[-1]
    if width != config.emb_dim:
        raise UserError(
            f"{prompts.origin}: this prompt is {width} wide, but the model's emb_dim is "
            f"{config.emb_dim}: it works on models of width {width} only"
        )
    digest = None if vocabulary is None else load_vocabulary(vocabulary).digest
    if digest and prompts.vocabulary_digest and digest != prompts.vocabulary_digest:
        raise UserError(
            f"{prompts.origin}: this prompt was tuned with another vocabulary than {vocabulary} "
            f"(base checkpoint {prompts.base_checkpoint}); attach it to a model with its own"
        )
    if not (digest and prompts.vocabulary_digest) and prompts.vocab_size is not None:
        if prompts.vocab_size != config.vocab_size:
            raise UserError(
                f"{prompts.origin}: this prompt was tuned on a model of {prompts.vocab_size} "
                f"embeddings; this one has {config.vocab_size}, so another vocabulary"
            )
    return attach_prompts(config, params, prompts.table)


def _read_file(path: pathlib.Path) -> Prompts:
    metadata = read_metadata(path)
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path}: not a prompt file; a run with a soft prompt writes {PROMPTS}")
    tensors = read_safetensors(path)
    try:
        names = json.loads(metadata["tasks"])
        rows = {name: tensors[name] for name in names}
        vocab_size = metadata.get("vocab_size")
        return Prompts(
            rows=rows,
            base_checkpoint=metadata.get("base_checkpoint"),
            vocab_size=None if vocab_size is None else int(vocab_size),
            vocabulary_digest=metadata.get("vocabulary_digest"),
            origin=str(path),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: its metadata and tensors do not agree: {error}") from error


def _read_npy(path: pathlib.Path) -> Prompts:
    """google-research/prompt-tuning's saved prompt: one float array `[P, D]`."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a whole .npy file: {error}") from error
    if rows.dtype.kind != "f":
        raise UserError(f"{path}: holds {rows.dtype} values, not a soft prompt's floats")
    return Prompts(rows={path.stem: rows.astype(np.float32)}, origin=str(path))


def _names_in_run(path: pathlib.Path) -> tuple[str, ...] | None:
    """The names that a run gave its prompts; None if the path is no run's."""
    from kaft_promot.training import Checkpoints  # which imports this room

    step = int(path.name) if re.fullmatch(r"\d+", path.name) else None
    folder = path if step is None else path.parent.parent
    if not (folder / "checkpoints").is_dir():
        return None
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step = checkpoints.latest_step() if step is None else step
        names = checkpoints.origin(step)["prompts"]["names"] if step is not None else None
        return None if names is None else tuple(names)
    except KeyError:
        return None
    finally:
        checkpoints.close()
