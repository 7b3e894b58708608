"""Feeding: SeqIO tasks and mixtures by name, to batches of numpy arrays.

SeqIO defines what an example is, Grain decides which examples form a batch. Only running a task
needs TensorFlow (`seqio_door`, `jsonl_task`); vocabularies, token stores and batches do not.
"""

from kaft_promot.feeding.dataset import (
    DatasetConfig,
    TrainIterator,
    eval_examples,
    train_iterator,
)
from kaft_promot.feeding.demonstrations import Demonstrations
from kaft_promot.feeding.features import batch_examples
from kaft_promot.feeding.prompts import PromptIds
from kaft_promot.feeding.saved import save_batches, save_tokens
from kaft_promot.feeding.vocabulary import (
    ByteVocabulary,
    SentencePieceVocabulary,
    Vocabulary,
    load_vocabulary,
    task_vocabulary,
)

__all__ = [
    "ByteVocabulary",
    "DatasetConfig",
    "Demonstrations",
    "PromptIds",
    "SentencePieceVocabulary",
    "TrainIterator",
    "Vocabulary",
    "batch_examples",
    "eval_examples",
    "load_vocabulary",
    "save_batches",
    "save_tokens",
    "task_vocabulary",
    "train_iterator",
]
