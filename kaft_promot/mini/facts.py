"""Facts of T-REx: sentences that name both ends of a triple, and what mini may know of each.

T-REx (Elsahar et al., LREC 2018) aligns Wikidata triples (CC0) with Wikipedia sentences (CC
BY-SA). A `Fact` is one triple with the sentences that hold its subject's and its object's label as
whole words.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kaft_promot.errors import UserError
from kaft_promot.knowledge import files
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.relations import RELATIONS

# Splits of facts. Remembered facts are in mini's closed-book training; no remembered fact is ever
# contradicted there.
REMEMBERED_TRAIN = "remembered_train"  # any fine-tuning arm may use it
REMEMBERED_VALIDATION = "remembered_validation"  # hyper-parameters are chosen on it
# The quickstart's test: in no fine-tuning arm, its sentences in no training.
REMEMBERED_TEST = "remembered_test"
READING_TRAIN = "reading_train"  # read, never asked closed book
READING_VALIDATION = "reading_validation"  # in no training in any form
READING_TEST = "reading_test"  # in no training in any form
SHIPPED_SPLITS = (
    REMEMBERED_TRAIN,
    REMEMBERED_VALIDATION,
    REMEMBERED_TEST,
    READING_VALIDATION,
    READING_TEST,
)
REMEMBERED = (REMEMBERED_TRAIN, REMEMBERED_VALIDATION, REMEMBERED_TEST)
# Splits whose sentences no training holds.
UNREAD = (REMEMBERED_TEST, READING_VALIDATION, READING_TEST)

# Objects of these relations are nearly all the same, or the sentence hardly ever states the
# relation.
NOT_REMEMBERED = frozenset({"P30", "P138", "P140", "P264", "P279", "P361"})
WHOLE_SENTENCE = re.compile(r"""["'“‘]?[A-Z0-9].*[^.](?<! \w)(?<!translit)[.!?]["'”’]?$""")
MIN_CHARS, MAX_CHARS, MAX_ANSWER_WORDS = 30, 200, 3
SHIPPED = Path(__file__).parents[1] / "assets" / "quickstart" / "facts.jsonl.gz"
MAX_MENTIONS = 12  # a remembered subject that more sentences name is hardly a name ("Thomas")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One triple with its sentences; each of them holds `answer`, the object's label."""

    id: str
    relation: str
    subject: str
    answer: str
    subject_uri: str
    object_uri: str
    sentences: tuple[str, ...]
    split: str = READING_TRAIN

    @property
    def sentence(self) -> str:
        """The first sentence: the context that evaluation uses."""
        return self.sentences[0]

    def question(self, wording: int = 0) -> str:
        """The question in wording number `wording`; 0 is the canonical one."""
        return RELATIONS[self.relation].question(self.subject, wording)


def clean_sentence(text: str, keep: Sequence[str]) -> str:
    """One line of text without the bracketed asides that hold none of `keep`."""
    text = " ".join(text.replace("\ufeff", " ").split())

    def aside(match: re.Match[str]) -> str:
        return match.group() if any(name in match.group() for name in keep) else ""

    return re.sub(r"\s*(\([^()]*\)|\[[^\[\]]*\])", aside, text).strip()


def find_words(needle: str, text: str) -> list[int]:
    """Starts of `needle` in `text` where it is not part of a longer word."""
    starts, start = [], text.find(needle)
    while start >= 0:
        end = start + len(needle)
        if not (start and _in_word(text[start - 1])) and not (
            end < len(text) and _in_word(text[end])
        ):
            starts.append(start)
        start = text.find(needle, end)
    return starts


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def names_both_ends(sentence: str, subject: str, answer: str) -> bool:
    """Whether subject and answer stand in the sentence, the answer outside the subject's name."""
    if not find_words(subject, sentence) or find_words(answer, subject):
        return False
    return bool(find_words(answer, sentence.replace(subject, "\0")))


def read_rows(directory: str | Path) -> Iterator[dict]:
    """Rows of every `trex*.jsonl.gz` (or `.jsonl`) file in `directory`, in LAMA's form."""
    paths = sorted(Path(directory).glob("trex*.jsonl*"))
    if not paths:
        raise UserError(f"{directory}: no trex*.jsonl.gz here; give the folder of the T-REx files")
    needed = ("id", "relation", "sub_label", "obj_label", "sub_uri", "obj_uri", "evidence")
    for path in paths:
        yield from json_rows(path, needed)


def json_rows(path: str | Path, needed: Sequence[str]) -> Iterator[dict]:
    """The JSON objects of a file's lines, plain or gzip, which all have the fields `needed`.

    Raises:
      UserError: the file cannot be read, or a line is no such object; names file and line.
    """
    for place, row in files.read_jsonl(path, files.Rejects(strict=True)):
        for field in needed:
            if field not in row:
                raise UserError(f"{place}: the row has no {field!r}")
        yield row


def read_facts(directory: str | Path) -> list[Fact]:
    """Every T-REx triple that has at least one usable sentence. No splits yet."""
    facts = []
    for row in read_rows(directory):
        subject, label = row["sub_label"].strip(), row["obj_label"].strip()
        relation = row["relation"]
        if relation not in RELATIONS or len(label.split()) > MAX_ANSWER_WORDS:
            continue
        sentences = []
        for evidence in row["evidence"]:
            text = clean_sentence(evidence["text"], (subject, label))
            if MIN_CHARS <= len(text) <= MAX_CHARS and names_both_ends(text, subject, label):
                sentences.append(text)
        if sentences:
            facts.append(
                Fact(
                    id=row["id"],
                    relation=relation,
                    subject=subject,
                    answer=label,
                    subject_uri=row["sub_uri"],
                    object_uri=row["obj_uri"],
                    sentences=tuple(dict.fromkeys(sentences)),
                )
            )
    return facts


def unambiguous(facts: Sequence[Fact]) -> list[Fact]:
    """Facts with one object in a one-valued relation, and no rival in their sentences.

    A rival is another object of the same answer type: a reader could not know whether "Ghent" or
    "Antwerp" is meant by the coarse question "What region is ... in?".
    """
    objects: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    pools: defaultdict[str, set[str]] = defaultdict(set)
    for fact in facts:
        objects[fact.subject, fact.relation].add(fact.answer)
        pools[RELATIONS[fact.relation].answer_type].add(fact.answer)
    found = []
    for fact in facts:
        relation = RELATIONS[fact.relation]
        if not relation.one_valued or len(objects[fact.subject, fact.relation]) > 1:
            continue
        pool = pools[relation.answer_type]
        clear = tuple(
            s
            for s in fact.sentences
            if WHOLE_SENTENCE.match(s)
            and not any(
                p in pool and p != fact.answer for p in phrases(s.replace(fact.subject, "\0"))
            )
        )
        if clear:
            found.append(replace(fact, sentences=clear))
    return found


def phrases(sentence: str, longest: int = MAX_ANSWER_WORDS) -> Iterator[str]:
    """All runs of one to `longest` words of a sentence, without the punctuation at their ends."""
    words = re.findall(r"[\w'’.&-]*\w", sentence)
    for length in range(1, longest + 1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Numbers of facts; whatever is left is `reading_train`."""

    remembered_train: int = 1900
    remembered_validation: int = 250
    remembered_test: int = 650
    reading_validation: int = 150
    reading_test: int = 500
    per_object: int = 32  # remembered facts of one relation that share an object
    per_relation: int = 320  # remembered facts of one relation
    reading_per_object: int = 20  # the same two for facts held out of reading
    reading_per_relation: int = 80


DEFAULT_SIZES = SplitSizes()


def split_facts(facts: Sequence[Fact], seed: int, sizes: SplitSizes = DEFAULT_SIZES) -> list[Fact]:
    """Gives every fact its split.

    Held-out reading facts have a subject that no other sentence names. A fact that shares a
    sentence with an unread split loses that sentence (and disappears with its last one), so that
    no unread sentence is trained on.
    """
    rng = random.Random(f"{seed} split")
    clear = unambiguous(facts)
    rng.shuffle(clear)
    mentions = Counter(
        p for s in {s for f in facts for s in f.sentences} for p in set(phrases(s, 8))
    )
    subjects = Counter(fact.subject for fact in facts)
    chosen: dict[str, Fact] = {}
    taken_subjects: set[str] = set()
    reading = [READING_VALIDATION] * sizes.reading_validation + [READING_TEST] * sizes.reading_test
    remembered = (
        [REMEMBERED_TEST] * sizes.remembered_test
        + [REMEMBERED_VALIDATION] * sizes.remembered_validation
        + [REMEMBERED_TRAIN] * sizes.remembered_train
    )
    rng.shuffle(reading)
    rng.shuffle(remembered)

    def choose(
        wanted: list[str], per_object: int, per_relation: int, may: Callable[[Fact], bool]
    ) -> None:
        objects: Counter[tuple[str, str]] = Counter()
        relations: Counter[str] = Counter()
        for fact in clear:
            key = (fact.relation, fact.answer)
            if (
                not wanted
                or fact.relation in NOT_REMEMBERED
                or fact.subject in taken_subjects
                or not may(fact)
                or objects[key] >= per_object
                or relations[fact.relation] >= per_relation
            ):
                continue
            objects[key] += 1
            relations[fact.relation] += 1
            taken_subjects.add(fact.subject)
            chosen[fact.id] = replace(fact, split=wanted.pop())

    choose(
        reading,
        sizes.reading_per_object,
        sizes.reading_per_relation,
        lambda fact: subjects[fact.subject] == 1 and mentions[fact.subject] <= len(fact.sentences),
    )
    choose(
        remembered,
        sizes.per_object,
        sizes.per_relation,
        lambda fact: mentions[fact.subject] <= MAX_MENTIONS,
    )
    if reading or remembered:
        raise UserError(
            f"T-REx has too few unambiguous facts: {len(reading)} to read and "
            f"{len(remembered)} to remember are missing"
        )
    unread = {s for f in chosen.values() if f.split in UNREAD for s in f.sentences}
    result, seen = [], set()
    for fact in facts:
        fact = chosen.get(fact.id, fact)
        if fact.split not in UNREAD:
            fact = replace(fact, sentences=tuple(s for s in fact.sentences if s not in unread))
        if (fact.sentences or fact.split in REMEMBERED) and fact.id not in seen:
            seen.add(fact.id)
            result.append(fact)
    return result


def to_example(fact: Fact) -> QAExample:
    """The fact's question in the canonical wording, with its first sentence (if any) as context."""
    relation = RELATIONS[fact.relation]
    return QAExample(
        id=fact.id,
        source="trex",
        question=fact.question(),
        context=fact.sentence if fact.sentences else None,
        answers=(fact.answer,),
        relation=fact.relation,
        answer_type=relation.answer_type,
        subject=fact.subject,
    )


def write_facts(facts: Iterable[Fact], path: str | Path) -> None:
    """Writes one JSON object a line, gzipped, byte-identical for the same facts."""
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as out:
        for fact in facts:
            out.write((json.dumps(asdict(fact), ensure_ascii=False) + "\n").encode())


def load_facts(path: str | Path | None = None) -> list[Fact]:
    """Facts of a file that `write_facts` made; without a path the ones that the package ships for
    its quickstart.
    """
    path = SHIPPED if path is None else path
    if not Path(path).is_file():
        raise UserError(f"{path}: no such facts file")
    facts = []
    for place, row in files.read_jsonl(path, files.Rejects(strict=True)):
        try:
            fact = Fact(**{**row, "sentences": tuple(row["sentences"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"{place}: not a fact ({error})") from error
        if fact.relation not in RELATIONS:
            raise UserError(f"{place}: not a fact (the relation {fact.relation!r} is unknown)")
        facts.append(fact)
    return facts
