"""Format specialization of checkpoints, and of a run's network while it trains.

`training.specialization` has the signs that need no decoding. Here are their figures with intervals
for any checkpoint, and the third sign, the output share: how many outputs on in-context tasks are
in the format of the target task (`evaluation.output_share`; Wang et al., ICLR 2024, arXiv
2211.00635, section 2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import numpy as np

from kaft_promot.decoding import Predictor
from kaft_promot.errors import UserError
from kaft_promot.evaluation import output_share as formats
from kaft_promot.evaluation.statistics import Estimate, bootstrap
from kaft_promot.feeding import DatasetConfig, batch_examples, eval_examples, load_vocabulary
from kaft_promot.infer import load_predictor
from kaft_promot.models import Params, T5Config, flatten, unrolled
from kaft_promot.training import gradient_alignment, token_divergence
from kaft_promot.training.run import gather

_REPLICATES = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputShare:
    """Prompts of in-context tasks, and the format to look for in what a network answers.

    Attributes:
      target: the task whose format it is.
      prompts: token ids of every task's prompts, end token included, by the task's name.
      vocabulary: name or path as in `load_vocabulary`.
      max_decode_length: tokens of an output at most.
    """

    target: str
    prompts: Mapping[str, Sequence[Sequence[int]]]
    vocabulary: str
    max_decode_length: int = 32

    def __call__(self, config: T5Config, params: Params) -> dict[str, float]:
        """`output_share` over all outputs, and `output_share/TASK` where there are several tasks.

        Args:
          config: the network.
          params: its parameters, layers stacked or not.
        """
        hits = self.hits(config, params)
        every = [hit for of_task in hits.values() for hit in of_task]
        found = {"output_share": float(np.mean(every))}
        if len(hits) > 1:
            found |= {f"output_share/{task}": float(np.mean(x)) for task, x in hits.items()}
        return found

    def hits(self, config: T5Config, params: Params) -> dict[str, list[float]]:
        """1.0 for every output that is in the target's format, else 0.0, by task."""
        config, params = unrolled(config, gather(params))
        longest = max(len(prompt) for rows in self.prompts.values() for prompt in rows)
        predictor = Predictor(
            config,
            params,
            load_vocabulary(self.vocabulary),
            max_input_length=longest,
            max_decode_length=self.max_decode_length,
        )
        every = [prompt for rows in self.prompts.values() for prompt in rows]
        outputs = iter(predictor.generate(every))
        return {
            task: formats.in_format([next(outputs) for _ in rows], self.target)
            for task, rows in self.prompts.items()
        }


@gin.configurable
def output_share(
    *,
    target: str | None = None,
    tasks: Sequence[str] = (),
    module: str | None = None,
    split: str = "validation",
    examples: int = 32,
    vocabulary: str | None = None,
    max_input_length: int = 512,
    max_decode_length: int = 32,
) -> OutputShare | None:
    """Reads what an output share is measured on. Needs TensorFlow, unless there are no tasks.

    Args:
      target: the target task, which has a registered format.
      tasks: in-context SeqIO tasks, whose inputs hold their few-shot prompt; none: nothing.
      module: a module of the user's own that registers them.
      split: of the in-context tasks.
      examples: of each task, the first ones.
      vocabulary: name or path as in `load_vocabulary`.
      max_input_length: tokens of a prompt; longer ones are cut.
      max_decode_length: tokens of an output at most.

    Raises:
      UserError: if the target has no format, or a task or its split does not exist.
    """
    if not tasks:
        return None
    if isinstance(tasks, str):
        raise UserError(f"SPECIALIZATION_TASKS = {tasks!r}: give a tuple, such as ('wic', 'rte')")
    if examples < 1:
        raise UserError(f"output_share.examples = {examples}: must be at least 1")
    if target is None or vocabulary is None:
        raise UserError("output_share needs a target task and a vocabulary")
    from kaft_promot.feeding.seqio_door import get_mixture_or_task  # imports TensorFlow

    get_mixture_or_task(target, module)  # its module registers the format
    formats.format_of(target)
    prompts = {}
    for task in tasks:
        dataset = DatasetConfig(
            mixture_or_task_name=task,
            module=module,
            task_feature_lengths={"inputs": max_input_length, "targets": max_decode_length},
            split=split,
            batch_size=1,
        )
        found = eval_examples(dataset, max_examples=examples)
        prompts[task] = [[int(token) for token in example["inputs"]] for example in found]
    return OutputShare(
        target=target,
        prompts=prompts,
        vocabulary=vocabulary,
        max_decode_length=max_decode_length,
    )


def figures(
    checkpoint_path: str,
    dataset: DatasetConfig,
    *,
    base_checkpoint_path: str | None = None,
    share: OutputShare | None = None,
    examples: int = 128,
    seed: int = 0,
    model_config: T5Config | None = None,
    vocabulary: str | None = None,
    **attached: Any,
) -> dict[str, Estimate]:
    """The signs of a checkpoint's specialization on its target task.

    Args:
      checkpoint_path: the tuned network.
      dataset: the target task and its split, `batch_size` examples at a time.
      base_checkpoint_path: what it is compared with; None measures no `kl` and no alignment.
      share: None measures no output share.
      examples: of the target task, the first ones.
      seed: of shuffled targets and of the intervals.
      model_config, vocabulary: as in `infer.load_predictor`.
      **attached: `prompt_path`, `prompt_name` and `lora_path`, which tuned network and base both
        get on the target task. The output share is measured without them.

    Returns:
      `kl` in nats a target token, `n` counting tokens, its interval a bootstrap over examples;
      `alignment_{mlp,query,key,value}`, means over the batches, which `n` counts; `output_share`
      over all outputs, and `output_share/TASK` where there are several tasks. Intervals are None
      where there is a single example or batch.

    Raises:
      UserError: if the checkpoints are not of one network, or there are fewer than two examples.
    """
    found: dict[str, Estimate] = {}
    if base_checkpoint_path is not None:
        tuned, base = (
            load_predictor(path, model_config, vocabulary, **attached)
            for path in (checkpoint_path, base_checkpoint_path)
        )
        _check_one_network(tuned, base, base_checkpoint_path)
        found |= _signs(tuned, base, _batches(tuned.config, dataset, examples), seed)
    if share is not None:
        plain = load_predictor(checkpoint_path, model_config, vocabulary)
        hits = share.hits(plain.config, plain.params)
        every = [hit for of_task in hits.values() for hit in of_task]
        found["output_share"] = bootstrap(every, seed=seed)
        if len(hits) > 1:
            found |= {f"output_share/{task}": bootstrap(x, seed=seed) for task, x in hits.items()}
    return found


def table(found: Mapping[str, Estimate]) -> str:
    """Figures for people, one a line."""
    lines = [f"{'format specialization':30} {'value':>7} {'[95 % interval]':>19} {'n':>7}"]
    for name, figure in found.items():
        ends = "" if figure.low is None else f"[{figure.low:.3f}, {figure.high:.3f}]"
        lines.append(f"{name:30} {figure.value:>7.3f} {ends:>19} {figure.n:>7}")
    return "\n".join(lines)


def _check_one_network(tuned: Predictor, base: Predictor, base_checkpoint_path: str) -> None:
    shapes = [{p: np.shape(x) for p, x in flatten(each.params).items()} for each in (tuned, base)]
    for path in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(path) != shapes[1].get(path):
            raise UserError(
                f"BASE_CHECKPOINT_PATH={base_checkpoint_path} is another network: parameter {path} "
                f"is {shapes[1].get(path, 'absent')} there and {shapes[0].get(path, 'absent')} in "
                "the tuned one"
            )


def _signs(
    tuned: Predictor, base: Predictor, batches: Sequence[Mapping[str, np.ndarray]], seed: int
) -> dict[str, Estimate]:
    kl, weights, aligned = [], [], []
    for batch in batches:
        kl_BxT, weights_BxT = token_divergence(tuned.config, tuned.params, base.params, batch)
        kl.append((kl_BxT * weights_BxT).sum(axis=1))
        weights.append(weights_BxT.sum(axis=1))
        aligned.append(gradient_alignment(tuned.config, tuned.params, batch, seed))
    tokens_N = np.concatenate(weights)
    divergence = _ratio(np.concatenate(kl), tokens_N, seed)
    return {"kl": dataclasses.replace(divergence, n=int(tokens_N.sum()))} | {
        f"alignment_{part}": _ratio(
            np.array([of_batch[part] for of_batch in aligned]), np.ones(len(aligned)), seed
        )
        for part in aligned[0]
    }


def _batches(
    config: T5Config, dataset: DatasetConfig, examples: int
) -> list[dict[str, np.ndarray]]:
    found = eval_examples(dataset, max_examples=examples)
    prefix = list(config.placeholder_ids()) if config.prompt_rows else []
    rows = [{**e, "inputs": [*prefix, *map(int, e["inputs"])]} for e in found[:examples]]
    lengths = {
        "inputs": len(prefix) + int(dataset.task_feature_lengths["inputs"]),
        "targets": int(dataset.task_feature_lengths["targets"]),
    }
    batches = batch_examples(rows, lengths, dataset.batch_size)
    # A row alone has no other targets to be given.
    batches = [batch for batch in batches if len(batch["decoder_target_tokens"]) > 1]
    if not batches:
        raise UserError(
            f"{dataset.mixture_or_task_name}: gradient alignment needs at least 2 examples a batch "
            f"(BATCH_SIZE is {dataset.batch_size}, the split has {len(rows)})"
        )
    return batches


def _ratio(sums_N: np.ndarray, counts_N: np.ndarray, seed: int) -> Estimate:
    """sum(sums) / sum(counts) with the percentile bootstrap's interval over the N units."""
    size = len(sums_N)
    value = float(sums_N.sum() / max(counts_N.sum(), 1e-6))
    if size < 2:
        return Estimate(value=value, low=None, high=None, n=size, clusters=size)
    drawn = np.random.default_rng(seed).integers(0, size, (_REPLICATES, size))
    ratios = sums_N[drawn].sum(axis=1) / np.maximum(counts_N[drawn].sum(axis=1), 1e-6)
    low, high = (float(x) for x in np.quantile(ratios, [0.025, 0.975]))
    return Estimate(value=value, low=low, high=high, n=size, clusters=size)
