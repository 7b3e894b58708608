"""The soft prompts of a run: where they start, and which examples get which.

    train(..., prompts=SoftPrompts(length=100), stage=PROMPT)            # tunes a new prompt
    train(..., prompts=SoftPrompts(path="runs/stage1"), stage=MODEL)     # tunes the model under it

These are ProMoT's two stages (Wang et al., ICLR 2024, arXiv 2211.00635, section 3): the prompt
learns the target's format first, so that the model, tuned with the frozen prompt attached, has less
reason to. Removed at inference, the prompt takes the format with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gin
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import flatten
from kaft_promot.models.prompts import sampled_rows, uniform_rows, word_rows
from kaft_promot.training.start import Start

if TYPE_CHECKING:
    from kaft_promot.feeding import Vocabulary
    from kaft_promot.interop import Prompts

INITS = ("vocabulary", "uniform", "text", "labels")
_LENGTH = 100


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftPrompts:
    """Which soft prompts a run attaches, new or from files.

    Attributes:
      path: prompts to start from, what `interop.read_prompts` reads; or a dict from task names to
        such paths, for prompts that were tuned apart. None makes new ones.
      tasks: the tasks that have a prompt each, in a mixture whose tasks do not share one. Empty:
        all examples have the same prompt, unless `path` holds several, which go by their names.
      length: P, rows of a prompt; None for 100, or the length that `path` has.
      init: how new rows start (see `models.prompts`): 'vocabulary' (embeddings of sampled pieces),
        'uniform' (in [-0.5, 0.5]), 'text' (the pieces of `text`, then sampled ones), 'labels' (one
        row for each of `labels`, the mean of its pieces, then sampled ones).
      pieces: sample from this many of the vocabulary's most frequent pieces.
      text: for 'text'.
      labels: for 'labels', such as ('True', 'False').
      seed: of new rows.
      long_inputs: what to do with inputs that leave no room for their prompt in
        TASK_FEATURE_LENGTHS: 'error' or 'truncate'.

    Raises:
      UserError: for values that make no sense or would do nothing.
    """

    path: str | Mapping[str, str] | None = None
    tasks: tuple[str, ...] = ()
    length: int | None = None
    init: str = "vocabulary"
    pieces: int = 5000
    text: str | None = None
    labels: tuple[str, ...] = ()
    seed: int = 0
    long_inputs: str = "error"

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UserError(f"SoftPrompts.init = {self.init!r}: choose from {', '.join(INITS)}")
        if self.length is not None and self.length < 1:
            raise UserError(f"SoftPrompts.length = {self.length}: must be at least 1")
        if self.pieces < 1:
            raise UserError(f"SoftPrompts.pieces = {self.pieces}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"SoftPrompts.seed = {self.seed}: must not be negative")
        for name in ("text", "labels"):
            if bool(getattr(self, name)) != (self.init == name):
                raise UserError(
                    f"SoftPrompts.{name} goes with SoftPrompts.init = {name!r}: set both or neither"
                )
        if isinstance(self.tasks, str) or len(set(self.tasks)) != len(self.tasks):
            raise UserError(
                f"SoftPrompts.tasks = {self.tasks!r}: give a tuple of different task names, such "
                "as ('rte', 'wic')"
            )

    def attach(self, start: Start, vocabulary: str | None, source: Any) -> Start:
        """`start` with these prompts in its parameters.

        Args:
          start: the parameters that the run starts from.
          vocabulary: name or path of its vocabulary.
          source: the run's training data, whose name a single prompt gets.

        Raises:
          UserError: for a prompt of another width, length or vocabulary, and missing names.
        """
        from kaft_promot.interop.prompts import attach

        prompts = self._read() if self.path is not None else self._new(start, vocabulary, source)
        config, params = attach(prompts, start.config, start.params, vocabulary)
        return dataclasses.replace(start, config=config, params=params, prompts=prompts)

    def feed(self, source: Any, start: Start, training: bool = True) -> Any:
        """`source` with the prompts' placeholders in front of its examples.

        Sources other than a `feeding.DatasetConfig` are returned as they are. In training data each
        of `tasks` must have examples; a validation split may lack some of them.
        """
        if not hasattr(source, "mixture_or_task_name"):
            return source
        from kaft_promot.feeding import PromptIds

        assert start.prompts is not None
        names = start.prompts.names
        shared = not self.tasks and not isinstance(self.path, Mapping) and len(names) == 1
        ids = PromptIds(
            first_id=start.config.vocab_size,
            length=start.prompts.length,
            by_task=None if shared else {name: number for number, name in enumerate(names)},
            long_inputs=self.long_inputs,
            all_used=training and bool(self.tasks),
        )
        return dataclasses.replace(source, prompts=ids)

    def _read(self) -> Prompts:
        from kaft_promot.interop.prompts import join_prompts, read_prompts

        assert self.path is not None
        if isinstance(self.path, Mapping):
            prompts = join_prompts(self.path)
        else:
            prompts = read_prompts(self.path)
        if self.tasks:
            rows = {name: prompts.only(name).rows[name] for name in self.tasks}
            prompts = dataclasses.replace(prompts, rows=rows)
        if self.length is not None and self.length != prompts.length:
            raise UserError(
                f"SoftPrompts.length = {self.length}, but {prompts.origin} has {prompts.length} "
                "rows; leave it out to take them as they are"
            )
        return prompts

    def _new(self, start: Start, vocabulary: str | None, source: Any) -> Prompts:
        from kaft_promot.feeding import load_vocabulary
        from kaft_promot.interop import Prompts

        known = None if vocabulary is None else load_vocabulary(vocabulary)
        names = self.tasks or (getattr(source, "mixture_or_task_name", None) or "prompt",)
        embedding = np.asarray(flatten(start.params)["token_embedder/embedding"], np.float32)
        return Prompts(
            rows={
                name: self._rows(embedding, known, np.random.default_rng([self.seed, number]))
                for number, name in enumerate(names)
            },
            base_checkpoint=start.path,
            vocab_size=start.config.vocab_size,
            vocabulary_digest=None if known is None else known.digest,
        )

    def _rows(
        self, embedding_VxD: np.ndarray, vocabulary: Vocabulary | None, rng: np.random.Generator
    ) -> np.ndarray:
        length = self.length or _LENGTH
        if self.init == "uniform":
            return uniform_rows(length, embedding_VxD.shape[1], rng)
        if vocabulary is not None:  # rows of the embedding beyond the vocabulary are no pieces
            embedding_VxD = embedding_VxD[: vocabulary.vocab_size]
        sampled = sampled_rows(length, embedding_VxD, self.pieces, rng)
        if self.init == "vocabulary":
            return sampled
        if vocabulary is None:
            raise UserError(
                f"SoftPrompts.init = {self.init!r} needs the vocabulary: add --gin.VOCABULARY=..."
            )
        if self.init == "text":
            words = [[token] for token in vocabulary.encode(self.text or "")]
        else:
            words = [vocabulary.encode(label) for label in self.labels]
        if len(words) > length:
            raise UserError(
                f"SoftPrompts.{self.init} makes {len(words)} rows, but the prompt has {length}"
            )
        if not all(words):
            raise UserError(f"SoftPrompts.{self.init}: an empty word cannot start a row")
        return word_rows(length, embedding_VxD, words, sampled)
