"""What goes with an exported model, and what an earlier one in the same folder leaves."""

import dataclasses

import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.interop import (
    LoraWeights,
    Prompts,
    export_model,
    read_lora,
    read_prompts,
    write_lora,
    write_native,
    write_prompts,
)
from kaft_promot.interop.interpolate import interpolate
from kaft_promot.training import MODEL, AdamW, train
from kaft_promot.training.lora import Lora
from kaft_promot.training.prompts import SoftPrompts

PROMPTS = Prompts(rows={"a": np.ones((3, 8), np.float32)}, vocab_size=384, base_checkpoint="base")
KERNEL = "encoder/layers_0/attention/query"
LORA = LoraWeights(
    additions={
        f"{KERNEL}/lora_a": np.ones((8, 2), np.float32),
        f"{KERNEL}/lora_b": np.ones((2, 6), np.float32),
    },
    base_checkpoint="base",
)
FORMS = ("native", "huggingface")


@pytest.fixture
def model(tmp_path, tiny_params, tiny_config):
    """A model as a run leaves it, apart from its checkpoints."""
    write_native(tmp_path / "model", tiny_params, tiny_config, vocabulary="bytes")
    return tmp_path / "model"


def names(folder):
    return {path.name for path in folder.iterdir() if path.name.endswith(".safetensors")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["", "model.safetensors"])
def test_prompts_and_frozen_lora_beside_a_model_go_with_it(tmp_path, model, form, source):
    write_prompts(model / "prompt.safetensors", PROMPTS)
    write_lora(model / "lora.safetensors", LORA)
    export_model(model / source, tmp_path / "out", form)
    found, lora = read_prompts(tmp_path / "out"), read_lora(tmp_path / "out")
    assert (found.names, found.digest, found.base_checkpoint) == (("a",), PROMPTS.digest, "base")
    assert (lora.digest, lora.base_checkpoint, lora.merged) == (LORA.digest, "base", False)
    export_model(tmp_path / "out", tmp_path / "out", form)  # where the source lies
    assert names(tmp_path / "out") == names(model)


def test_lora_that_a_model_has_in_it_does_not_go_with_it(tmp_path, model):
    write_lora(model / "lora.safetensors", dataclasses.replace(LORA, merged=True))
    export_model(model, tmp_path / "out")
    assert names(tmp_path / "out") == {"model.safetensors"}


@pytest.mark.parametrize("write", [export_model, lambda a, b: interpolate(a, a, 0.5, b)])
def test_what_an_earlier_model_had_beside_it_is_removed(tmp_path, model, write):
    out = tmp_path / "out"
    export_model(model, out)
    write_prompts(out / "prompt.safetensors", PROMPTS)
    write_lora(out / "lora.safetensors", LORA)
    write(model, out)
    assert names(out) == {"model.safetensors"}


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_that_no_model_lies_beside_is_kept(tmp_path, model, form):
    path = write_prompts(tmp_path / "out" / "prompt.safetensors", PROMPTS)
    with pytest.raises(UserError, match=r"a prompt without a model \(prompt.safetensors\)"):
        export_model(model, tmp_path / "out", form)
    assert names(tmp_path / "out") == {"prompt.safetensors"} and read_prompts(path)


def test_a_runs_prompts_and_frozen_lora_go_with_every_checkpoint_of_it(tmp_path, model):
    """The model is trained under both, so neither is among what the run saves."""
    write_lora(tmp_path / "lora.safetensors", LORA)
    write_prompts(tmp_path / "prompt.safetensors", PROMPTS)
    inputs = np.tile([384, 385, 386, 5, 1], (2, 1))
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": inputs[:, 3:],
        "decoder_input_tokens": np.array([[0, 5]] * 2),
    }
    run = tmp_path / "run"
    train(
        train_dataset_cfg=lambda: iter([batch] * 2),
        initial_checkpoint_path=str(model),
        model_dir=str(run),
        total_steps=1,
        stage=MODEL,
        prompts=SoftPrompts(path=str(tmp_path / "prompt.safetensors")),
        lora=Lora(path=str(tmp_path / "lora.safetensors")),
        optimizer=AdamW(learning_rate=0.01),
        progress=False,
        tensorboard=False,
    )
    for number, source in enumerate((run, run / "checkpoints" / "1")):
        out = tmp_path / str(number)
        export_model(source, out)
        assert read_prompts(out).digest == PROMPTS.digest
        assert read_lora(out).digest == LORA.digest and not read_lora(out).merged
