"""The arms of ProMoT's comparison as data (Wang et al., ICLR 2024, arXiv 2211.00635, section 4).

An arm says what is attached to the base model while it is tuned and which parameters change. Adding
one is a line in `ARMS`.
"""

from __future__ import annotations

import dataclasses

from kaft_promot.errors import UserError
from kaft_promot.training import FULL, LORA, MODEL, Stage

BASE = "base"
# Where the soft prompt, or the low-rank additions, of an arm come from.
NONE, TUNED, NEW, RANDOM = "", "tuned", "new", "random"
STAGE_1 = "prompt"  # the folder of stage 1's run, among those of the arms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of tuning the base model on the target task.

    Attributes:
      stage: which parameters change (None: none; the arm is the base under its prompt).
      prompt: the soft prompt in front of every training input: '' none, 'tuned' stage 1's, 'new'
        one that is tuned with the model, 'random' a fixed random one.
      lora: the low-rank additions beside the kernels: '' none, 'new' ones that are tuned, 'tuned'
        those of the arm `lora`. Tuned ones that stay apart from the model are attached, as prompts
        are, on the target task only.
      demonstrations: whether a solved example stands in front of every training input.
      between: weight of another arm's parameters against the base's (WiSE-FT); which arm's,
        `NEEDS` says.
    """

    stage: Stage | None
    prompt: str = NONE
    lora: str = NONE
    demonstrations: bool = False
    between: float | None = None


ARMS: dict[str, Arm] = {
    "prompt_tuning": Arm(stage=None, prompt=TUNED),
    "finetune": Arm(stage=FULL),
    "promot": Arm(stage=MODEL, prompt=TUNED),
    "promot_1shot": Arm(stage=MODEL, prompt=TUNED, demonstrations=True),
    "joint": Arm(stage=FULL, prompt=NEW),
    "random_prompt": Arm(stage=MODEL, prompt=RANDOM),
    "lora": Arm(stage=LORA, lora=NEW),
    "lora_then_model": Arm(stage=MODEL, lora=TUNED),
    "wise_ft": Arm(stage=None, between=0.5),
}


# Arms that another one starts from.
NEEDS = {"wise_ft": "finetune", "lora_then_model": "lora"}


def get(name: str) -> Arm:
    """The arm of that name.

    Raises:
      UserError: there is none.
    """
    if name not in ARMS:
        raise UserError(f"Promot.arms: no arm is called {name!r}; choose from {', '.join(ARMS)}")
    return ARMS[name]
