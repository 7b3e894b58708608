"""The command line: help, one line for every mistake, exit statuses."""

import argparse
import errno
import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import gin
import pytest

from kaft_promot import cli, verbs
from kaft_promot.errors import UserError
from kaft_promot.gin_config import packaged_gin_folder, split_gin_flags

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NAMES = ["quickstart", "probe", "augment", "train", "eval", "infer", "promot"]
NAMES += ["report", "export", "interpolate"]


PROBE = [f"--input={__file__}", "--checkpoint=gone", "--output=o"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    gin.clear_config()


def run(capsys, *arguments):
    """Exit status, output and errors of a command line run in this process."""
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_names_every_verb_with_an_example(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert [verb.name for verb in verbs.VERBS] == NAMES
    for verb in verbs.VERBS:
        assert f"kaft-promot {verb.name}" in out
        assert verb.summary.split()[0] in out


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_explains_itself(capsys, verb):
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0
    assert f"example:\n  kaft-promot {verb}" in out


def with_includes(file):
    """The text of a packaged gin file and of all files that it includes."""
    text = (packaged_gin_folder() / file).read_text()
    return "".join([text, *map(with_includes, re.findall(r"^include '(.*)'", text, re.MULTILINE))])


def check_command(line):
    """A command line's flags exist, and its macros are in the packaged gin file that it names."""
    arguments = shlex.split(line)
    assert arguments[0] == "kaft-promot"
    others, bindings = split_gin_flags(arguments[1:])
    options = cli._parser().parse_args(others)
    for file in getattr(options, "gin_file", []):
        text = with_includes(file)
        for name in (binding.partition("=")[0] for binding in bindings):
            assert "." in name or f"\n{name} = " in text, f"{line}: {name} is not in {file}"


@pytest.mark.parametrize("verb", verbs.VERBS, ids=NAMES)
def test_examples_in_help_are_valid(verb):
    check_command(verb.example.replace("\\\n", " "))


def test_commands_in_the_readme_are_valid():
    text = (REPOSITORY / "README.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("kaft-promot ")]
    assert len(lines) >= 6
    for line in lines:
        check_command(line)


def test_gin_files_show_valid_commands():
    recipes = packaged_gin_folder() / "recipes"
    files = [*recipes.glob("promot*.gin"), *recipes.glob("lora*.gin"), recipes / "finetune.gin"]
    assert len(files) >= 6
    for path in [*files, *sorted((packaged_gin_folder() / "runs").glob("*.gin"))]:
        comments = [line[1:].strip() for line in path.read_text().splitlines() if line[:1] == "#"]
        text = "\n".join(comments).replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.startswith("kaft-promot ")]
        assert lines, path
        for line in lines:
            check_command(line)


def test_a_report_needs_rows_of_its_suite(capsys):
    pathlib.Path("rows.jsonl").write_text('{"arm": "infer", "example_id": "a", "prompt": "b"}\n')
    status, _, err = run(capsys, "report", "--rows=rows.jsonl", "--output=o")
    assert (status, err.count("\n")) == (2, 1)
    assert "--rows=rows.jsonl: no row of the suite grounding" in err
    assert not pathlib.Path("o").exists()


def test_a_report_keeps_what_no_rows_hold(capsys):
    row = {
        **{"arm": "a", "example_id": "e", "question_id": "q", "question": "?", "prompt": "p"},
        **{"suite": "grounding", "task": "kaft_empty", "context_kind": "empty", "context": ""},
        **{"prediction": "x", "answer": "x", "source": None, "target": "x", "scores": {}},
        **{"gold_answers": ["x"], "contextual_answers": [], "parametric_answer": "x"},
    }
    folder = pathlib.Path("measured")
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    results = folder / "results.json"
    results.write_text('{"arms": {}, "specialization": {"a": {"kl": 1}}}')
    command = ("report", f"--rows={folder}", f"--output={folder}")
    assert run(capsys, *command)[0] == 0
    found = json.loads(results.read_text())
    assert (
        found["specialization"] == {"a": {"kl": 1}} and found["arms"]["a"]["retention_em"]["n"] == 1
    )
    for content, message in (
        ('{"arms": {}, "promot": {}}', "holds the report of a comparison"),
        ("{", "results.json: not valid JSON"),
        ("[]", "results.json: no JSON object; delete it"),
    ):
        results.write_text(content)
        status, _, err = run(capsys, *command)
        assert (status, err.count("\n")) == (2, 1) and message in err
        assert results.read_text() == content


def test_the_configuration_of_an_earlier_call_is_kept():
    def configured(steps):
        options = argparse.Namespace(
            alsologtostderr=False,
            gin_file=["runs/train.gin"],
            gin_bindings=[],
            gin_search_paths=[],
            bindings=[
                "MODEL_DIR='kept'",
                "MIXTURE_OR_TASK_NAME='kaft'",
                "TASK_FEATURE_LENGTHS={}",
                "INITIAL_CHECKPOINT_PATH='mini'",
                f"TRAIN_STEPS={steps}",
            ],
        )
        return verbs._configured(options, "specialize", output="MODEL_DIR")

    for steps in (2, 2, 3, 4):  # the second call is the first one again
        with configured(steps):
            pass
    found = {
        path.name: re.findall(r"^TRAIN_STEPS = (\d)", path.read_text(), re.MULTILINE)
        for path in pathlib.Path("kept").iterdir()
    }
    assert found == {
        "config.1.gin": ["2"],
        "config.2.gin": ["3"],
        "config.gin": ["4"],
    }
    with pytest.raises(UserError), configured(5):  # refused before it has made anything
        raise UserError("no")
    assert {path.name for path in pathlib.Path("kept").iterdir()} == set(found)
    assert "TRAIN_STEPS = 4" in pathlib.Path("kept/config.gin").read_text()


def test_a_probe_and_an_evaluation_cut_answers_alike():
    """Else the base model would not agree with its own closed-book answers."""
    options = cli._parser().parse_args(["probe", *PROBE])
    text = (packaged_gin_folder() / "runs" / "eval.gin").read_text()
    assert f"\nMAX_DECODE_LENGTH = {options.max_decode_length}\n" in text


def test_help_imports_no_heavy_library():
    code = (
        "import sys; from kaft_promot import cli; cli.main(['--help']); "
        "cli.main(['train', '--help']); "
        "print({'jax', 'tensorflow', 'numpy', 'flax'} & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr.strip() == "set()"


def test_version(capsys):
    assert run(capsys, "--version")[1].startswith("kaft-promot 0.")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name a verb"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--gin_fil=x"], "unrecognized arguments: --gin_fil=x"),
        (["train"], "no configuration: add --gin_file"),
        (["train", "--gin.A"], "--gin.A: write --gin.NAME=VALUE"),
        (["train", "--gin_file=runs/tran.gin"], "did you mean runs/train.gin?"),
        (["train", "--gin_file=runs/train.gin"], "add --gin.MIXTURE_OR_TASK_NAME=..."),
        (["infer", "--gin_file=runs/infer.gin"], "no value for CHECKPOINT_PATH, INFER_OUTPUT_DIR"),
        (["eval", "--gin_file=runs/eval.gin"], "no value for CHECKPOINT_PATH, EVAL_OUTPUT_DIR"),
        (["augment", "--output=o"], "the following arguments are required: --input"),
        (["augment", "--input=gone.jsonl", "--output=o"], "gone.jsonl"),
        (["augment", "--input=a", "--output=o", "--seed=x"], "--seed: invalid int value: 'x'"),
        (["quickstart", "--half=kafft"], "--half: invalid choice: 'kafft' (choose from "),
        (["probe", "--input=gone", "--checkpoint=c", "--output=o"], "--input=gone: no such file"),
        (["probe", *PROBE, "--format=csv"], "--format=csv: choose one of auto, "),
        (["report", "--rows=gone", "--output=o"], "gone: no such rows file or folder"),
        (["report", f"--rows={__file__}", "--output=o"], "test_cli.py:1: not a sample row"),
        (["export", "--checkpoint=gone", "--output=o"], "gone: no such checkpoint"),
        (["export", "--checkpoint=gone", "--output=o", "--format=x"], "--format x: choose from"),
    ],
)
def test_mistakes_are_one_line_with_status_2(capsys, arguments, message):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert message in err


INFER = ("infer", "--gin_file=runs/infer.gin", "--gin.INFER_OUTPUT_DIR=out")


@pytest.mark.parametrize(
    "bindings, message",
    [
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=q.txt"], "gone: no such checkpoint"),
        (["CHECKPOINT_PATH=gone"], "needs one of --gin.INPUT_FILE and --gin.MIXTURE_OR_TASK_NAME"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=none.txt"], "none.txt: cannot be read: No such file"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=empty.txt"], "empty.txt: no prompts in it"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=cut.jsonl"], "cut.jsonl:2: not valid JSON"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=latin.txt"], "latin.txt:1: not UTF-8 text"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=other.jsonl"], "other.jsonl:1: no text in a field"),
        (
            ["CHECKPOINT_PATH=gone", "INPUT_FILE=list.jsonl"],
            "list.jsonl:1: 'context' is not a text",
        ),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=array.jsonl"], "array.jsonl:1: not valid JSON"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILE=half.jsonl"], "half of a surrogate pair"),
        (["CHECKPOINT_PATH=gone", "INPUT_FILES=q.txt"], "did you mean INPUT_FILE?"),
        (["CHECKPOINT_PATH=gone", "BATCH_SIZE=lots"], "--gin.BATCH_SIZE=lots: expected an int"),
    ],
)
def test_mistakes_in_runs_are_found_before_work_starts(capsys, bindings, message):
    pathlib.Path("q.txt").write_text("question: who?\n")
    pathlib.Path("empty.txt").write_text("\n\n")
    pathlib.Path("cut.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b')
    pathlib.Path("latin.txt").write_bytes("où?\n".encode("latin-1"))
    pathlib.Path("other.jsonl").write_text('{"text": "a"}\n')
    pathlib.Path("list.jsonl").write_text('{"question": "who?", "context": ["a", "b"]}\n')
    pathlib.Path("array.jsonl").write_text("[1]\n")
    pathlib.Path("half.jsonl").write_text('{"prompt": "\\ud800"}\n')
    status, _, err = run(capsys, *INFER, *(f"--gin.{binding}" for binding in bindings))
    assert status == 2
    assert err.splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert message in err


def test_the_configuration_is_kept_with_the_run(capsys):
    pathlib.Path("q.txt").write_text("question: who?\n")
    of_mini = [*INFER, "--gin.CHECKPOINT_PATH=mini", "--gin.MAX_INPUT_LENGTH=32"]
    status, _, _ = run(capsys, *of_mini, "--gin.INPUT_FILE=q.txt", "--gin.MAX_DECODE_LENGTH=2")
    kept = pathlib.Path("out/config.gin").read_bytes()
    assert status == 0
    assert b"INPUT_FILE = 'q.txt'" in kept and b"infer.input_file = %INPUT_FILE" in kept
    # What is refused leaves it, and the folder, as they were.
    status, _, err = run(capsys, *of_mini, "--gin.INPUT_FILE=q.txt", "--gin.MAX_DECODE_LENGTH=3")
    assert status == 2
    assert "decoded otherwise (greedy, 32 -> 2 tokens; now greedy, 32 -> 3 tokens)" in err
    assert pathlib.Path("out/config.gin").read_bytes() == kept
    status, _, _ = run(capsys, *of_mini, "--gin.INPUT_FILE=gone", "--gin.INFER_OUTPUT_DIR=new/deep")
    assert status == 2 and not pathlib.Path("new").exists()


def test_settings_of_task_files_are_known(capsys):
    """A binding of a task file is found without importing the file by hand."""
    status, _, err = run(
        capsys,
        "infer",
        "--gin_file=runs/infer.gin",
        "--gin.INFER_OUTPUT_DIR=out",
        "--gin.CHECKPOINT_PATH=gone",
        "--gin.kaft_records.directory=records",
        "--gin.MIXTURE_OR_TASK_NAME=kaft",
    )
    assert status == 2
    assert "error: gone: no such checkpoint" in err  # no word of an unknown name


@pytest.mark.parametrize(
    "raised, status, message",
    [
        (UserError("a.gin:3: no\nway"), 2, "error: a.gin:3: no way\n"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (OSError(errno.ENOSPC, "x", "big.bin"), 2, "error: big.bin: No space left on device; what"),
        (PermissionError(errno.EACCES, "x", "secret"), 2, "error: secret: Permission denied"),
    ],
)
def test_what_a_verb_raises_becomes_one_line(capsys, monkeypatch, raised, status, message):
    def fail(*_args, **_kwargs):
        raise raised

    monkeypatch.setattr("kaft_promot.knowledge.augment_file", fail)
    got, _, err = run(capsys, "augment", "--input=a", "--output=b")
    assert got == status
    assert err.startswith(message) and err.count("\n") == 1


def test_a_bug_keeps_its_trace(monkeypatch):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("kaft_promot.knowledge.augment_file", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["augment", "--input=a", "--output=b"])


def test_a_stopped_run_says_so_and_keeps_its_status(capsys, monkeypatch):
    from kaft_promot.training import Interrupted

    def stop(*_args, **_kwargs):
        raise Interrupted(signal.SIGTERM, 12)

    monkeypatch.setattr("kaft_promot.knowledge.augment_file", stop)
    status, _, err = run(capsys, "augment", "--input=a", "--output=b")
    assert status == 128 + signal.SIGTERM
    assert "after step 12" in err


@pytest.mark.parametrize("devices", ["two", "0", "", "1.5"])
def test_a_wrong_number_of_devices_is_one_line(capsys, monkeypatch, devices):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", devices)
    status, _, err = run(capsys, "probe", *PROBE)
    assert status == 2
    assert err.startswith(f"error: JAX_NUM_CPU_DEVICES={devices}: must be") and err.count("\n") == 1


OTHERS = [verb for verb in verbs.VERBS if verb.name != "train"]


@pytest.mark.parametrize("verb", OTHERS, ids=lambda verb: verb.name)
def test_only_train_runs_in_several_processes(capsys, monkeypatch, verb):
    arguments = shlex.split(verb.example.replace("\\\n", " "))[1:]
    for variable, value in (("PROCESS_COUNT", "2"), ("COORDINATOR", "auto")):
        with monkeypatch.context() as patch:
            patch.setenv(f"KAFT_PROMOT_{variable}", value)
            status, _, err = run(capsys, *arguments)
        start = f"error: KAFT_PROMOT_{variable} = {value}: {verb.name} runs in one process"
        assert status == 2 and err.startswith(start) and err.count("\n") == 1
        assert not list(pathlib.Path().iterdir())


def test_one_process_and_train_are_not_refused(capsys, monkeypatch):
    monkeypatch.setenv("KAFT_PROMOT_PROCESS_COUNT", "2")
    assert "no configuration" in run(capsys, "train")[2]
    monkeypatch.setenv("KAFT_PROMOT_PROCESS_COUNT", "1")
    assert "no configuration" in run(capsys, "eval")[2]
