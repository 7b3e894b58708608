"""Text in, text out: the one door through which the other rooms decode."""

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import gin
import jax
import numpy as np
import tqdm

from kaft_promot.decoding import programs
from kaft_promot.decoding.batching import Group, bucket_length, group_by_length, pad
from kaft_promot.decoding.beam import Penalty, check_beam_options
from kaft_promot.decoding.loop import EOS_ID, PAD_ID
from kaft_promot.errors import UserError
from kaft_promot.models import T5Config, logical_axes
from kaft_promot.scale.memory import give_back_memory
from kaft_promot.scale.mesh import (
    MeshConfig,
    batch_sharding,
    local_mesh,
    mesh_of,
    param_shardings,
    row_parts,
)

if TYPE_CHECKING:
    from kaft_promot.feeding.vocabulary import Vocabulary

Prompt = str | Sequence[int]
METHODS = ("greedy", "sample", "beam")
MIN_TARGET_LENGTH = 8

logger = logging.getLogger(__name__)


@gin.configurable(denylist=["config", "params", "vocabulary", "prefix"])
class Predictor:
    """Decodes and scores prompts of any number and length with few compiled programs.

    Prompts are sorted by length, padded to few shapes (lengths: powers of two from 32; rows:
    `batch_size`), decoded, and come back in the caller's order. Predictors of the same
    configuration and options share their programs, whatever their parameters.

    A prompt is a text, which gets the end token behind it as T5's inputs have it, or a list of
    token ids, which is taken as it is (soft-prompt placeholders may stand in it).

    Prompts of more than `max_input_length` tokens are cut at their end, the end token kept, and
    their number is logged as a warning and added to `truncated`; with `on_long_input='error'` they
    are a UserError instead, before anything is decoded. Targets to score are never cut.

    Args:
      config: the model's configuration.
      params: its parameters.
      vocabulary: a `kaft_promot.feeding.Vocabulary`.
      prefix: token ids in front of every prompt, such as a soft prompt's placeholders
        (`config.placeholder_ids()`). They cost their own positions and no padding.
      batch_size: rows of a batch, rounded up to a multiple of the parts that devices share it in.
      max_input_length: tokens of a prompt at most, end token included, `prefix` not.
      max_decode_length: tokens to make at most, end token included.
      method: 'greedy', 'sample' or 'beam' (the best hypothesis is returned).
      num_beams, alpha, penalty: for 'beam', see `programs.beam_search`.
      temperature, top_k, top_p: for 'sample', see `programs.sample`.
      seed: for 'sample'. A prompt's draws come from (seed, its id), see `generate`.
      on_long_input: 'truncate' or 'error'.
      mesh_config: how devices share the work, see `scale.mesh.local_mesh`: parameters are divided
        over fsdp and tensor, rows over data (and fsdp, where XLA may gather them for the cache).
        Parameters that lie on a mesh already, as a run's own do, stay on it.

    Attributes:
      truncated: number of prompts that were cut so far.

    Raises:
      UserError: for an option outside its range, a vocabulary that has more ids than the model, or
        a mesh that does not use each device once.

    Example:
      >>> predictor = Predictor(config, params, vocabulary, max_decode_length=16)  # doctest: +SKIP
      >>> predictor.generate(["question: who wrote Faust?"])  # doctest: +SKIP
      ['Johann Wolfgang von Goethe (empty context)']
    """

    def __init__(
        self,
        config: T5Config,
        params: programs.Params,
        vocabulary: "Vocabulary",
        *,
        prefix: Sequence[int] = (),
        batch_size: int = 64,
        max_input_length: int = 512,
        max_decode_length: int = 32,
        method: Literal["greedy", "sample", "beam"] = "greedy",
        num_beams: int = 4,
        alpha: float = 0.6,
        penalty: Penalty = "t5x",
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        on_long_input: Literal["truncate", "error"] = "truncate",
        mesh_config: MeshConfig = MeshConfig(),  # noqa: B008
    ) -> None:
        if method not in METHODS:
            raise UserError(f"Predictor.method must be one of {METHODS}, not {method!r}")
        if on_long_input not in ("truncate", "error"):
            raise UserError(
                f"Predictor.on_long_input must be 'truncate' or 'error', not {on_long_input!r}"
            )
        for name, value in (
            ("batch_size", batch_size),
            ("max_input_length", max_input_length),
            ("max_decode_length", max_decode_length),
        ):
            if value < 1:
                raise UserError(f"Predictor.{name} must be at least 1, not {value}")
        check_beam_options(num_beams, alpha, penalty)
        programs.check_sampling_options(temperature, top_k, top_p)
        if vocabulary.vocab_size > config.vocab_size:
            raise UserError(
                f"the vocabulary has {vocabulary.vocab_size} ids, the model only "
                f"{config.vocab_size}: they do not belong together"
            )
        self.config = config
        self._mesh = mesh_of(params) or local_mesh(mesh_config)
        self.params = jax.device_put(
            params, param_shardings(params, logical_axes(params), self._mesh)
        )
        self.vocabulary = vocabulary
        self._prefix = np.asarray(prefix, np.int32)
        if len(prefix):
            self._check_ids("prefix", [prefix], config.vocab_size + config.prompt_rows)
        self.batch_size = batch_size
        self.max_input_length = max_input_length
        self.max_decode_length = max_decode_length
        self.method = method
        self.truncated = 0
        self._beam_options: dict[str, Any] = {
            "num_beams": num_beams,
            "alpha": alpha,
            "penalty": penalty,
        }
        self._sampling_options: dict[str, Any] = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        self._seed = seed
        self._on_long_input = on_long_input

    @property
    def decoding(self) -> str:
        """All settings that outputs depend on: `beam num_beams=4 ..., 512 -> 32 tokens`."""
        options: dict[str, Any] = {
            "greedy": {},
            "beam": self._beam_options,
            "sample": {**self._sampling_options, "seed": self._seed},
        }[self.method]
        named = " ".join([self.method, *(f"{name}={value}" for name, value in options.items())])
        return f"{named}, {self.max_input_length} -> {self.max_decode_length} tokens"

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        ids: Sequence[str] | None = None,
        progress: bool = False,
    ) -> list[str]:
        """The decoded text of each prompt, in the order of `prompts`; see `generate_tokens`."""
        tokens = self.generate_tokens(prompts, ids=ids, progress=progress)
        return [self.vocabulary.decode(row) for row in tokens]

    def generate_tokens(
        self,
        prompts: Sequence[Prompt],
        *,
        ids: Sequence[str] | None = None,
        progress: bool = False,
    ) -> list[list[int]]:
        """The decoded token ids of each prompt, in the order of `prompts`.

        Args:
          prompts: texts or lists of token ids.
          ids: for sampling, the prompts' names: a prompt draws the same under the same name and
            seed, whatever the order and the other prompts. By default its tokens are its name, with
            the count of its earlier occurrences.
          progress: whether to show a progress bar, in prompts.

        Returns:
          Ids up to the end token, which is left out like padding.

        Raises:
          UserError: a prompt is empty, has an id that the model does not know, or is too long where
            that is an error.
        """
        inputs = self._encode_prompts(prompts)
        keys = self._keys(inputs, ids) if self.method == "sample" else None
        decoded: list[list[int]] = [[] for _ in inputs]
        lengths = [len(row) for row in inputs]
        bar = tqdm.tqdm(total=len(inputs), desc="decode", disable=not progress)
        with bar, _compilers_memory_returned():
            for rows, batch_size in self._groups(lengths):
                length = bucket_length(lengths[rows[0]], largest=self.max_input_length)
                batch_BxL = self._behind_prefix(pad([inputs[i] for i in rows], batch_size, length))
                keys_B = None
                if keys is not None:
                    keys_B = np.zeros((batch_size, 2), np.uint32)
                    keys_B[: len(rows)] = keys[rows]
                for i, tokens_T in zip(rows, self._decode(batch_BxL, keys_B), strict=False):
                    decoded[i] = _until_end(tokens_T)
                bar.update(len(rows))
        return decoded

    def score(
        self,
        prompts: Sequence[Prompt],
        targets: Sequence[Prompt],
        *,
        progress: bool = False,
    ) -> np.ndarray:
        """The log-likelihood of each target given its prompt.

        Args:
          prompts: texts or lists of token ids.
          targets: as many texts or lists of token ids; a text gets the end token behind it.
          progress: whether to show a progress bar, in pairs.

        Returns:
          float32 [N]: natural log probability, summed over the target's tokens, end token included.

        Raises:
          UserError: as `generate_tokens`; or the numbers of prompts and targets differ.
        """
        if len(prompts) != len(targets):
            raise UserError(f"score: {len(prompts)} prompts but {len(targets)} targets")
        inputs = self._encode_prompts(prompts)
        outputs = [self._encode(target) for target in targets]
        self._check_ids("target", outputs, self.config.vocab_size)
        scores_N = np.zeros(len(inputs), np.float32)
        # Targets are never cut, so each pair's cost is its whole length.
        sizes = [len(x) + len(y) for x, y in zip(inputs, outputs, strict=True)]
        bar = tqdm.tqdm(total=len(inputs), desc="score", disable=not progress)
        with bar, _compilers_memory_returned():
            for rows, batch_size in self._groups(sizes):
                length = max(len(inputs[i]) for i in rows)
                length = bucket_length(length, largest=self.max_input_length)
                target_length = bucket_length(
                    max(len(outputs[i]) for i in rows), smallest=MIN_TARGET_LENGTH
                )
                scores_B = programs.score(
                    self.config,
                    self.params,
                    self._shared(
                        self._behind_prefix(pad([inputs[i] for i in rows], batch_size, length))
                    ),
                    self._shared(pad([outputs[i] for i in rows], batch_size, target_length)),
                )
                scores_N[rows] = np.asarray(scores_B)[: len(rows)]
                bar.update(len(rows))
        return scores_N

    def _groups(self, lengths: Sequence[int]) -> Iterator[Group]:
        return group_by_length(lengths, self.batch_size, row_parts(self._mesh))

    def _shared(self, rows_B: np.ndarray) -> jax.Array:
        """Rows as the mesh's devices share them."""
        return jax.device_put(rows_B, batch_sharding(self._mesh))

    def _decode(self, batch_BxL: np.ndarray, keys_B: np.ndarray | None) -> np.ndarray:
        arguments = (self.config, self.params, self._shared(batch_BxL), self.max_decode_length)
        if self.method == "beam":
            return np.asarray(programs.beam_search(*arguments, **self._beam_options).tokens[:, -1])
        if keys_B is None:
            return np.asarray(programs.greedy(*arguments).tokens)
        key = jax.random.wrap_key_data(self._shared(keys_B), impl="threefry2x32")
        return np.asarray(programs.sample(*arguments, key=key, **self._sampling_options).tokens)

    def _behind_prefix(self, batch_BxL: np.ndarray) -> np.ndarray:
        """The batch with the prefix in front of its rows; rows of padding stay padding."""
        prefix_BxP = self._prefix * (batch_BxL[:, :1] > 0)
        return np.concatenate([prefix_BxP, batch_BxL], axis=1, dtype=np.int32)

    def _encode(self, text: Prompt) -> list[int]:
        if isinstance(text, str):
            return [*self.vocabulary.encode(text), EOS_ID]
        return [int(i) for i in text]

    def _encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        inputs = [self._encode(prompt) for prompt in prompts]
        self._check_ids("prompt", inputs, self.config.vocab_size + self.config.prompt_rows)
        too_long = [i for i, row in enumerate(inputs) if len(row) > self.max_input_length]
        if too_long:
            first = too_long[0]
            found = (
                f"{len(too_long)} of {len(inputs)} prompts are longer than "
                f"max_input_length={self.max_input_length} tokens (the first is number {first} "
                f"with {len(inputs[first])})"
            )
            if self._on_long_input == "error":
                raise UserError(f"{found}: shorten them or raise Predictor.max_input_length")
            logger.warning("%s; their ends were cut off", found)
            self.truncated += len(too_long)
        for i in too_long:
            kept = self.max_input_length - (inputs[i][-1] == EOS_ID)
            inputs[i] = inputs[i][:kept] + [EOS_ID] * (self.max_input_length - kept)
        return inputs

    def _check_ids(self, what: str, rows: Sequence[Sequence[int]], limit: int) -> None:
        for i, row in enumerate(rows):
            if not row:
                raise UserError(f"{what} number {i} has no tokens")
            if min(row) <= PAD_ID or max(row) >= limit:
                bad = next(token for token in row if not PAD_ID < token < limit)
                raise UserError(
                    f"{what} number {i} has token id {bad}; this model takes ids 1 to {limit - 1}"
                )

    def _keys(self, inputs: Sequence[Sequence[int]], ids: Sequence[str] | None) -> np.ndarray:
        """uint32 [N, 2], one random key a prompt, from the seed and the prompt's name."""
        if ids is None:
            earlier: Counter[bytes] = Counter()
            names = []
            for row in inputs:
                tokens = np.asarray(row, "<i4").tobytes()
                names.append(tokens + b"#%d" % earlier[tokens])
                earlier[tokens] += 1
        elif len(ids) != len(inputs):
            raise UserError(f"generate: {len(inputs)} prompts but {len(ids)} ids")
        else:
            names = [name.encode() for name in ids]
        seed = b"%d:" % self._seed
        digests = [hashlib.blake2b(seed + name, digest_size=8).digest() for name in names]
        return np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2)


@contextlib.contextmanager
def _compilers_memory_returned() -> Iterator[None]:
    """Gives freed memory back to the system if the body compiled a program."""
    before = programs.trace_counts()
    yield
    if programs.trace_counts() != before:
        give_back_memory()


def _until_end(tokens_T: np.ndarray) -> list[int]:
    row = tokens_T.tolist()
    if EOS_ID in row:
        row = row[: row.index(EOS_ID)]
    return [token for token in row if token != PAD_ID]
