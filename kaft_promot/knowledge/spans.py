"""Mentions of an answer in a context: found on folded text, decided on the original text.

All aliases of an answer are looked for at once (Aho-Corasick on the folded context). A match
counts if it begins and ends at word boundaries *of the original text*; of overlapping matches
the leftmost wins, and among those the longest. So the outcome depends on nothing but the text and
the set of aliases, "Obama" is not found in "Obamacare", and every span slices back to its surface.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import ahocorasick_rs

from kaft_promot.knowledge.text import ARTICLES, fold, normal_passage, normalize_answer

Span = tuple[int, int]

PREPOSITIONS = frozenset("in on at by from to of for with during since around within".split())
_APOSTROPHES = "'\u2019\u02bc"
# Scripts written without spaces: between their characters any place may be a word's end.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def _is_word(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char == "_"
    if not (char.isalnum() or unicodedata.category(char)[0] == "M"):
        return False
    return _UNSPACED.match(char) is None


def _joined(text: str, at: int) -> bool:
    """Whether offset `at` lies inside a word or a number (0 < at < len(text))."""
    before, after = text[at - 1], text[at]
    if _is_word(before) and _is_word(after):
        return True
    # 1,000 and 1.5 and 10:30 are one number.
    if before.isdigit() and after in ".,:" and text[at + 1 : at + 2].isdigit():
        return True
    return after.isdigit() and before in ".,:" and text[at - 2 : at - 1].isdigit() and at > 1


def _apostrophe_joins(text: str, start: int, end: int) -> bool:
    """Whether an apostrophe ties the span to more of the same word: O'|Brien|, |Don|'t."""
    if start > 1 and text[start - 1] in _APOSTROPHES and _is_word(text[start - 2]):
        return True
    if end + 1 < len(text) and text[end] in _APOSTROPHES and _is_word(text[end + 1]):
        possessive = text[end + 1] in "sS" and not (end + 2 < len(text) and _is_word(text[end + 2]))
        return not possessive
    return False


def at_word_boundaries(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` begins and ends where words (and numbers) of `text` do."""
    if start > 0 and _joined(text, start):
        return False
    return not (end < len(text) and _joined(text, end))


@functools.lru_cache(maxsize=1024)
def _automaton(patterns: tuple[str, ...]) -> ahocorasick_rs.AhoCorasick:
    return ahocorasick_rs.AhoCorasick(
        patterns, matchkind=ahocorasick_rs.MATCHKIND_STANDARD, store_patterns=False
    )


def _is_acronym(alias: str) -> bool:
    return len(alias) > 1 and alias.isupper() and " " not in alias


def find_spans(context: str, aliases: Iterable[str]) -> list[Span]:
    """Where an answer is mentioned: (start, end) offsets in `context`, ascending, disjoint.

    Args:
      context: the text to search.
      aliases: every way to write the answer; empty ones are ignored.

    A lower-case word is no mention of an alias written in capitals ("us" is not "US").
    """
    by_pattern: dict[str, bool] = {}  # folded alias -> every alias behind it is an acronym
    for alias in aliases:
        pattern = fold(alias.strip()).text
        if pattern:
            acronym = _is_acronym(alias.strip())
            by_pattern[pattern] = acronym and by_pattern.get(pattern, True)
    if not by_pattern:
        return []
    folded = fold(context)
    patterns = tuple(sorted(by_pattern))
    if not any(pattern in folded.text for pattern in patterns):
        return []
    found: list[Span] = []
    matches = _automaton(patterns).find_matches_as_indexes(folded.text, overlapping=True)
    for index, folded_start, folded_end in matches:
        span = folded.original_span(folded_start, folded_end)
        if span is None or not at_word_boundaries(context, *span):
            continue
        if _apostrophe_joins(context, *span):
            continue
        if by_pattern[patterns[index]] and context[span[0] : span[1]].islower():
            continue
        found.append(span)
    found.sort(key=lambda span: (span[0], -span[1]))
    chosen: list[Span] = []
    for span in found:
        if not chosen or span[0] >= chosen[-1][1]:
            chosen.append(span)
    return chosen


def core_aliases(aliases: Sequence[str]) -> tuple[str, ...]:
    """The aliases to replace: without those that only put a preposition before another one.

    Of "1041" and "in 1041" the first is enough: replacing it leaves the "in" of the sentence.
    """
    known = {fold(alias).text for alias in aliases}
    return tuple(alias for alias in aliases if not _is_framed(fold(alias).text.split(), known))


def _is_framed(words: list[str], known: set[str]) -> bool:
    if len(words) < 2 or words[0] not in PREPOSITIONS:
        return False
    if " ".join(words[1:]) in known:
        return True
    return words[1] in ARTICLES and " ".join(words[2:]) in known


def holds_alias(text: str, alias: str) -> bool:
    """Whether an alias stands in a text, by the *widest* reading; used to refuse, never to edit.

    True if its normalised words stand in the normalised text, or if its folded form stands
    anywhere in the text at word boundaries (this also sees "Saxon" in "Anglo-Saxon").
    """
    words = normalize_answer(alias)
    if words and f" {words} " in normal_passage(text):
        return True
    pattern = fold(alias.strip()).text
    if not pattern or not words:
        return False
    folded = fold(text)
    at = folded.text.find(pattern)
    while at >= 0:
        span = folded.original_span(at, at + len(pattern))
        if span is not None and at_word_boundaries(text, *span):
            return True
        at = folded.text.find(pattern, at + 1)
    return False


def first_held(text: str, aliases: Iterable[str]) -> str | None:
    """The first of the aliases that stands in the text (see `holds_alias`), or None."""
    for alias in aliases:
        if holds_alias(text, alias):
            return alias
    return None


def substitute(context: str, spans: Sequence[Span], new: str) -> tuple[str, list[Span]]:
    """Puts `new` in place of every span.

    Args:
      context: the original text.
      spans: ascending, disjoint offsets, as `find_spans` gives them.
      new: the text to put there.

    Returns:
      The new text, and the spans of `new` in it: each slices back to `new`.
    """
    pieces: list[str] = []
    new_spans: list[Span] = []
    done = length = 0
    for start, end in spans:
        pieces.append(context[done:start])
        length += start - done
        pieces.append(new)
        new_spans.append((length, length + len(new)))
        length += len(new)
        done = end
    pieces.append(context[done:])
    return "".join(pieces), new_spans
