"""Writing a checkpoint in another form."""

import os
import pathlib

from kaft_promot.errors import UserError
from kaft_promot.interop import native
from kaft_promot.interop.best import folder_of
from kaft_promot.interop.checkpoint import load_model
from kaft_promot.interop.huggingface import write_huggingface
from kaft_promot.interop.lora import LORA_FILE, read_lora, write_lora
from kaft_promot.interop.native import write_native
from kaft_promot.interop.prompts import PROMPTS, read_prompts, write_prompts
from kaft_promot.interop.vocabulary import MINI
from kaft_promot.models import remove_prompts

FORMATS = ("native", "huggingface")


def export_model(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    form: str = "native",
    vocabulary: str | None = None,
) -> pathlib.Path:
    """Reads any checkpoint and writes it to `folder`.

    Soft prompts that it holds, or that lie beside it, go into a file of their own beside the model,
    as a run's do, and so do LoRA's additions that are not in it. Such files of an earlier model in
    `folder` are removed.

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
    beside = MINI if str(source) == "mini" else folder_of(source)
    # Read before anything is removed or written: `folder` may be where the source lies.
    prompts, lora = None, None
    if model.config.prompt_rows:
        prompts = read_prompts(source)
    elif (beside / PROMPTS).is_file():
        prompts = read_prompts(beside / PROMPTS)
    if (beside / LORA_FILE).is_file():
        lora = read_lora(beside / LORA_FILE)
    if form == "huggingface":
        path = write_huggingface(folder, params, config, vocabulary)
    else:
        path = write_native(folder, params, config, vocabulary, model.step)
    remove_additions(folder)
    if prompts is not None:
        write_prompts(pathlib.Path(folder) / PROMPTS, prompts)
    if lora is not None and not lora.merged:
        write_lora(pathlib.Path(folder) / LORA_FILE, lora)
    return path


def check_target(folder: str | os.PathLike, form: str) -> None:
    """Refuses a folder to write to that holds a run, a model in another form, or additions alone.

    Raises:
      UserError: it does; writing would break what is there.
    """
    place = pathlib.Path(folder)
    other = native.CONFIG if form == "huggingface" else "config.json"
    held = [("checkpoints", "a run"), (other, "a model in another form")]
    if not (place / native.TENSORS).exists():
        held += [(PROMPTS, "a prompt without a model"), (LORA_FILE, "additions without a model")]
    for name, what in held:
        if (place / name).exists():
            raise UserError(
                f"--output={folder}: holds {what} ({name}), which this would break; name another "
                "folder"
            )


def remove_additions(folder: str | os.PathLike) -> None:
    """Removes the prompts and LoRA additions of the model that a folder held before."""
    for name in (PROMPTS, LORA_FILE):
        (pathlib.Path(folder) / name).unlink(missing_ok=True)
