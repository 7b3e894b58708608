"""Writing a checkpoint in another form."""

import os
import pathlib

from kaft_promot.errors import UserError
from kaft_promot.interop import native
from kaft_promot.interop.checkpoint import load_model
from kaft_promot.interop.huggingface import write_huggingface
from kaft_promot.interop.native import write_native
from kaft_promot.interop.prompts import PROMPTS, read_prompts, write_prompts
from kaft_promot.models import remove_prompts

FORMATS = ("native", "huggingface")


def export_model(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    form: str = "native",
    vocabulary: str | None = None,
) -> pathlib.Path:
    """Reads any checkpoint and writes it to `folder`.

    Soft prompts that it holds go into a file of their own beside it, as a run's do.

    Args:
      source: what `load_model` reads.
      folder: where to write; made if it does not exist.
      form: 'native' (`model.safetensors` with T5X's names) or 'huggingface'.
      vocabulary: SentencePiece model to put beside the parameters; by default the source's own.

    Returns:
      The path of the written tensors.

    Raises:
      UserError: if the source cannot be read, the form cannot hold it, or `folder` holds something
        that is not to be overwritten.
    """
    if form not in FORMATS:
        raise UserError(f"--format {form}: choose from {', '.join(FORMATS)}")
    if vocabulary is not None and not pathlib.Path(vocabulary).is_file():
        raise UserError(f"--vocabulary {vocabulary}: no such file")
    check_target(folder, form)
    model = load_model(source)
    assert model.config is not None  # load_model always finds one
    vocabulary = vocabulary or model.vocabulary
    config, params = remove_prompts(model.config, model.params)
    prompts = read_prompts(source) if model.config.prompt_rows else None
    if form == "huggingface":
        path = write_huggingface(folder, params, config, vocabulary)
    else:
        path = write_native(folder, params, config, vocabulary, model.step)
    if prompts is not None:
        write_prompts(pathlib.Path(folder) / PROMPTS, prompts)
    return path


def check_target(folder: str | os.PathLike, form: str) -> None:
    """Refuses a folder to write to that holds a run, or a model in another form.

    Raises:
      UserError: it does; writing would break what is there.
    """
    place = pathlib.Path(folder)
    other = native.CONFIG if form == "huggingface" else "config.json"
    for name, what in (("checkpoints", "a run"), (other, "a model in another form")):
        if (place / name).exists():
            raise UserError(
                f"--output={folder}: holds {what} ({name}), which this would break; name another "
                "folder"
            )
