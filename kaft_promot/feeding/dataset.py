"""Configuration of a training input, and the iterator over its batches.

    cfg = DatasetConfig(mixture_or_task_name="kaft", task_feature_lengths={"inputs": 256,
                        "targets": 32}, batch_size=64, seed=0, pack=True)
    batches = train_iterator(cfg)
    batch = next(batches)              # dict of int32 arrays, see features.py
    state = batches.get_state()        # bytes; a new iterator's set_state(state) continues here

The path of the tokens: a SeqIO task is run once (seqio_door.py, the only part that needs
TensorFlow) into a token store (token_store.py); Grain shuffles, mixes, packs and batches the
stores (pipeline.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gin

from kaft_promot.errors import UserError
from kaft_promot.feeding import pipeline, saved
from kaft_promot.feeding.demonstrations import Demonstrations, with_demonstrations
from kaft_promot.feeding.features import FEATURES, Batch
from kaft_promot.feeding.prompts import PromptIds, check_batches, with_prompts


@gin.configurable(module="kaft_promot.feeding")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What to train on, in T5X's words.

    Args:
        mixture_or_task_name: a SeqIO task or mixture.
        task_feature_lengths: token length of `inputs` and `targets`; longer examples are cut.
        split: split of the task; tasks of a mixture that lack it are left out, as in SeqIO.
        batch_size: rows of the global batch; the number of processes must divide it.
        shuffle: reshuffle every task in every epoch.
        seed: of shuffling and of random preprocessors; None draws one (kept in the iterator's
            state).
        pack: put several examples in a row, with segment ids and positions.
        module: Python module to import first; it registers the task (MIXTURE_OR_TASK_MODULE).
        use_cached: read the task's offline cache (seqio_cache_tasks, seqio.add_global_cache_dirs);
            tasks without a cache placeholder are run, as in SeqIO.
        num_epochs: passes over each task; None for ever. A run whose unpacked data ended goes on
            with more of them.
        cache_dir: folder that keeps tokens between runs, keyed by the task, its source files,
            split, lengths, vocabulary and preprocessors (their code, and the values that they
            hold; where one cannot be told, nothing is kept); None keeps them in memory for this
            run only.
        saved: read tokens from a folder written by `save_tokens`, or batches from a `.npz` file
            written by `save_batches`, instead of running the task. Needs no TensorFlow.
        prefetch: batches prepared ahead by a thread.
        prompts: soft prompts whose placeholder ids stand in front of the inputs, in the lengths
            above; None for none.
        demonstrations: put a solved example of the task in front of each training input, behind its
            soft prompt; None for none.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str = "train"
    batch_size: int
    shuffle: bool = True
    seed: int | None = 0
    pack: bool = False
    module: str | None = None
    use_cached: bool = False
    num_epochs: int | None = None
    cache_dir: str | None = None
    saved: str | None = None
    prefetch: int = 2
    prompts: PromptIds | None = None
    demonstrations: Demonstrations | None = None


class TrainIterator(Iterator[Batch]):
    """Batches of one process; made by `train_iterator`.

    Args:
        build: makes the batches for a seed: a Grain dataset (or anything whose iterators have
            `get_state` and `set_state`).
        seed: the seed to start with.
        fingerprint: digest of what decides the batches but the seed; a state is only accepted by
            an iterator of the same fingerprint.
        packed: whether rows are packed, so that positions must be found by running through, and
            the last rows depend on where the data end.
    """

    def __init__(self, build: Callable[[int], Any], *, seed: int, fingerprint: str, packed: bool):
        self._build, self._fingerprint, self.packed = build, fingerprint, packed
        self._start(seed)

    def _start(self, seed: int) -> None:
        self._seed, self._step = seed, 0
        self._open = [iter(self._build(seed))]
        # A prefetching thread that outlives the interpreter aborts the process, so at its exit
        # the Grain iterator is closed and dropped while Grain's modules are still there.
        self._closer = weakref.finalize(self, lambda box: box.pop().close(), self._open)

    @property
    def _batches(self) -> Any:
        if not self._open:
            raise ValueError("this iterator has been closed")
        return self._open[0]

    @property
    def step(self) -> int:
        """Batches given since the beginning of the data, earlier runs included."""
        return self._step

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._step += 1
        return batch

    def get_state(self) -> bytes:
        """The position, as a short JSON text. The same for every process of a run."""
        return json.dumps(
            {
                "fingerprint": self._fingerprint,
                "seed": self._seed,
                "step": self._step,
                "position": self._batches.get_state(),
            }
        ).encode()

    def set_state(self, state: bytes) -> None:
        """Continue where another iterator's `get_state` was taken.

        Raises:
            UserError: the state belongs to other data or another layout, or lies beyond the end.
        """
        try:
            found = json.loads(state)
            fingerprint, seed, step = found["fingerprint"], found["seed"], found["step"]
            position = found["position"]
        except (ValueError, KeyError, TypeError) as e:
            raise UserError("the checkpoint's input position cannot be read") from e
        if fingerprint != self._fingerprint:
            raise UserError(
                "the checkpoint's input position belongs to other data: the task, its examples, "
                "TASK_FEATURE_LENGTHS, batch size, packing or shuffling has changed; use the "
                "same settings or another MODEL_DIR"
            )
        if seed != self._seed:
            self.close()
            self._start(seed)
        try:
            self._batches.set_state(position)
        except IndexError as e:
            raise UserError(
                f"the checkpoint's input position, after {step} batches, lies beyond the end of "
                "the data: raise DatasetConfig.num_epochs to what it was, or set it to None"
            ) from e
        self._step = step

    def skip(self, batches: int) -> None:
        """Go forward as if this many batches had been taken.

        Without packing this takes no time; packed batches are made and dropped.

        Raises:
            StopIteration: there are not so many.
        """
        if self.packed:
            for _ in range(batches):
                next(self)
            return
        position = self._batches.get_state()
        try:
            self._batches.set_state({**position, "next_index": position["next_index"] + batches})
        except IndexError as e:
            raise StopIteration from e
        self._step += batches

    def close(self) -> None:
        """Stop prefetching. Also done at exit, and when the iterator is forgotten."""
        self._closer()


def train_iterator(
    cfg: DatasetConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
    fill_last: bool = False,
) -> TrainIterator:
    """Batches of a mixture for one of `process_count` processes.

    All processes together see the same global batches for any number of processes; process i has
    the i-th contiguous part of their rows.

    Args:
        cfg: what to read.
        process_index: this process.
        process_count: how many processes share each batch.
        fill_last: fill the last batch of finite epochs with rows of padding, which weigh nothing,
            so that every example is seen, as evaluations want; False leaves out what makes no full
            batch, as training wants. Batches from a file are whole as they are.

    Raises:
        UserError: unknown task or split, no examples, missing feature lengths, a batch that the
            processes cannot share, or no full batch in `num_epochs` without `fill_last`.
    """
    _check(cfg, process_index, process_count)
    if cfg.seed is None and process_count > 1 and cfg.shuffle:
        raise UserError("DatasetConfig.seed must be set when more than one process trains")
    seed = cfg.seed if cfg.seed is not None else secrets.randbits(32)
    layout = pipeline.Layout(
        feature_lengths={k: int(v) for k, v in cfg.task_feature_lengths.items()},
        batch_size=cfg.batch_size,
        pack=cfg.pack,
        fill_last=fill_last,
        process_index=process_index,
        process_count=process_count,
    )
    if cfg.saved and str(cfg.saved).endswith(".npz"):
        if cfg.demonstrations:
            raise UserError(
                f"DatasetConfig.demonstrations cannot be put into saved batches ({cfg.saved}): "
                "save the batches with them, then leave the setting out"
            )
        stored = saved.load_batches(cfg.saved, layout)
        if cfg.prompts:
            check_batches(stored.arrays["encoder_input_tokens"], cfg.prompts, cfg.saved)
        fingerprint = _digest("batches", stored.digest, None)
        return TrainIterator(
            lambda _: stored.dataset(layout.rows, cfg.num_epochs, cfg.prefetch),
            seed=seed,
            fingerprint=fingerprint,
            packed=False,
        )
    sources = open_sources(cfg)
    if cfg.demonstrations:
        room = layout.feature_lengths["inputs"]
        if cfg.prompts:
            room = cfg.prompts.room(layout.feature_lengths)
        sources = with_demonstrations(sources, cfg.demonstrations, room)
    if cfg.prompts:
        cfg.prompts.check_used([source.name for source in sources])
        sources = with_prompts(sources, cfg.prompts, layout.feature_lengths)

    def build(seed: int) -> Any:
        data = pipeline.examples(
            sources, seed=seed if cfg.shuffle else None, num_epochs=cfg.num_epochs
        )
        always = cfg.num_epochs is None or fill_last
        rows = cfg.batch_size if always else pipeline.first_rows(data, layout)
        if rows < cfg.batch_size:
            raise UserError(
                f"{cfg.mixture_or_task_name} gives no full batch: its {len(data)} examples in "
                f"{cfg.num_epochs} epoch(s) fill {rows} rows, fewer than one batch of "
                f"{cfg.batch_size}: lower BATCH_SIZE or leave DatasetConfig.num_epochs unset"
            )
        return pipeline.batches(data, layout, seed=seed, prefetch=cfg.prefetch)

    # Where unpacked data end changes no batch before, so that a run whose data ended goes on with
    # more epochs (their number is taken as None). The last packed rows hold what is left.
    fingerprint = _digest(
        [(s.name, s.rate, len(s.store), _content(s)) for s in sources],
        sorted(layout.feature_lengths.items()),
        [cfg.batch_size, cfg.pack, cfg.shuffle, cfg.num_epochs if cfg.pack else None],
    )
    return TrainIterator(build, seed=seed, fingerprint=fingerprint, packed=cfg.pack)


def open_sources(cfg: DatasetConfig) -> list[pipeline.Source]:
    """The token stores and rates of a configuration, from disk or by running its tasks."""
    if cfg.saved:
        return saved.load_tokens(cfg.saved, cfg)
    from kaft_promot.feeding import seqio_door  # the only way to TensorFlow

    return seqio_door.token_sources(cfg)


def eval_examples(
    cfg: DatasetConfig, *, max_examples: int | None = None, raw: bool = False
) -> list[dict[str, Any]]:
    """Examples of a task or mixture in order, with tokens and every text field.

    Args:
        cfg: `batch_size`, `shuffle` and packing play no part here.
        max_examples: of each task; None for all.
        raw: whether to add the example as SeqIO gives it (bytes, numpy) under `raw`.

    Returns:
        One dict an example: `task` (its name), token ids as int32 arrays (`inputs` behind their
        prompt, if `cfg.prompts` gives one), and the task's other fields (`inputs_pretokenized`,
        `targets_pretokenized`, ids, ...) as Python values.
    """
    if cfg.demonstrations:
        raise UserError(
            "DatasetConfig.demonstrations are for training; to evaluate few-shot, use a task whose "
            "inputs are few-shot"
        )
    from kaft_promot.feeding import seqio_door

    return seqio_door.eval_examples(cfg, max_examples=max_examples, raw=raw)


def _check(cfg: DatasetConfig, process_index: int, process_count: int) -> None:
    if not isinstance(cfg.batch_size, int) or cfg.batch_size < 1:
        raise UserError(f"DatasetConfig.batch_size is {cfg.batch_size!r}; it must be at least 1")
    if not 0 <= process_index < process_count:
        raise UserError(f"process {process_index} of {process_count} does not exist")
    if cfg.batch_size % process_count:
        raise UserError(
            f"DatasetConfig.batch_size {cfg.batch_size} cannot be shared by {process_count} "
            f"processes: make it a multiple of {process_count}"
        )
    if cfg.seed is not None and not 0 <= cfg.seed < 2**32:
        raise UserError(f"DatasetConfig.seed is {cfg.seed}; it must be from 0 to 2**32 - 1")
    if cfg.num_epochs is not None and cfg.num_epochs < 1:
        raise UserError(f"DatasetConfig.num_epochs is {cfg.num_epochs}; it must be at least 1")
    if cfg.prefetch < 0:
        raise UserError(f"DatasetConfig.prefetch is {cfg.prefetch}; it must not be negative")
    check_lengths(cfg)


def check_lengths(cfg: DatasetConfig) -> None:
    """Every feature of the encoder-decoder has a positive length, and nothing else has one."""
    lengths = cfg.task_feature_lengths
    for name in FEATURES:
        if name not in lengths:
            raise UserError(
                f"DatasetConfig.task_feature_lengths (TASK_FEATURE_LENGTHS) has no length for "
                f"{name!r}: give both, as in {{'inputs': 512, 'targets': 128}}"
            )
    for name, length in lengths.items():
        if name not in FEATURES:
            raise UserError(
                f"DatasetConfig.task_feature_lengths (TASK_FEATURE_LENGTHS) names {name!r}; the "
                f"features are {' and '.join(FEATURES)}"
            )
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise UserError(
                f"DatasetConfig.task_feature_lengths (TASK_FEATURE_LENGTHS) gives {name!r} the "
                f"length {length!r}; it must be a whole number above 0"
            )


def _content(source: pipeline.Source) -> str:
    """Digest of a source's ids, thinned to at most about 4,000 examples for speed."""
    store, digest = source.store, hashlib.sha256()
    for i in range(0, len(store), max(1, len(store) // 4000)):
        for ids in store[i].values():
            digest.update(ids.tobytes())
            digest.update(b"|")
    return digest.hexdigest()[:16]


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
