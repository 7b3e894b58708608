"""What reading a checkpoint gives."""

import dataclasses

from kaft_promot.models import Params, T5Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A network's parameters with what is known about them.

    Attributes:
      params: nested dict of float32 arrays under T5X's names, layers unrolled.
      config: the network's sizes; None where a checkpoint does not say them.
      vocabulary: path of the SentencePiece model, or a name that
        `kaft_promot.feeding.vocabulary.load_vocabulary` knows; None where it is not known.
      step: training step of the parameters; None where it is not known.
      origin: the path that they were read from.
    """

    params: Params
    config: T5Config | None
    vocabulary: str | None = None
    step: int | None = None
    origin: str = ""
