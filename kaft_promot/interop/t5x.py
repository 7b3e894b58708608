"""T5X's checkpoints: the legacy layout (msgpack with zarr arrays beside it) and Orbax's (OCDBT).

Only parameters are read, not optimizer state. Layouts as google-research/t5x writes them:

* legacy, version 3: `checkpoint_N/checkpoint` is flax msgpack with `optimizer/target`; a leaf is an
  array or a TensorStore spec that points to the zarr folder `target.PATH.WITH.DOTS`;
* Orbax: `checkpoint_N/state` is an OCDBT store of zarr arrays under `target.PATH.WITH.DOTS`.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore
from flax import serialization

from kaft_promot.errors import UserError
from kaft_promot.interop.model import Model
from kaft_promot.models import unflatten

_SPEC_KEYS = {"driver", "kvstore", "metadata"}


def is_t5x(path: pathlib.Path) -> bool:
    """Whether a path looks like a T5X checkpoint, or a folder of them."""
    return (
        path.is_file()
        or (path / "checkpoint").is_file()
        or (path / "state" / "manifest.ocdbt").is_file()
        or _latest(path) is not None
    )


def read_t5x(path: pathlib.Path) -> Model:
    """Reads `checkpoint_N`, its msgpack file, or the newest checkpoint of a `MODEL_DIR`.

    Raises:
      UserError: if a file is damaged or an array is missing, naming it.
    """
    if path.is_file():
        return _read_legacy(path)
    if (path / "checkpoint").is_file():
        return _read_legacy(path / "checkpoint")
    if (path / "state" / "manifest.ocdbt").is_file():
        return _read_orbax(path)
    latest = _latest(path)
    if latest is None:
        raise UserError(f"{path}: no T5X checkpoint in it")
    return read_t5x(latest)


def vocab_size(path: pathlib.Path) -> int | None:
    """Rows of a checkpoint's embedding, without reading other arrays; None if it has none.

    Raises:
      UserError: if the checkpoint is damaged.
    """
    name = ("token_embedder", "embedding")
    if not path.is_file() and (path / "state" / "manifest.ocdbt").is_file():
        base = {"driver": "ocdbt", "base": _file_store(path / "state")}
        store = {**base, "path": f"target.{'.'.join(name)}/"}
        return int(_open(store, f"{path}: {'/'.join(name)}", lazy=True).shape[0])
    file = path if path.is_file() else path / "checkpoint"
    if not file.is_file():
        latest = _latest(path)
        return None if latest is None else vocab_size(latest)
    leaf = _read_tree(file)["optimizer"]["target"].get(name[0], {}).get(name[1])
    if isinstance(leaf, Mapping):
        return int(leaf["metadata"]["shape"][0]) if "metadata" in leaf else None
    return None if leaf is None else int(leaf.shape[0])


def _latest(path: pathlib.Path) -> pathlib.Path | None:
    found = [p for p in path.glob("checkpoint_*") if re.fullmatch(r"checkpoint_\d+", p.name)]
    return max(found, key=lambda p: int(p.name.rsplit("_", 1)[1]), default=None)


def _read_legacy(file: pathlib.Path) -> Model:
    tree = _read_tree(file)
    target, step = tree["optimizer"]["target"], tree["optimizer"]["state"]["step"]
    flat: dict[tuple[str, ...], Any] = {}
    _collect(target, (), flat)
    params = {"/".join(path): _array(leaf, path, file) for path, leaf in flat.items()}
    step = _array(step, ("step",), file, prefix="state")
    return Model(params=unflatten(params), config=None, step=int(step), origin=str(file))


def _read_tree(file: pathlib.Path) -> dict[str, Any]:
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
        _ = tree["optimizer"]["target"], tree["optimizer"]["state"]["step"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: no optimizer/target and optimizer/state/step in it") from error
    except Exception as error:  # msgpack raises many kinds for damaged bytes
        reason = str(error) or type(error).__name__
        raise UserError(f"{file}: not a T5X checkpoint: {reason}") from error
    return tree


def _collect(node: Any, keys: tuple[str, ...], flat: dict[tuple[str, ...], Any]) -> None:
    if isinstance(node, Mapping) and not _SPEC_KEYS & set(node):
        for key, child in node.items():
            _collect(child, (*keys, key), flat)
    else:
        flat[keys] = node


def _array(leaf: Any, keys: tuple[str, ...], file: pathlib.Path, prefix: str = "target") -> Any:
    if not isinstance(leaf, Mapping):
        return _as_float32(np.asarray(leaf))
    # The stored path may come from another file system ('gfile', 'gcs', with or without a trailing
    # slash, at the top level in old specs); the arrays lie beside the msgpack file.
    stored = leaf.get("path") or leaf.get("kvstore", {}).get("path", "")
    names = [f"{prefix}.{'.'.join(keys)}", str(stored).rstrip("/").rsplit("/", 1)[-1]]
    for name in names:
        folder = file.parent / name
        if name and (folder / ".zarray").is_file():
            return _open(_file_store(folder), str(folder))
    raise UserError(f"{file.parent / names[0]}: missing; the checkpoint names this array")


def _read_orbax(path: pathlib.Path) -> Model:
    state = path / "state"
    base = {"driver": "ocdbt", "base": _file_store(state)}
    try:
        keys = tensorstore.KvStore.open(base).result().list().result()
    except Exception as error:
        raise UserError(f"{state}: damaged: {_first_line(error)}") from error
    names = [key.decode().removesuffix("/.zarray") for key in keys if key.endswith(b"/.zarray")]
    params: dict[str, np.ndarray] = {}
    for name in names:
        if name.startswith("target."):
            array = _open({**base, "path": f"{name}/"}, f"{state}: {name}")
            params[name.removeprefix("target.").replace(".", "/")] = array
    if not params:
        raise UserError(f"{state}: no parameters (arrays named target.*) in it")
    step = None
    if "state.step" in names:
        step = int(_open({**base, "path": "state.step/"}, f"{state}: state.step"))
    return Model(params=unflatten(params), config=None, step=step, origin=str(path))


def _file_store(folder: pathlib.Path) -> dict[str, Any]:
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def _open(store: dict[str, Any], where: str, lazy: bool = False) -> Any:
    """The array of a store as numpy; with `lazy` TensorStore's own, not read yet."""
    try:
        # an absent chunk would be read as zeros
        spec = {"driver": "zarr", "kvstore": store, "fill_missing_data_reads": False}
        array = tensorstore.open(spec, read=True).result()
        return array if lazy else _as_float32(np.asarray(array.read().result()))
    except Exception as error:
        raise UserError(f"{where}: cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """TensorStore's message without its list of source lines."""
    return re.split(r"\s*\[(?:source|tensorstore_spec)", str(error).split("\n")[0])[0]


def _as_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:  # layout version 2 stores the bits of bfloat16 so
        array = (array.astype(np.uint32) << 16).view(np.float32)
    floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float32, copy=False) if floating else array
