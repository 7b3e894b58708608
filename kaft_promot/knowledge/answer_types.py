"""What kind of thing an answer is: a few coarse types, from the answer and the question word.

The types only have to make a swapped answer plausible, so the rules are few and can be read in
a minute. In order, the first that fits:

| type | rule |
| --- | --- |
| `year` | one year and nothing else, 1000-2099 |
| `date` | holds a month with a day or alone, a year, BC or AD, a century or a decade |
| `number` | digits alone, or one number word |
| `amount` | begins with a digit, a currency sign or a number word (also "about 5 km"), or "%" |
| `person` | every main word is capitalised, at most five words, and the question asks who |
| `place` | the same, and the question asks where or for a place |
| `name` | the same with any other question |
| `word` | one or two words |
| `phrase` | three to six words |
| `clause` | longer |

The last three are divided by how they begin, because that decides where they fit in a sentence:
`phrase to` (an infinitive), `phrase in` (any preposition), `phrase the` (an article or the like),
`phrase -ing`, and plain `phrase`.
"""

from __future__ import annotations

import re

from kaft_promot.knowledge.spans import PREPOSITIONS

_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_YEAR = re.compile(r"1\d\d\d|20\d\d")
_DATE = re.compile(
    rf"(?:\b(?:{_MONTHS})\s+\d)|(?:\d\s+(?:{_MONTHS})\b)|^(?:{_MONTHS})$"
    r"|(?:^|\D)(?:1\d\d\d|20\d\d)s?(?:\D|$)|\b\d+\s*(?:bc|ad|bce|ce)\b|\bcentur(?:y|ies)\b"
    r"|\b\d0s\b|\bdecades?\b",
    re.IGNORECASE,
)
_COUNTS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    "|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    "|hundreds?|thousands?|millions?|billions?|half|dozens?"
)
_NUMBER = re.compile(rf"[\d.,]+|{_COUNTS}", re.IGNORECASE)
_AMOUNT = re.compile(
    r"^(?:(?:about|around|nearly|almost|over|under|approximately|roughly|up to|more than"
    rf"|less than|at least)\s+)?(?:[$€£¥+~-]?\.?\d|(?:{_COUNTS})\b)|%$|\bpercent$",
    re.IGNORECASE,
)
_PERSON_QUESTION = re.compile(r"\b(?:who|whom|whose)\b", re.IGNORECASE)
_PLACE_QUESTION = re.compile(
    r"\bwhere\b|\b(?:what|which)\s+(?:\w+\s+)?(?:country|city|state|town|region|place|continent"
    r"|river|county|province|island|nation|area|location)\b",
    re.IGNORECASE,
)
_DETERMINERS = frozenset("the a an its their his her this that these those".split())
_OF_NAMES = frozenset("person place organisation organization date".split())
_SMALL_WORDS = frozenset("of the and de la le von van der du in at for on to a an & al".split())


def _is_name(words: list[str]) -> bool:
    main = [word for word in words if word.lower() not in _SMALL_WORDS]
    return bool(main) and len(words) <= 5 and all(word[:1].isupper() for word in main)


def classify(answer: str, question: str = "") -> str:
    """The answer's type, by the table above.

    >>> classify("10th and 11th centuries"), classify("$4.5 million"), classify("France")
    ('date', 'amount', 'name')
    >>> classify("Rollo", "Who was the duke?")
    'person'
    """
    if _YEAR.fullmatch(answer.strip()):
        return "year"
    if _DATE.search(answer):
        return "date"
    answer = answer.strip()
    if _NUMBER.fullmatch(answer):
        return "number"
    if _AMOUNT.search(answer):
        return "amount"
    words = answer.split()
    if _is_name(words):
        if _PERSON_QUESTION.search(question):
            return "person"
        return "place" if _PLACE_QUESTION.search(question) else "name"
    size = "word" if len(words) <= 2 else "phrase" if len(words) <= 6 else "clause"
    return f"{size} {beginning}" if (beginning := _beginning(words)) else size


def _beginning(words: list[str]) -> str:
    first = words[0].lower() if words else ""
    if first == "to":
        return "to"
    if first in PREPOSITIONS:
        return "in"
    if first in _DETERMINERS:
        return "the"
    return "-ing" if first.endswith("ing") else ""


def of_a_name(kind: str) -> bool:
    """Whether answers of a type are names, which a lower-case word is not (May, Will, Reading).

    `name` is not among them: it may be anything that a sentence begins with ("Football is played").
    """
    return kind.lower() in _OF_NAMES


def is_clean(answer: str) -> bool:
    """Whether an answer can stand in another sentence: its brackets and quotes are closed, and it
    does not end as a sentence or a list does.
    """
    pairs = (("(", ")"), ("[", "]"), ("\u201c", "\u201d"))
    if any(answer.count(left) != answer.count(right) for left, right in pairs):
        return False
    if answer.count('"') % 2:
        return False
    return answer[-1:] not in ",;:" and not (answer.endswith(".") and answer.count(" ") >= 3)
