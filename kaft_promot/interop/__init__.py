"""Parameters in and out: our own safetensors, T5X checkpoints, Hugging Face T5 folders, mini.

`load_model("mini")`, `load_model("path/to/anything")` and `load_params(path, config)` find out what
the path holds; `export` writes it in another form.
"""

from kaft_promot.interop.checkpoint import (
    Model,
    check_params,
    infer_config,
    load_model,
    load_params,
)
from kaft_promot.interop.export import export_model
from kaft_promot.interop.lora import LORA_FILE, LoraWeights, read_lora, write_lora
from kaft_promot.interop.native import write_native
from kaft_promot.interop.prompts import PROMPTS, Prompts, read_prompts, write_prompts
from kaft_promot.interop.vocabulary import choose_vocabulary, run_vocabulary

__all__ = [
    "LORA_FILE",
    "LoraWeights",
    "Model",
    "PROMPTS",
    "Prompts",
    "check_params",
    "choose_vocabulary",
    "export_model",
    "infer_config",
    "load_model",
    "load_params",
    "read_lora",
    "read_prompts",
    "run_vocabulary",
    "write_lora",
    "write_native",
    "write_prompts",
]
