"""The verbs of the command line: what each takes, and the one room that it calls.

Nothing is imported from the rooms before a verb runs, so that help and mistakes in flags are quick.
"""

import argparse
import dataclasses
import importlib
import os
import pathlib
from collections.abc import Callable, Sequence

from kaft_promot.errors import UserError

# Rooms with gin-configurable functions; importing them makes the functions known to gin.
_GIN_ROOMS = ("models", "feeding", "training", "decoding", "interop", "scale.process")
_GIN_FLAGS = """\
Configuration is gin, as in T5X. --gin_file names files (searched in the current folder, in
--gin_search_paths and in the package), --gin.NAME=VALUE sets single values; the packaged {file}
explains the names. Names that nothing uses are errors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: `run` gets the parsed flags that `add_flags` declared."""

    name: str
    summary: str
    example: str
    run: Callable[[argparse.Namespace], None]
    add_flags: Callable[[argparse.ArgumentParser], None]
    details: str = ""
    uses_gin: bool = False


def train(options: argparse.Namespace) -> None:
    _configure(options, output="MODEL_DIR")
    from kaft_promot.gin_config import call
    from kaft_promot.scale.process import initialize
    from kaft_promot.training import train as run

    call(initialize)
    call(run)


def evaluate(options: argparse.Namespace) -> None:
    _configure(options, "evaluate", output="EVAL_OUTPUT_DIR")
    from kaft_promot.evaluate import evaluate as run
    from kaft_promot.gin_config import call

    print(call(run))


def infer(options: argparse.Namespace) -> None:
    _configure(options, "infer", output="INFER_OUTPUT_DIR")
    from kaft_promot.gin_config import call
    from kaft_promot.infer import infer as run

    print(call(run))


def augment(options: argparse.Namespace) -> None:
    from kaft_promot.knowledge import augment_file

    summary = augment_file(
        options.input,
        options.output,
        format=options.format,
        proposer=options.proposer,
        irrelevant_kinds=options.irrelevant,
        parametric_answers=options.parametric,
        kinds=options.kinds,
        seed=options.seed,
        suffixes=options.suffixes,
        base_checkpoint=options.base_checkpoint,
        split=options.split,
        progress=True,
    )
    print(summary.table())


def probe(options: argparse.Namespace) -> None:
    for path in options.input:
        if not pathlib.Path(path).is_file():
            raise UserError(f"--input={path}: no such file")  # before the model is loaded
    from kaft_promot.infer import checkpoint_name, load_predictor
    from kaft_promot.knowledge import FORMATS, probe_file

    if options.format not in FORMATS:
        raise UserError(f"--format={options.format}: choose one of {', '.join(FORMATS)}")
    predictor = load_predictor(
        options.checkpoint,
        vocabulary=options.vocabulary,
        batch_size=options.batch_size,
        max_decode_length=options.max_decode_length,
    )
    counts = probe_file(
        predictor,
        options.input,
        options.output,
        checkpoint=checkpoint_name(options.checkpoint, predictor.params),
        format=options.format,
        progress=True,
    )
    print(f"answered {counts['answered']:,}, rejected {counts['rejected']:,}: {options.output}")


def quickstart(options: argparse.Namespace) -> None:
    _keep_programs()
    from kaft_promot.quickstart import run

    run(options.output, options.bindings)


def report(options: argparse.Namespace) -> None:
    from kaft_promot.evaluation.report import build, write_html, write_results
    from kaft_promot.evaluation.table import render

    output = pathlib.Path(options.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output}: is a file; name a folder")
    results = build(options.rows, options.seed)
    if not results.estimates:
        raise UserError(f"--rows={options.rows}: no row of the suite grounding in it")
    write_html(results, output / "report.html")
    write_results(results, output)
    print(render(results.estimates))
    print(f"{output / 'report.html'}")


def export(options: argparse.Namespace) -> None:
    from kaft_promot.interop import export_model

    print(export_model(options.checkpoint, options.output, options.format, options.vocabulary))


def interpolate(options: argparse.Namespace) -> None:
    from kaft_promot.interop.interpolate import interpolate as run

    print(run(options.base, options.tuned, options.weight, options.output))


def _configure(options: argparse.Namespace, *modules: str, output: str) -> None:
    """Parses gin for a verb, and keeps the configuration in the run's folder."""
    if options.alsologtostderr:
        from absl import logging

        logging.set_verbosity(logging.INFO)
        logging.use_absl_handler()
    if not options.gin_file and not options.bindings:
        raise UserError("no configuration: add --gin_file=... (see --help)")
    from kaft_promot.gin_config import (
        UnknownName,
        import_task_files,
        macro_value,
        parse_gin,
        whole_config,
    )

    for module in (*_GIN_ROOMS, *modules):
        importlib.import_module(f"kaft_promot.{module}")
    bindings = [*options.gin_bindings, *options.bindings]
    folders = [path for paths in options.gin_search_paths for path in paths.split(",") if path]
    # Model files set them, in whatever order the files come.
    defaults = {"MODEL": None, "VOCABULARY": None}
    try:
        parse_gin(options.gin_file, bindings, folders, defaults)
    except UnknownName:
        # Task files may have settings of their own (kaft_records.directory). They import
        # TensorFlow, so that they are only imported when something asks for them.
        import_task_files()
        parse_gin(options.gin_file, bindings, folders, defaults)
    folder = macro_value(output)
    if isinstance(folder, str):
        os.makedirs(folder, exist_ok=True)
        path = pathlib.Path(folder, "config.gin")  # T5X's name
        path.write_text(whole_config(), encoding="utf-8")
    _keep_programs()


def _keep_programs() -> None:
    """Compiled programs stay on disk: the same command starts faster the next time."""
    from kaft_promot.scale import use_compilation_cache

    use_compilation_cache()


def _binding_flag(parser: argparse.ArgumentParser, example: str) -> None:
    """Documents `--gin.NAME=VALUE`, which `split_gin_flags` takes out before argparse looks."""
    parser.add_argument(
        "--gin.NAME",
        dest="unused",
        metavar="VALUE",
        help=f"set one value, for example --gin.{example}; repeatable",
    )


def _gin_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gin_file", action="append", default=[], metavar="FILE", help="gin file; repeatable")
    _binding_flag(parser, "BATCH_SIZE=64")
    add(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the same as --gin.NAME=VALUE; repeatable",
    )
    add(
        "--gin_search_paths",
        action="append",
        default=[],
        metavar="FOLDER[,FOLDER]",
        help="folders where gin files are searched",
    )
    add("--alsologtostderr", action="store_true", help="show log messages")


def _input_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="FILE",
        help="question file (.json, .jsonl, also .gz); repeatable",
    )
    parser.add_argument(
        "--format",
        default="auto",
        help="squad, trex or jsonl; auto (the default) looks at the file",
    )


def _augment_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _input_flags(parser)
    add("--output", required=True, metavar="FOLDER", help="where records.jsonl is written")
    add("--parametric", metavar="FILE", help="the base model's answers, from kaft-promot probe")
    add(
        "--proposer",
        default="relation,type",
        help="who proposes counterfactual answers: relation, type, or both, tried in order "
        "(default: relation,type)",
    )
    add(
        "--irrelevant",
        default="annotated,random",
        help="irrelevant contexts: annotated (SQuAD 2.0's unanswerable questions), random, or both "
        "(default)",
    )
    add(
        "--kinds",
        default="relevant,counterfactual,irrelevant,empty",
        help="context kinds to make (default: all four)",
    )
    add("--split", metavar="NAME", help="write NAME.jsonl, where the SeqIO tasks look for it")
    add("--seed", type=int, default=0, help="of all random choices (default: 0)")
    add("--base_checkpoint", metavar="NAME", help="the probed checkpoint (default: as in answers)")
    add(
        "--no_suffixes",
        dest="suffixes",
        action="store_false",
        help="targets without the announced source, such as ' (from context)'",
    )


def _probe_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _input_flags(parser)
    add("--checkpoint", required=True, metavar="PATH", help="mini, a run's folder, T5X's, ...")
    add("--output", required=True, metavar="FILE", help="answers.jsonl; continued if it is there")
    add("--vocabulary", metavar="FILE", help="SentencePiece model (default: the checkpoint's own)")
    add("--batch_size", type=int, default=64, help="questions at once (default: 64)")
    add(
        "--max_decode_length",
        type=int,
        default=64,
        help="tokens of an answer (default: 64, as in runs/eval.gin: a longer answer that is cut "
        "elsewhere is another answer)",
    )


def _quickstart_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        default="runs/quickstart",
        metavar="FOLDER",
        help="(default: runs/quickstart); a stopped run is continued",
    )
    _binding_flag(parser, "Quickstart.train_steps=50")


def _report_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--rows",
        required=True,
        metavar="PATH",
        help="a rows file, a folder of them, or a run's folder",
    )
    add("--output", required=True, metavar="FOLDER", help="gets report.html and results.json")
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")


def _export_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="any checkpoint, or mini")
    add("--output", required=True, metavar="FOLDER", help="where to write")
    add(
        "--format",
        default="native",
        help="native (model.safetensors with T5X's names; the default) or huggingface",
    )
    add("--vocabulary", metavar="FILE", help="SentencePiece model (default: the checkpoint's own)")


def _interpolate_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base", required=True, metavar="PATH", help="the pretrained checkpoint, or mini")
    add("--tuned", required=True, metavar="PATH", help="the same network, tuned")
    add("--weight", type=float, default=0.5, help="of the tuned one, from 0 to 1 (default: 0.5)")
    add("--output", required=True, metavar="FOLDER", help="where to write")


VERBS: Sequence[Verb] = (
    Verb(
        name="quickstart",
        summary="show KAFT's effect on the packaged model mini, from questions to a report",
        example="kaft-promot quickstart",
        run=quickstart,
        add_flags=_quickstart_flags,
        uses_gin=True,
    ),
    Verb(
        name="probe",
        summary="ask a checkpoint questions closed book: its parametric answers",
        example="kaft-promot probe --input=questions.jsonl --checkpoint=mini "
        "--output=answers.jsonl",
        run=probe,
        add_flags=_probe_flags,
    ),
    Verb(
        name="augment",
        summary="turn question files into KAFT records with all four kinds of context",
        example="kaft-promot augment --input=questions.jsonl --parametric=answers.jsonl "
        "--output=records",
        run=augment,
        add_flags=_augment_flags,
        details="Lines that cannot be used land in rejected.jsonl with file, line and reason.",
    ),
    Verb(
        name="train",
        summary="fine-tune a checkpoint on a SeqIO task or mixture",
        example="kaft-promot train --gin_file=runs/train.gin --gin.MIXTURE_OR_TASK_NAME=kaft \\\n"
        "    --gin.TASK_FEATURE_LENGTHS=\"{'inputs': 256, 'targets': 32}\" \\\n"
        "    --gin.INITIAL_CHECKPOINT_PATH=mini --gin.TRAIN_STEPS=500 --gin.MODEL_DIR=runs/kaft",
        run=train,
        add_flags=_gin_flags,
        details=_GIN_FLAGS.format(file="runs/train.gin"),
        uses_gin=True,
    ),
    Verb(
        name="eval",
        summary="evaluate a checkpoint on KAFT records or a SeqIO task",
        example="kaft-promot eval --gin_file=runs/eval.gin --gin.CHECKPOINT_PATH=runs/kaft \\\n"
        "    --gin.EVAL_DATA=records/records.jsonl --gin.EVAL_OUTPUT_DIR=runs/kaft-eval",
        run=evaluate,
        add_flags=_gin_flags,
        details=_GIN_FLAGS.format(file="runs/eval.gin"),
        uses_gin=True,
    ),
    Verb(
        name="infer",
        summary="write a checkpoint's predictions for prompts or a SeqIO task",
        example="kaft-promot infer --gin_file=runs/infer.gin --gin.CHECKPOINT_PATH=mini \\\n"
        "    --gin.INPUT_FILE=questions.txt --gin.INFER_OUTPUT_DIR=runs/answers",
        run=infer,
        add_flags=_gin_flags,
        details=_GIN_FLAGS.format(file="runs/infer.gin"),
        uses_gin=True,
    ),
    Verb(
        name="report",
        summary="compute the report page and results.json from sample rows",
        example="kaft-promot report --rows=runs/kaft-eval/rows.jsonl --output=runs/kaft-eval",
        run=report,
        add_flags=_report_flags,
    ),
    Verb(
        name="export",
        summary="write a checkpoint as safetensors, or as a Hugging Face T5 folder",
        example="kaft-promot export --checkpoint=runs/kaft --format=huggingface --output=kaft-hf",
        run=export,
        add_flags=_export_flags,
    ),
    Verb(
        name="interpolate",
        summary="write the weights between two checkpoints (WiSE-FT)",
        example="kaft-promot interpolate --base=mini --tuned=runs/kaft --weight=0.5 \\\n"
        "    --output=runs/half-kaft",
        run=interpolate,
        add_flags=_interpolate_flags,
    ),
)
