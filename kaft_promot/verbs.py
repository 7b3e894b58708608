"""The verbs of the command line: what each takes, and the one room that it calls.

Nothing is imported from the rooms before a verb runs, so that help and mistakes in flags are quick.
"""

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

from kaft_promot import flags
from kaft_promot.errors import UserError

# Rooms with gin-configurable functions; importing them makes the functions known to gin.
_GIN_ROOMS = ("models", "feeding", "training", "decoding", "interop", "scale.process")
_GIN_FLAGS = """\
Configuration is gin, as in T5X. --gin_file names files (searched in the current folder, in
--gin_search_paths and in the package), --gin.NAME=VALUE sets single values; the packaged {file}
explains the names. Names that nothing uses are errors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: `run` gets the parsed flags that `add_flags` declared.

    `uses_gin` says whether it takes `--gin.NAME=VALUE`, `joins_processes` whether several processes
    can share its work; all others are refused in several, which would write the same files.
    """

    name: str
    summary: str
    example: str
    run: Callable[[argparse.Namespace], None]
    add_flags: Callable[[argparse.ArgumentParser], None]
    details: str = ""
    uses_gin: bool = False
    joins_processes: bool = False


def train(options: argparse.Namespace) -> None:
    with _configured(options, "specialize", output="MODEL_DIR"):
        from kaft_promot.gin_config import call
        from kaft_promot.scale.process import initialize
        from kaft_promot.training import train as run

        call(initialize)
        call(run)


def evaluate(options: argparse.Namespace) -> None:
    with _configured(options, "evaluate", output="EVAL_OUTPUT_DIR"):
        from kaft_promot.evaluate import evaluate as run
        from kaft_promot.gin_config import call

        print(call(run))


def infer(options: argparse.Namespace) -> None:
    with _configured(options, "infer", output="INFER_OUTPUT_DIR"):
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

    run(options.output, options.bindings, options.half)


def promot(options: argparse.Namespace) -> None:
    with _configured(options, "promot.report", output="MODEL_DIR"):
        from kaft_promot.gin_config import call
        from kaft_promot.promot.report import compare

        print(call(compare))


def report(options: argparse.Namespace) -> None:
    from kaft_promot.evaluation.report import build, write_html, write_results
    from kaft_promot.evaluation.results import earlier
    from kaft_promot.evaluation.table import render

    output = pathlib.Path(options.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output}: is a file; name a folder")
    sections = {name: found for name, found in earlier(output).items() if name != "arms"}
    if "promot" in sections:
        raise UserError(
            f"--output={output}: holds the report of a comparison, of which this one would be a "
            "part; name another folder"
        )
    results = build(options.rows, options.seed)
    if not results.estimates:
        raise UserError(f"--rows={options.rows}: no row of the suite grounding in it")
    write_html(results, output / "report.html")
    write_results(results, output, **sections)  # what `eval` has measured beside the rows stays
    print("\n\n".join([render(results.estimates), *results.warnings]))
    print(f"{output / 'report.html'}")


def export(options: argparse.Namespace) -> None:
    from kaft_promot.interop import export_model

    print(export_model(options.checkpoint, options.output, options.format, options.vocabulary))


def interpolate(options: argparse.Namespace) -> None:
    from kaft_promot.interop.interpolate import interpolate as run

    print(run(options.base, options.tuned, options.weight, options.output))


@contextlib.contextmanager
def _configured(options: argparse.Namespace, *modules: str, output: str) -> Iterator[None]:
    """Parses gin for a verb, and keeps the configuration in the folder that `output` names.

    Another one that lies there, of an earlier call, is kept as `config.1.gin` and so on: what that
    call has made is there still. A call that is refused before it has written anything there leaves
    the folder as it was.
    """
    if options.alsologtostderr:
        from absl import logging

        logging.set_verbosity(logging.INFO)
        logging.use_absl_handler()
    if not options.gin_file and not options.bindings:
        raise UserError("no configuration: add --gin_file=... (see --help)")
    from kaft_promot.gin_config import (
        OWN_MODEL,
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
    try:
        parse_gin(options.gin_file, bindings, folders, OWN_MODEL)
    except UnknownName:
        # Task files may have settings of their own (kaft_records.directory). They import
        # TensorFlow, so that they are only imported when something asks for them.
        import_task_files()
        parse_gin(options.gin_file, bindings, folders, OWN_MODEL)
    folder = macro_value(output)
    _keep_programs()
    if not isinstance(folder, str):
        yield
        return
    path = pathlib.Path(folder, "config.gin")  # T5X's name
    before = path.read_bytes() if path.is_file() else None
    made = [place for place in path.parents if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole_config(), encoding="utf-8")
    earlier = None
    if before is not None and before != path.read_bytes():
        earlier = next(
            place
            for number in itertools.count(1)
            if not (place := path.with_name(f"config.{number}.gin")).exists()
        )
        earlier.write_bytes(before)  # what is there already was made with it
    start = path.stat().st_mtime_ns
    try:
        yield
    except UserError:
        own = (path, earlier)
        files = (file for file in path.parent.rglob("*") if file.is_file() and file not in own)
        if any(file.stat().st_mtime_ns >= start for file in files):
            raise  # there is work that the configuration belongs to
        if before is not None:
            path.write_bytes(before)
            if earlier is not None:
                earlier.unlink()
        else:
            path.unlink()
            for place in made:  # the innermost first
                with contextlib.suppress(OSError):  # not empty
                    place.rmdir()
        raise


def _keep_programs() -> None:
    """Compiled programs stay on disk: the same command starts faster the next time."""
    from kaft_promot.scale import use_compilation_cache

    use_compilation_cache()


VERBS: Sequence[Verb] = (
    Verb(
        name="quickstart",
        summary="show KAFT and ProMoT on the packaged model mini, from questions to a report",
        example="kaft-promot quickstart",
        run=quickstart,
        add_flags=flags.quickstart_flags,
        uses_gin=True,
    ),
    Verb(
        name="probe",
        summary="ask a checkpoint questions closed book: its parametric answers",
        example="kaft-promot probe --input=questions.jsonl --checkpoint=mini "
        "--output=answers.jsonl",
        run=probe,
        add_flags=flags.probe_flags,
    ),
    Verb(
        name="augment",
        summary="turn question files into KAFT records with all four kinds of context",
        example="kaft-promot augment --input=questions.jsonl --parametric=answers.jsonl "
        "--output=records",
        run=augment,
        add_flags=flags.augment_flags,
        details="Lines that cannot be used land in rejected.jsonl with file, line and reason.",
    ),
    Verb(
        name="train",
        summary="fine-tune a checkpoint on a SeqIO task or mixture",
        example="kaft-promot train --gin_file=runs/train.gin --gin.MIXTURE_OR_TASK_NAME=kaft \\\n"
        "    --gin.TASK_FEATURE_LENGTHS=\"{'inputs': 256, 'targets': 32}\" \\\n"
        "    --gin.INITIAL_CHECKPOINT_PATH=mini --gin.TRAIN_STEPS=500 --gin.MODEL_DIR=runs/kaft",
        run=train,
        add_flags=flags.gin_flags,
        details=_GIN_FLAGS.format(file="runs/train.gin"),
        uses_gin=True,
        joins_processes=True,
    ),
    Verb(
        name="eval",
        summary="evaluate a checkpoint on KAFT records or a SeqIO task",
        example="kaft-promot eval --gin_file=runs/eval.gin --gin.CHECKPOINT_PATH=runs/kaft \\\n"
        "    --gin.EVAL_DATA=records/records.jsonl --gin.EVAL_OUTPUT_DIR=runs/kaft-eval",
        run=evaluate,
        add_flags=flags.gin_flags,
        details=_GIN_FLAGS.format(file="runs/eval.gin"),
        uses_gin=True,
    ),
    Verb(
        name="infer",
        summary="write a checkpoint's predictions for prompts or a SeqIO task",
        example="kaft-promot infer --gin_file=runs/infer.gin --gin.CHECKPOINT_PATH=mini \\\n"
        "    --gin.INPUT_FILE=questions.txt --gin.INFER_OUTPUT_DIR=runs/answers",
        run=infer,
        add_flags=flags.gin_flags,
        details=_GIN_FLAGS.format(file="runs/infer.gin"),
        uses_gin=True,
    ),
    Verb(
        name="promot",
        summary="tune a checkpoint by ProMoT and by other ways, and compare what each forgets",
        example="kaft-promot promot --gin_file=recipes/promot_mini.gin "
        "--gin.MODEL_DIR=runs/promot-mini",
        run=promot,
        add_flags=flags.gin_flags,
        details=_GIN_FLAGS.format(file="recipes/promot.gin"),
        uses_gin=True,
    ),
    Verb(
        name="report",
        summary="compute the report page and results.json from sample rows",
        example="kaft-promot report --rows=runs/kaft-eval/rows.jsonl --output=runs/kaft-eval",
        run=report,
        add_flags=flags.report_flags,
    ),
    Verb(
        name="export",
        summary="write a checkpoint as safetensors, or as a Hugging Face T5 folder",
        example="kaft-promot export --checkpoint=runs/kaft --format=huggingface --output=kaft-hf",
        run=export,
        add_flags=flags.export_flags,
    ),
    Verb(
        name="interpolate",
        summary="write the weights between two checkpoints (WiSE-FT)",
        example="kaft-promot interpolate --base=mini --tuned=runs/kaft --weight=0.5 \\\n"
        "    --output=runs/half-kaft",
        run=interpolate,
        add_flags=flags.interpolate_flags,
    ),
)
