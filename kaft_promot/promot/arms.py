"""The arms of ProMoT's comparison as data (Wang et al., ICLR 2024, arXiv 2211.00635, section 4).

An arm says what is attached to the base model while it is tuned and which parameters change. Adding
one is a line in `ARMS`.
"""

from __future__ import annotations

import dataclasses

from kaft_promot.errors import UserError
from kaft_promot.training import FULL, LORA, MODEL, Stage

BASE = "base"
# Where the soft prompt of an arm comes from.
NO_PROMPT, TUNED, NEW, RANDOM = "", "tuned", "new", "random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of tuning the base model on the target task.

    Attributes:
      stage: which parameters change (None: none; the arm is the base under its prompt).
      prompt: the soft prompt in front of every training input: '' none, 'tuned' stage 1's, 'new'
        one that is tuned with the model, 'random' a fixed random one.
      lora: whether low-rank additions stand beside the kernels.
      demonstrations: whether a solved example stands in front of every training input.
      between: weight of another arm's parameters against the base's (WiSE-FT), and that arm.
    """

    stage: Stage | None
    prompt: str = NO_PROMPT
    lora: bool = False
    demonstrations: bool = False
    between: tuple[float, str] | None = None


ARMS: dict[str, Arm] = {
    "prompt_tuning": Arm(stage=None, prompt=TUNED),
    "finetune": Arm(stage=FULL),
    "promot": Arm(stage=MODEL, prompt=TUNED),
    "promot_1shot": Arm(stage=MODEL, prompt=TUNED, demonstrations=True),
    "joint": Arm(stage=FULL, prompt=NEW),
    "random_prompt": Arm(stage=MODEL, prompt=RANDOM),
    "lora": Arm(stage=LORA, lora=True),
    "wise_ft": Arm(stage=None, between=(0.5, "finetune")),
}


def get(name: str) -> Arm:
    """The arm of that name.

    Raises:
      UserError: there is none.
    """
    if name not in ARMS:
        raise UserError(f"Promot.arms: no arm is called {name!r}; choose from {', '.join(ARMS)}")
    return ARMS[name]
