"""The notebooks run from a clean start, show what they promise, and are kept without outputs."""

import json
import pathlib
import shutil

import gin
import numpy as np
import pytest

from kaft_promot.evaluation.report import write_results
from kaft_promot.interop import load_model

NOTEBOOKS = pathlib.Path(__file__).resolve().parent.parent / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def read(name: str) -> dict:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def run(name: str, namespace: dict | None = None, *, first: int = 0) -> dict:
    """Runs the code cells from number `first` on, in order; returns their names and values."""
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    for number, cell in enumerate(read(name)["cells"]):
        if cell["cell_type"] == "code" and number >= first:
            source = "".join(cell["source"])
            exec(compile(source, f"{name}.ipynb, cell {number}", "exec"), namespace)
    return namespace


def cell_with(name: str, text: str) -> int:
    """The number of the code cell that holds `text`."""
    cells = read(name)["cells"]
    (number,) = (
        number
        for number, cell in enumerate(cells)
        if cell["cell_type"] == "code" and text in "".join(cell["source"])
    )
    return number


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder away from the repository, and no bindings of other tests."""
    folder = tmp_path / "away" / "here"  # ../runs is not pytest's folder either
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    gin.clear_config()
    yield folder
    gin.clear_config()


def test_all_notebooks_are_here():
    assert NAMES == ["grounding", "your_own_task"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_sound_and_has_no_outputs(name):
    notebook = read(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}  # no version of anyone's
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown") and cell["metadata"] == {}
        assert "".join(cell["source"]).strip()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    try:
        import nbformat
    except ImportError:
        return
    nbformat.validate(nbformat.from_dict(notebook))


@pytest.mark.slow
def test_grounding_asks_mini_and_reads_a_run(elsewhere, capsys):
    names = run("grounding")
    printed = capsys.readouterr().out
    assert "no run in runs/quickstart" in printed and names["quickstart"] is None
    # mini remembers; what it answers to contexts is its own affair.
    assert len(names["examples"]) == 100 and names["right"].value >= 0.9
    kinds = {record.context_kind for record in names["records"]}
    assert kinds == {"relevant", "counterfactual", "irrelevant", "empty"}
    assert len(names["outputs"]) == len(names["shown"]) > 4
    estimates = names["base"].estimates["base"]
    assert estimates["retention_em"].value == pytest.approx(names["right"].value)
    assert estimates["controllability_strict"].n > 50 and estimates["reading_em"].n > 50
    assert "Robustness (agree)" in printed

    # The notebook's own evaluation in a run's place.
    shutil.copytree(names["folder"], elsewhere / "runs" / "quickstart")
    write_results(names["base"], "runs/quickstart")
    again = run("grounding", names, first=cell_with("grounding", "runs/quickstart"))
    assert again["same"] and again["quickstart"].estimates == again["base"].estimates
    printed = capsys.readouterr().out
    assert "equal those in results.json: True" in printed
    assert "counterfactual: question: " in printed and " base " in printed


@pytest.mark.slow
def test_a_prompt_of_your_own_task_makes_mini_do_it(elsewhere):
    names = run("your_own_task")
    batch, lengths = names["batch"], names["LENGTHS"]
    assert batch["encoder_input_tokens"].shape == (4, lengths["inputs"])
    assert names["segments"].max() > 1  # packed
    # The prompt is a file, and it is what the run has tuned.
    assert names["prompt_file"].is_file() and (names["folder"] / "run/prompt.safetensors").is_file()
    (rows,) = names["prompts"].rows.values()
    width = load_model("mini").config.emb_dim
    assert rows.shape == (10, width) and np.isfinite(rows).all()
    # It brings the format and leaves with it.
    share = {
        which: np.mean(names["in_format"](names[which], names["TASK"]))
        for which in ("without_prompt", "with_prompt")
    }
    assert share["with_prompt"] > 0.9 and share["without_prompt"] < 0.1
    assert names["with_prompt"] != names["without_prompt"]
    targets = [example["targets_pretokenized"] for example in names["asked"]]
    right = np.mean([a == b for a, b in zip(names["with_prompt"], targets, strict=True)])
    assert right > 0.1 + max(targets.count(label) for label in set(targets)) / len(targets)
    assert all(names["unchanged"])


@pytest.mark.slow
def test_cells_that_register_may_run_twice(elsewhere):
    last = cell_with("your_own_task", "register_jsonl_task(")
    names: dict = {"__name__": "__main__"}
    for _ in range(2):
        for cell in read("your_own_task")["cells"][: last + 1]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    seqio = pytest.importorskip("seqio")
    assert seqio.TaskRegistry.get(names["TASK"]) is names["task"]
