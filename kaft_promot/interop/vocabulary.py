"""Which vocabulary a run uses: the one that was named, or its checkpoint's own."""

import os
import pathlib

import gin

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import load_vocabulary
from kaft_promot.interop import huggingface, native, t5x
from kaft_promot.interop.best import find_checkpoint
from kaft_promot.interop.fields import Fields
from kaft_promot.models import T5Config

MINI = pathlib.Path(__file__).resolve().parent.parent / "assets" / "mini"


def checkpoint_vocabulary(path: str | os.PathLike) -> str | None:
    """The vocabulary that a checkpoint says it was trained with, without reading its parameters.

    Returns:
      A path or name for `load_vocabulary`; None where the checkpoint does not say (T5X's never do).

    Raises:
      UserError: there is no such checkpoint.
    """
    folder = MINI if str(path) == "mini" else find_checkpoint(path)
    folder = folder.parent if folder.name.endswith(".safetensors") else folder
    if (folder / "config.json").is_file():
        return huggingface.vocabulary_in(folder)
    if (folder / native.CONFIG).is_file():
        return native.vocabulary_in(folder, Fields.read(folder / native.CONFIG))
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        return _run_vocabulary(folder.parent.parent, int(folder.name))
    if (folder / "checkpoints").is_dir():
        return _run_vocabulary(folder, None)
    return None


def _run_vocabulary(model_dir: pathlib.Path, step: int | None) -> str | None:
    """What a training checkpoint says; of the latest step for None."""
    from kaft_promot.training import Checkpoints  # which imports this room

    checkpoints = Checkpoints(model_dir, read_only=True)
    try:
        step = checkpoints.latest_step() if step is None else step
        return checkpoints.origin(step)["vocabulary"] if step in checkpoints.steps() else None
    finally:
        checkpoints.close()


def checkpoint_vocab_size(path: str | os.PathLike) -> int | None:
    """Rows of a checkpoint's embedding, without reading its parameters; None if not known."""
    folder = MINI if str(path) == "mini" else find_checkpoint(path)
    file = folder
    folder = folder.parent if folder.name.endswith(".safetensors") else folder
    for name in ("config.json", native.CONFIG):
        if (folder / name).is_file():
            return Fields.read(folder / name).take("vocab_size", "int", None)
    if folder.parent.name == "checkpoints" or not t5x.is_t5x(file):
        return None
    return t5x.vocab_size(file)


@gin.configurable
def run_vocabulary(
    checkpoint_path: str | os.PathLike | None = None,
    vocabulary: str | None = None,
    model_config: T5Config | None = None,
) -> str:
    """The vocabulary of a run, as a name or path for `load_vocabulary`.

    Args:
      checkpoint_path: where the parameters come from; None if they are random.
      vocabulary: what the user named; None takes the checkpoint's own.
      model_config: the network, if the user named it.

    Raises:
      UserError: if there is no such checkpoint, neither is known, the two have different ids, or
        the vocabulary has more ids than the network has embeddings.
    """
    own = None if checkpoint_path is None else checkpoint_vocabulary(checkpoint_path)
    origin = "a model from random parameters" if checkpoint_path is None else str(checkpoint_path)
    chosen = choose_vocabulary(own, vocabulary, origin)
    rows = model_config.vocab_size if model_config else None
    if rows is None and checkpoint_path is not None:
        rows = checkpoint_vocab_size(checkpoint_path)
    check_size(chosen, rows, origin)
    return chosen


def check_size(vocabulary: str, rows: int | None, origin: str) -> None:
    """Raises UserError if a vocabulary has more ids than a network, from `origin`, has embeddings.

    Fewer are fine: embeddings are padded to a round number. `rows` is None where it is not known.
    """
    size = load_vocabulary(vocabulary).vocab_size
    if rows is not None and size > rows:
        raise UserError(
            f"VOCABULARY={vocabulary} has {size} ids, but {origin} has only {rows} embeddings: "
            "name the vocabulary that it was trained with"
        )


def choose_vocabulary(own: str | None, given: str | None, origin: str) -> str:
    """The checkpoint's vocabulary `own` or the user's `given`; both must agree if both are known.

    Raises:
      UserError: if neither is known, or the two have different ids.
    """
    if own is None and given is None:
        raise UserError(
            f"the vocabulary of {origin} is not known: add --gin.VOCABULARY=... (a SentencePiece "
            "model file, or bytes)"
        )
    if own is None or given is None:
        return own or given or ""
    if load_vocabulary(own).digest != load_vocabulary(given).digest:
        raise UserError(
            f"VOCABULARY={given} has other ids than {own}, with which {origin} was trained: leave "
            "it out to take the checkpoint's own"
        )
    return own
