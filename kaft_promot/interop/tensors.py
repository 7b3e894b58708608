"""Safetensors files: reading one or many, writing one whole or not at all."""

import json
import os
import pathlib
import tempfile
from collections.abc import Mapping

import ml_dtypes  # noqa: F401  safetensors returns bfloat16 tensors as its numpy type
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kaft_promot.errors import UserError


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a `.safetensors` file, or of all files that an index file names.

    Args:
      path: `*.safetensors`, or `*.safetensors.index.json` (Hugging Face's list of shards).

    Returns:
      Arrays by name; floating-point arrays as float32.

    Raises:
      UserError: if a file is missing or is not in the format.
    """
    if path.name.endswith(".index.json"):
        shards = sorted(set(read_json(path).get("weight_map", {}).values()))
        if not shards:
            raise UserError(f"{path}: no weight_map in it")
        tensors: dict[str, np.ndarray] = {}
        for shard in shards:
            tensors |= read_safetensors(path.parent / shard)
        return tensors
    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: _as_float32(file.get_tensor(name)) for name in file.keys()}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """The texts that a `.safetensors` file carries beside its tensors.

    Raises:
      UserError: as `read_safetensors`.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error


def write_safetensors(
    path: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors to `path`, which afterwards is the old file or the whole new one.

    Args:
      path: where to write.
      tensors: arrays by name.
      metadata: texts beside them; `format`, unless it says another, is 'np'.

    Raises:
      UserError: it cannot be written, as on a full disk; an old file is kept.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            whole = pathlib.Path(folder, path.name)
            save_file(arrays, str(whole), metadata={"format": "np", **(metadata or {})})
            os.chmod(whole, 0o666 & ~_umask())
            os.replace(whole, path)
    except (SafetensorError, OSError) as error:
        raise _cannot_write(path, error) from error


def read_json(path: pathlib.Path) -> dict:
    """A JSON file that holds an object.

    Raises:
      UserError: if it is missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def write_json(path: pathlib.Path, value: Mapping) -> None:
    """Writes a JSON object to `path`, which afterwards is the old file or the whole new one.

    Raises:
      UserError: as `write_safetensors`.
    """
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text, encoding="utf-8")
        os.replace(whole, path)
    except OSError as error:
        whole.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _cannot_write(path: pathlib.Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(
        f"{path}: cannot be written: {reason}; what was finished is kept, make room or mend the "
        "folder and run the same command again"
    )


def _as_float32(array: np.ndarray) -> np.ndarray:
    floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float32, copy=False) if floating else array


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
