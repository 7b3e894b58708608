"""Predictions of a checkpoint: for the lines of a file, or the examples of a SeqIO task.

Predictions are sample rows (see `kaft_promot.evaluation.rows`), appended as they come; the same
command again continues where it was stopped.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import gin
from tqdm import tqdm

from kaft_promot.decoding import Predictor
from kaft_promot.errors import UserError
from kaft_promot.evaluation.rows import Row, RowWriter
from kaft_promot.feeding import DatasetConfig, eval_examples, load_vocabulary
from kaft_promot.interop import choose_vocabulary, load_model, read_lora
from kaft_promot.interop import lora as additions
from kaft_promot.interop import prompts as soft_prompts
from kaft_promot.interop.vocabulary import check_size
from kaft_promot.knowledge import files
from kaft_promot.knowledge.targets import format_input
from kaft_promot.models import Params, T5Config, params_digest, remove_prompts
from kaft_promot.models.lora import merge_lora

PREDICTIONS = "predictions.jsonl"
# Prompts a call of the predictor gets: many batches, so that sorting by length pays, and few
# enough that a stopped run loses little.
_CHUNK = 512
_PROMPT_FIELDS = ("prompt", "inputs", "inputs_pretokenized", "input")


def load_predictor(
    checkpoint_path: str | os.PathLike[str],
    model_config: T5Config | None = None,
    vocabulary: str | None = None,
    prompt_path: str | os.PathLike[str] | None = None,
    prompt_name: str | None = None,
    lora_path: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Predictor:
    """A predictor for any checkpoint, with a soft prompt and LoRA attached or with none.

    Args:
      checkpoint_path: what `kaft_promot.interop.load_model` reads.
      model_config: None takes the checkpoint's own.
      vocabulary: name or path as in `load_vocabulary`; None takes the checkpoint's own.
      prompt_path: a soft prompt to put in front of every input (what `interop.read_prompts` reads);
        None removes any that the checkpoint has.
      prompt_name: which of several prompts in `prompt_path`; None where it holds one.
      lora_path: low-rank additions to add to the kernels (what `interop.read_lora` reads); None for
        the checkpoint as it is.
      **settings: of the `Predictor`; those not given are gin's (`Predictor.num_beams`, ...).

    Raises:
      UserError: for a checkpoint that cannot be read or whose vocabulary is not known or another,
        and for a prompt or additions that do not fit it.
    """
    if prompt_path is None and prompt_name is not None:
        raise UserError(f"PROMPT_NAME={prompt_name} names a prompt of a file: add PROMPT_PATH")
    model = load_model(checkpoint_path, model_config)
    assert model.config is not None  # load_model always finds one
    chosen = choose_vocabulary(model.vocabulary, vocabulary, str(checkpoint_path))
    check_size(chosen, model.config.vocab_size, str(checkpoint_path))
    params = model.params
    if lora_path is not None:
        lora = read_lora(lora_path)
        additions.check_not_merged(lora, checkpoint_path)
        params = merge_lora(additions.attach_lora(lora, params))
    if prompt_path is None:
        config, params = remove_prompts(model.config, params)
    else:
        prompts = soft_prompts.read_prompts(prompt_path)
        if prompt_name is not None:
            prompts = prompts.only(prompt_name)
        if len(prompts.names) > 1:
            raise UserError(
                f"{prompts.origin} holds several prompts: choose one by --gin.PROMPT_NAME=..., of "
                f"{', '.join(prompts.names)}"
            )
        config, params = soft_prompts.attach(prompts, model.config, params, chosen)
        settings["prefix"] = config.placeholder_ids()
    return Predictor(config, params, load_vocabulary(chosen), **settings)


def checkpoint_name(path: str | os.PathLike[str], params: Params) -> str:
    """A checkpoint's name in rows: its path and a digest, so that a retrained one is another."""
    return f"{path}@{params_digest(params)}"


@gin.configurable
def infer(
    *,
    checkpoint_path: str,
    output_dir: str,
    input_file: str | None = None,
    dataset: DatasetConfig | None = None,
    model_config: T5Config | None = None,
    vocabulary: str | None = None,
    prompt_path: str | None = None,
    prompt_name: str | None = None,
    lora_path: str | None = None,
) -> pathlib.Path:
    """Writes `output_dir/predictions.jsonl`, one row a prompt, in the order of the prompts.

    Args:
      checkpoint_path: any checkpoint.
      output_dir: made if it does not exist.
      input_file: text, one prompt a line; or `.jsonl` objects with `prompt` (or `inputs`), or with
        `question` and maybe `context`; all fields are kept in the rows under `inputs`.
      dataset: a SeqIO task or mixture instead of a file.
      model_config: None takes the checkpoint's own.
      vocabulary: None takes the checkpoint's own.
      prompt_path, prompt_name, lora_path: what to attach, see `load_predictor`.

    Returns:
      The path of the predictions.

    Raises:
      UserError: for inputs, checkpoints and vocabularies that cannot be used, and for an output
        folder that holds predictions of something else.
    """
    tokens: dict[str, list[int]] = {}
    with_task = dataset is not None and bool(dataset.mixture_or_task_name)
    if with_task == (input_file is not None):
        raise UserError("infer needs one of --gin.INPUT_FILE and --gin.MIXTURE_OR_TASK_NAME")
    if input_file is not None:
        examples = list(read_prompts(input_file))
    else:
        assert dataset is not None
        examples, tokens = _task_prompts(dataset)
    if not examples:
        named = input_file or (dataset and dataset.mixture_or_task_name)
        raise UserError(f"{named}: no prompts in it")
    predictor = load_predictor(
        checkpoint_path, model_config, vocabulary, prompt_path, prompt_name, lora_path
    )
    checkpoint = checkpoint_name(checkpoint_path, predictor.params)
    path = pathlib.Path(output_dir) / PREDICTIONS
    with RowWriter(path) as writer:
        missing = _missing(examples, checkpoint, predictor.decoding, writer)
        bar = tqdm(total=len(examples), initial=len(examples) - len(missing), unit="prompt")
        with bar:
            for start in range(0, len(missing), _CHUNK):
                rows = missing[start : start + _CHUNK]
                prompts = [tokens.get(row["example_id"]) or row["prompt"] for row in rows]
                outputs = predictor.generate(prompts, ids=[row["example_id"] for row in rows])
                writer.append(
                    {
                        **row,
                        "prediction": output,
                        "checkpoint": checkpoint,
                        "decoding": predictor.decoding,
                    }
                    for row, output in zip(rows, outputs, strict=True)
                )
                bar.update(len(rows))
    return path


def read_prompts(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Rows without predictions for the lines of a text or `.jsonl` file; empty lines are skipped.

    Raises:
      UserError: if the file is missing or a line is malformed, naming file and line.
    """
    file = pathlib.Path(path)
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no text
    for number, line in enumerate(lines, start=1):
        place = f"{file}:{number}"
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"{place}: not UTF-8 text") from error
        if not text.strip():
            continue
        fields: dict[str, Any] = {}
        if file.suffix == ".jsonl":
            fields, text = _json_prompt(text, place)
        yield _row(f"{file.name}:{number}", text, fields)


def _row(example_id: str, prompt: str, fields: dict[str, Any]) -> Row:
    return {"arm": "infer", "example_id": example_id, "prompt": prompt, "inputs": fields}


def _json_prompt(line: str, place: str) -> tuple[dict[str, Any], str]:
    fields, _, detail = files.parse_line(line.encode("utf-8") + b"\n")
    if fields is None:
        raise UserError(f"{place}: not valid JSON: {detail}")
    for name in _PROMPT_FIELDS:
        if isinstance(fields.get(name), str):
            return fields, fields[name]
    question, context = fields.get("question"), fields.get("context")
    if not isinstance(question, str):
        raise UserError(f"{place}: no text in a field prompt, inputs or question")
    if context is not None and not isinstance(context, str):
        raise UserError(f"{place}: 'context' is not a text")
    return fields, format_input(question, context)


def _task_prompts(dataset: DatasetConfig) -> tuple[list[Row], dict[str, list[int]]]:
    """Rows without predictions, and the token ids of their prompts by example id.

    The model gets the ids rather than the text: they may hold soft-prompt placeholders.
    """
    rows: list[Row] = []
    tokens: dict[str, list[int]] = {}
    for number, example in enumerate(eval_examples(dataset)):
        fields = {k: v for k, v in example.items() if isinstance(v, (str, int, float, list))}
        name = f"{example['task']}:{dataset.split}:{number}"
        rows.append(_row(name, example.get("inputs_pretokenized", ""), fields))
        tokens[name] = [int(token) for token in example["inputs"]]
    return rows, tokens


def _missing(
    examples: Sequence[Row], checkpoint: str, decoding: str, writer: RowWriter
) -> list[Row]:
    """The examples that have no row yet.

    Raises:
      UserError: if a row is of another prompt or checkpoint, or was decoded otherwise.
    """
    missing = []
    for example in examples:
        old = writer.done.get((example["arm"], example["example_id"]))
        if old is None:
            missing.append(example)
        elif old["prompt"] != example["prompt"] or old.get("checkpoint") != checkpoint:
            raise UserError(
                f"{writer.path}: holds predictions of another input or checkpoint "
                f"({example['example_id']}): set another --gin.INFER_OUTPUT_DIR or delete the file"
            )
        elif old.get("decoding", decoding) != decoding:
            raise UserError(
                f"{writer.path}: holds predictions decoded otherwise ({old['decoding']}; now "
                f"{decoding}): set another --gin.INFER_OUTPUT_DIR or delete the file"
            )
    return missing
