"""The flags that each verb of the command line takes."""

import argparse


def binding_flag(parser: argparse.ArgumentParser, example: str) -> None:
    """Documents `--gin.NAME=VALUE`, which `split_gin_flags` takes out before argparse looks."""
    parser.add_argument(
        "--gin.NAME",
        dest="unused",
        metavar="VALUE",
        help=f"set one value, for example --gin.{example}; repeatable",
    )


def gin_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gin_file", action="append", default=[], metavar="FILE", help="gin file; repeatable")
    binding_flag(parser, "BATCH_SIZE=64")
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


def input_flags(parser: argparse.ArgumentParser) -> None:
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


def augment_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    input_flags(parser)
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


def probe_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    input_flags(parser)
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


def quickstart_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        default="runs/quickstart",
        metavar="FOLDER",
        help="(default: runs/quickstart); a stopped run is continued",
    )
    parser.add_argument(
        "--half",
        choices=("kaft", "promot", "both"),
        default="both",
        help="kaft (grounding), promot (retention), or both (default)",
    )
    binding_flag(parser, "Quickstart.train_steps=50")


def report_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--rows",
        required=True,
        metavar="PATH",
        help="a rows file, a folder of them, or a run's folder",
    )
    add("--output", required=True, metavar="FOLDER", help="gets report.html and results.json")
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")


def export_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="any checkpoint, or mini")
    add("--output", required=True, metavar="FOLDER", help="where to write")
    add(
        "--format",
        default="native",
        help="native (model.safetensors with T5X's names; the default) or huggingface",
    )
    add("--vocabulary", metavar="FILE", help="SentencePiece model (default: the checkpoint's own)")


def interpolate_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base", required=True, metavar="PATH", help="the pretrained checkpoint, or mini")
    add("--tuned", required=True, metavar="PATH", help="the same network, tuned")
    add("--weight", type=float, default=0.5, help="of the tuned one, from 0 to 1 (default: 0.5)")
    add("--output", required=True, metavar="FOLDER", help="where to write")
