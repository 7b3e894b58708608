"""Writing a checkpoint in another form."""

import os
import pathlib

from kaft_promot.errors import UserError
from kaft_promot.interop.checkpoint import load_model
from kaft_promot.interop.huggingface import write_huggingface
from kaft_promot.interop.native import write_native

FORMATS = ("native", "huggingface")


def export_model(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    form: str = "native",
    vocabulary: str | None = None,
) -> pathlib.Path:
    """Reads any checkpoint and writes it to `folder`.

    Args:
      source: what `load_model` reads.
      folder: where to write; made if it does not exist.
      form: 'native' (`model.safetensors` with T5X's names) or 'huggingface'.
      vocabulary: SentencePiece model to put beside the parameters; by default the source's own.

    Returns:
      The path of the written tensors.

    Raises:
      UserError: if the source cannot be read or the form cannot hold it.
    """
    if form not in FORMATS:
        raise UserError(f"--format {form}: choose from {', '.join(FORMATS)}")
    if vocabulary is not None and not pathlib.Path(vocabulary).is_file():
        raise UserError(f"--vocabulary {vocabulary}: no such file")
    model = load_model(source)
    assert model.config is not None  # load_model always finds one
    vocabulary = vocabulary or model.vocabulary
    if form == "huggingface":
        return write_huggingface(folder, model.params, model.config, vocabulary)
    return write_native(folder, model.params, model.config, vocabulary, model.step)
