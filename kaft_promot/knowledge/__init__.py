"""Knowledge: from question files to KAFT records (Li et al., Findings of ACL 2023).

The way through the room: `readers` turn a data set's files into `QAExample`s; `probe` asks the
base model every question closed book; `corpus` indexes the whole input once; `proposers` and
`irrelevant` choose counterfactual answers and irrelevant contexts; `spans` finds and replaces
mentions; `augmenter` makes the records of one example; `records` checks them at the door.
`augment.augment_file` and `probe.probe_file` are what the command line calls.
"""

from kaft_promot.knowledge.augment import augment, augment_file
from kaft_promot.knowledge.augmenter import Settings
from kaft_promot.knowledge.corpus import CorpusIndex
from kaft_promot.knowledge.files import Rejects
from kaft_promot.knowledge.location import kaft_records
from kaft_promot.knowledge.probe import probe, probe_file, read_answers
from kaft_promot.knowledge.readers import FORMATS, read_examples
from kaft_promot.knowledge.records import (
    KaftRecord,
    QAExample,
    RecordError,
    Substitution,
    read_records,
    write_records,
)
from kaft_promot.knowledge.targets import KINDS, format_input, format_target, split_source

__all__ = [
    "FORMATS",
    "KINDS",
    "CorpusIndex",
    "KaftRecord",
    "QAExample",
    "RecordError",
    "Rejects",
    "Settings",
    "Substitution",
    "augment",
    "augment_file",
    "format_input",
    "format_target",
    "kaft_records",
    "probe",
    "probe_file",
    "read_answers",
    "read_examples",
    "read_records",
    "split_source",
    "write_records",
]
