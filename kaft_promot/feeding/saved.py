"""Tokens and batches in files, to train on a machine without TensorFlow.

`save_tokens` writes a mixture's token stores and rates into a folder; `save_batches` writes the
first batches themselves into one `.npz` file. `DatasetConfig.saved` names either.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grain
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.feeding.features import Batch
from kaft_promot.feeding.pipeline import Layout, Source
from kaft_promot.feeding.token_store import TokenStore

if TYPE_CHECKING:
    from kaft_promot.feeding.dataset import DatasetConfig

_MANIFEST = "mixture.json"


def save_tokens(cfg: DatasetConfig, folder: str | Path) -> None:
    """Run the task or mixture of `cfg` and keep its tokens.

    Raises:
        UserError: the folder already exists, or cannot be written.
    """
    from kaft_promot.feeding.dataset import open_sources

    if Path(folder).exists():
        raise UserError(f"{folder} already exists: delete it or name another folder")
    write_tokens(open_sources(cfg), cfg, folder)


def write_tokens(sources: Sequence[Source], cfg: DatasetConfig, folder: str | Path) -> None:
    """Keep sources as the tokens of `cfg`, the whole folder or nothing.

    Raises:
        UserError: the folder already exists, or cannot be written.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    manifest = {
        "mixture_or_task_name": cfg.mixture_or_task_name,
        "split": cfg.split,
        "task_feature_lengths": dict(cfg.task_feature_lengths),
        "tasks": [
            {"name": s.name, "rate": s.rate, "folder": f"{number:03d}"}
            for number, s in enumerate(sources)
        ],
    }
    try:
        for number, source in enumerate(sources):
            about = {"task": source.name, "split": cfg.split}
            source.store.save(temporary / f"{number:03d}", about)
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        temporary.rename(folder)
    except OSError as e:
        raise UserError(f"cannot write the tokens {folder}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_tokens(folder: str | Path, cfg: DatasetConfig) -> list[Source]:
    """Sources written by `save_tokens`.

    Raises:
        UserError: they are of another mixture, split or lengths than `cfg` asks for.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except FileNotFoundError as e:
        raise UserError(
            f"DatasetConfig.saved: {folder} holds no saved tokens ({_MANIFEST} is missing)"
        ) from e
    except (OSError, ValueError) as e:
        raise UserError(f"DatasetConfig.saved: cannot read {folder / _MANIFEST}: {e}") from e
    for field in ("mixture_or_task_name", "split", "task_feature_lengths"):
        asked = getattr(cfg, field)
        asked = dict(asked) if field == "task_feature_lengths" else asked
        if manifest[field] != asked:
            raise UserError(
                f"DatasetConfig.saved: {folder} has {field} {manifest[field]!r}, but "
                f"DatasetConfig.{field} is {asked!r}"
            )
    return [
        Source(name=t["name"], rate=t["rate"], store=TokenStore.open(folder / t["folder"]))
        for t in manifest["tasks"]
    ]


def save_batches(cfg: DatasetConfig, path: str | Path, count: int) -> None:
    """Write the first `count` global batches of `cfg` into one `.npz` file, [count, B, ...] each.

    Raises:
        UserError: there are fewer batches, or the file cannot be written.
    """
    from kaft_promot.feeding.dataset import train_iterator

    batches = train_iterator(cfg)
    taken = [batch for batch, _ in zip(batches, range(count), strict=False)]
    batches.close()
    if len(taken) < count:
        raise UserError(f"{cfg.mixture_or_task_name} gives {len(taken)} batches, not {count}")
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {k: np.stack([b[k] for b in taken]) for k in taken[0]}
    np.savez_compressed(buffer, **arrays)
    _write(Path(path), buffer.getvalue())


class StoredBatches:
    """Global batches in memory, [steps, B, ...] for each feature."""

    def __init__(self, arrays: dict[str, np.ndarray], digest: str):
        self.arrays, self.digest = arrays, digest

    def dataset(self, rows: slice, num_epochs: int | None, prefetch: int) -> Any:
        """The batches in order, again and again, cut to a process's rows."""
        steps = len(next(iter(self.arrays.values())))
        length = sys.maxsize if num_epochs is None else steps * num_epochs

        def take(step: int) -> Batch:
            return {k: v[step % steps, rows] for k, v in self.arrays.items()}

        threads = grain.ReadOptions(num_threads=min(1, prefetch), prefetch_buffer_size=prefetch)
        return grain.MapDataset.range(length).map(take).to_iter_dataset(threads)


def load_batches(path: str | Path, layout: Layout) -> StoredBatches:
    """Batches written by `save_batches`, or by anything that writes T5X's features to `.npz`.

    Raises:
        UserError: the file is missing or damaged, or its batches have another shape than asked.
    """
    try:
        content = Path(path).read_bytes()
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
    except Exception as e:  # zipfile, zlib and numpy each raise their own kind
        raise UserError(f"DatasetConfig.saved: cannot read the batches in {path}: {e}") from e
    lengths = layout.feature_lengths
    expected = {
        "encoder_input_tokens": lengths["inputs"],
        "decoder_input_tokens": lengths["targets"],
        "decoder_target_tokens": lengths["targets"],
        "decoder_loss_weights": lengths["targets"],
    }
    for name, length in expected.items():
        if name not in arrays:
            raise UserError(f"DatasetConfig.saved: {path} has no feature {name!r}")
        found = arrays[name].shape
        if len(found) != 3 or found[0] < 1 or found[1:] != (layout.batch_size, length):
            raise UserError(
                f"DatasetConfig.saved: {name} in {path} has shape {found}; batch size and "
                f"TASK_FEATURE_LENGTHS ask for (steps, {layout.batch_size}, {length})"
            )
    return StoredBatches(arrays, hashlib.sha256(content).hexdigest()[:16])


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.rename(path)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        temporary.unlink(missing_ok=True)
