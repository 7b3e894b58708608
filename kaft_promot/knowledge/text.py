"""Text that can be compared: folding with a way back to the original, and answer normalisation.

Two views of a text, both made here and nowhere else:

* `fold(text)` for *finding* an answer in a context. Case, accents' encoding, ligatures, kinds of
  dash and quotation mark and runs of white space no longer matter, and every character of the
  folded text knows which original characters it came from. So a span found in the folded text is
  always a whole span of the original: one "İ" (two characters once folded) shifts nothing.
* `normalize_answer(text)` for *comparing* two answers: SQuAD's normalisation (lower case, no
  punctuation, no articles, single spaces; Rajpurkar et al., 2016), equal to the official function
  on ASCII and safe for any other text.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence

ARTICLES = frozenset({"a", "an", "the"})
_ASCII_PUNCTUATION = frozenset(string.punctuation)


class _DeletePunctuation(dict[int, int | None]):
    """A table for str.translate that deletes punctuation, filled as characters are met."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        gone = char in _ASCII_PUNCTUATION or unicodedata.category(char)[0] == "P"
        self[code] = None if gone else code
        return self[code]


_DELETE_PUNCTUATION = _DeletePunctuation()
_DELETE_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)

# Typographic variants of one character, mapped before the compatibility decomposition because
# that would turn the acute accent into a space.
_VARIANTS = {ord(c): "'" for c in "\u2018\u2019\u201a\u201b\u02bc\u00b4"}
_VARIANTS |= {ord(c): '"' for c in "\u201c\u201d\u201e\u201f"}
_VARIANTS |= {ord(c): "-" for c in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"}

# What cannot be folded by str.lower alone: white space other than one plain space, and anything
# outside ASCII with the character before it (which may be the base of a combining mark).
_UNUSUAL = re.compile(r"\s{2,}|[^\S ]|\S?[^\x00-\x7f\s]+")


_DOTTED_I = re.compile("i\u0307+")


@dataclasses.dataclass(frozen=True, slots=True)
class Folded:
    """A folded text with the way back.

    Attributes:
      text: the folded text.
      starts: for each folded character, the offset at which its original cluster (a character
        with its combining marks, or a run of white space) starts; None if the offsets are equal.
      ends: likewise the offset after the cluster's last character; None if starts is None.
    """

    text: str
    starts: Sequence[int] | None = None
    ends: Sequence[int] | None = None

    def original_span(self, start: int, end: int) -> tuple[int, int] | None:
        """The original (start, end) of folded [start, end); None if an end cuts a cluster."""
        if start >= end:
            return None
        if self.starts is None or self.ends is None:
            return start, end
        starts = self.starts
        if start > 0 and starts[start - 1] == starts[start]:
            return None
        if end < len(starts) and starts[end] == starts[end - 1]:
            return None
        return starts[start], self.ends[end - 1]


@functools.lru_cache(maxsize=4096)
def _fold_cluster(cluster: str) -> str:
    """Folds one character with its combining marks (Unicode's compatibility caseless form)."""
    if cluster.isspace():
        return " "
    text = unicodedata.normalize("NFD", cluster.translate(_VARIANTS)).casefold()
    text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKD", text).translate(_VARIANTS)
    # "İ" is "i" with a dot above once folded: the dot is no difference to a reader.
    text = _DOTTED_I.sub("i", text)
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def _clusters(text: str) -> Iterable[tuple[int, int]]:
    """Offsets of the characters of `text`, each with the combining marks after it."""
    start = 0
    for i in range(1, len(text)):
        if unicodedata.category(text[i])[0] != "M" or text[i - 1].isspace():
            yield start, i
            start = i
    if text:
        yield start, len(text)


_RAMP = array.array("I", range(1024))


def _ramp(length: int) -> array.array[int]:
    """The numbers from 0, at least `length` of them: slices of it copy much faster than ranges."""
    if len(_RAMP) < length:
        _RAMP.extend(range(len(_RAMP), 2 * length))
    return _RAMP


def _is_plain(text: str) -> bool:
    """Whether folding is lower-casing, by a quick test that most texts pass."""
    return text.isascii() and text.isprintable() and "  " not in text


@functools.lru_cache(maxsize=2048)
def fold(text: str) -> Folded:
    """Folds `text` for matching; see the module's docstring. Cost: linear in its length."""
    if _is_plain(text) or not _UNUSUAL.search(text):
        return Folded(text.lower())
    pieces: list[str] = []
    starts, ends = array.array("I"), array.array("I")
    ramp = _ramp(len(text) + 1)

    def plain(start: int, end: int) -> None:
        pieces.append(text[start:end].lower())
        starts.extend(ramp[start:end])
        ends.extend(ramp[start + 1 : end + 1])

    done = 0
    for match in _UNUSUAL.finditer(text):
        plain(done, match.start())
        done = match.end()
        run = match.group()
        spans = [(0, len(run))] if run.isspace() else _clusters(run)
        for start, end in spans:
            folded = _fold_cluster(" " if run.isspace() else run[start:end])
            pieces.append(folded)
            starts.extend([match.start() + start] * len(folded))
            ends.extend([match.start() + end] * len(folded))
    plain(done, len(text))
    return Folded("".join(pieces), starts, ends)


@functools.lru_cache(maxsize=65536)
def normalize_answer(text: str) -> str:
    """SQuAD's answer normalisation, safe for any Unicode text.

    Lower case, punctuation deleted, the articles a, an and the dropped, white space single. On
    ASCII it gives exactly what SQuAD's official evaluation gives. Elsewhere text is folded first
    (see `fold`), and every character of a Unicode punctuation category counts as punctuation.

    >>> normalize_answer("The  U.S. Army!")
    'us army'
    """
    return _normalize(text)


def _normalize(text: str) -> str:
    folded = text.lower() if _is_plain(text) else fold(text).text
    if folded.isascii():
        bare = folded.translate(_DELETE_ASCII_PUNCTUATION)
        return " ".join([word for word in bare.split() if word not in ARTICLES])
    bare = folded.translate(_DELETE_PUNCTUATION)
    # Folded again: a mark that stood on a deleted dot now stands on the letter before it.
    composed = unicodedata.normalize("NFC", fold(bare).text)
    return " ".join([word for word in composed.split() if word not in ARTICLES])


@functools.lru_cache(maxsize=2048)
def normal_passage(text: str) -> str:
    """A long text normalised, with one space at both ends, so that ` word ` finds whole words."""
    return f" {_normalize(text)} "


def contains_tokens(haystack: str, needle: str) -> bool:
    """Whether the normalised words of `needle` stand in a row in those of `haystack`.

    Token-wise: "not" is not contained in "another". A needle of no words is contained nowhere.
    """
    words = normalize_answer(needle)
    return bool(words) and f" {words} " in normal_passage(haystack)


def equal_or_nested(one: str, other: str) -> bool:
    """Whether two *normalised* answers are equal or one holds the other, token-wise."""
    if not one or not other:
        return False
    return f" {one} " in f" {other} " or f" {other} " in f" {one} "


def normal_forms(answers: Iterable[str]) -> tuple[str, ...]:
    """The distinct non-empty normal forms of some answers, in their order."""
    return tuple(dict.fromkeys(n for a in answers if (n := normalize_answer(a))))


def capitalised(text: str) -> str:
    """The text with a capital at its beginning and all else as it is."""
    return text[:1].upper() + text[1:]
