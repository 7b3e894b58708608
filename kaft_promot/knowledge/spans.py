"""Mentions of an answer in a context: found on folded text, decided on the original text.

All aliases of an answer are looked for on the folded context (many at once by Aho-Corasick). A
match counts if it begins and ends at word boundaries *of the original text*; of overlapping matches
the leftmost wins, and among those the longest. So the outcome depends on nothing but the text and
the set of aliases, "Obama" is not found in "Obamacare", and every span slices back to its surface.

A text is read in two ways. `find_spans` is strict: what it finds may be replaced, and what it
does not find is no answer. `holds_alias` is wide: what it sees is a reason to refuse. Where the
two differ ("U.S." in "U.S.A.") nothing is replaced and no record is made.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import ahocorasick_rs

from kaft_promot.knowledge.text import ARTICLES, fold, normal_passage, normalize_answer

Span = tuple[int, int]

_FEW = 4  # so many patterns are searched for one by one before an automaton would be built

PREPOSITIONS = frozenset("in on at by from to of for with during since around within".split())
_APOSTROPHES = "'\u2019\u02bc"
# Scripts written without spaces: between their characters any place may be a word's end.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")

# Signs that tie two words to one name, and those that end a name: C++, C#, Na+, US$.
_TIES = ".&@"
_SIGNS = "+#$"
_NAME_ENDS = re.compile(r"[+#]+(?!\w)|\$")
_COMPANY_SITE = re.compile(r"\.com(?!\w|[.@]\w)")
# What may stand between two sentences, and dots that end none.
_OPENING = " \t\"'`([\u2018\u201c\u00ab"
_SENTENCE_ENDS = ".!?:;\n"
_TITLE = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Prof|Gen|Sen|Gov)\.$")
_ADDRESS = re.compile(r"\b(?:[a-z][a-z0-9+.-]*://|www\.)[!-~]+", re.IGNORECASE)


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


def _inside_name(text: str, at: int) -> bool:
    """Whether a sign ties what stands before and after offset `at` to one name.

    U.S.|S.R., Node|.js, AT|&T, ada|@home.org, C|++, US|$5 (0 < at < len(text)). A hyphen or a
    slash ties nothing: U.S.|-based, London|/Paris.
    """
    before, after = text[at - 1], text[at]
    if after in _SIGNS:
        return (before.isalpha() or before in _SIGNS) and _NAME_ENDS.match(text, at) is not None
    if after in _TIES:
        sign = at
    elif before in _TIES:
        sign = at - 1
    else:
        return False
    if sign == 0 or not _is_word(text[sign - 1]) or not _is_word(text[sign + 1 : sign + 2]):
        return False
    if text[sign] != ".":
        return True
    # A company is named like its site: what is said of Amazon.com is said of Amazon.
    return _dot_joins(text, sign) and not (sign == at and _COMPANY_SITE.match(text, sign))


def _dot_joins(text: str, dot: int) -> bool:
    """Whether a dot between two word characters belongs to a name and does not end a sentence.

    Many texts lack the space after a full stop. A sentence begins with a capital letter that a
    small one follows (London.He), or that is a word alone (London.I went): there the dot ends a
    sentence. Initials (U.S.A, Ph.D.), small letters (Node.js, example.com) and capitals in a row
    (ASP.NET) continue a name. "london.he" is read as a name, too: it is rare, and it is better
    to refuse a record (`holds_alias` does) than to cut a name. Letters without case and digits
    continue nothing; numbers are one word by `_joined`.
    """
    first, second = text[dot + 1], text[dot + 2 : dot + 3]
    if not first.isupper():
        return first.islower()
    if _is_word(second):
        return second.isupper()
    initial = text[dot - 1].isalpha() and not _is_word(text[dot - 2 : dot - 1])
    return initial or second == "."


def _cuts_address(context: str, start: int, end: int) -> bool:
    """Whether a span is a piece of a web address: replacing it would break the address."""
    for match in _ADDRESS.finditer(context):
        first = match.start()
        last = first + len(match.group().rstrip(".,;:!?)]}>'\""))
        if start < last and end > first and (start > first or end < last):
            return True
    return False


def _apostrophe_joins(text: str, start: int, end: int) -> bool:
    """Whether an apostrophe ties the span to more of the same word: O'|Brien|, |Don|'t."""
    if start > 1 and text[start - 1] in _APOSTROPHES and _is_word(text[start - 2]):
        return True
    if end + 1 < len(text) and text[end] in _APOSTROPHES and _is_word(text[end + 1]):
        possessive = text[end + 1] in "sS" and not (end + 2 < len(text) and _is_word(text[end + 2]))
        return not possessive
    return False


def begins_sentence(text: str, at: int) -> bool:
    """Whether a sentence (or a clause after a colon) begins at an offset, as far as signs tell.

    After a title or an initial a dot ends no sentence: in "Mrs. May" the name does not begin one.
    """
    before = text[max(0, at - 16) : at].rstrip(_OPENING)
    return not before or (before[-1] in _SENTENCE_ENDS and _TITLE.search(before) is None)


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


def _is_name(alias: str) -> bool:
    """Whether all words but small ones are capitalised: not "In 1041", not "Second century"."""
    main = [word for word in alias.split() if word.lower() not in PREPOSITIONS | ARTICLES]
    return bool(main) and all(word[0].isupper() for word in main)


def _is_mention(context: str, start: int, end: int) -> bool:
    """Whether `context[start:end]` is a whole name, not a piece of a longer one."""
    if not at_word_boundaries(context, start, end) or _apostrophe_joins(context, start, end):
        return False
    if start > 0 and _inside_name(context, start):
        return False
    return not (end < len(context) and _inside_name(context, end))


def find_spans(context: str, aliases: Iterable[str]) -> list[Span]:
    """Where an answer is mentioned: (start, end) offsets in `context`, ascending, disjoint.

    Args:
      context: the text to search.
      aliases: every way to write the answer; empty ones are ignored.

    A lower-case word is no mention of an alias written in capitals ("us" is not "US"). It is none
    of a capitalised alias either where the context writes that alias with a capital though no
    sentence begins there ("She may come in May"). Else it is one: the answer "Football", as it
    stands at the beginning of a sentence, is the "football" of the next.
    """
    return list(_find_spans(context, tuple(aliases)).spans)


def doubtful_spans(context: str, aliases: Iterable[str]) -> list[Span]:
    """Those of `find_spans` that may be another word: the "will" beside the name Will.

    Args:
      context, aliases: as for `find_spans`.

    Returns:
      The lower-case mentions of an alias whose words are all capitalised, where the context writes
      the answer with a capital as well, but this alias only where a sentence begins.
    """
    return list(_find_spans(context, tuple(aliases)).doubtful)


class _Found(NamedTuple):
    """What `find_spans` finds, and what of it is doubtful."""

    spans: tuple[Span, ...] = ()
    doubtful: tuple[Span, ...] = ()


# The kinds of one example ask for the same mentions again.
@functools.lru_cache(maxsize=256)
def _find_spans(context: str, aliases: tuple[str, ...]) -> _Found:
    folded = fold(context)
    by_pattern: dict[str, list[str]] = {}  # folded alias that stands there -> the aliases behind it
    for alias in map(str.strip, aliases):
        pattern = fold(alias).text
        if pattern and pattern in folded.text:
            by_pattern.setdefault(pattern, []).append(alias)
    if not by_pattern:
        return _Found()
    found: list[Span] = []
    lower: list[tuple[str, Span]] = []  # in lower case, though the alias has capitals
    addresses = "://" in folded.text or "www." in folded.text
    for pattern, folded_start in _matches(folded.text, tuple(sorted(by_pattern))):
        span = folded.original_span(folded_start, folded_start + len(pattern))
        if span is None or not _is_mention(context, *span):
            continue
        if addresses and _cuts_address(context, *span):
            continue
        behind = by_pattern[pattern]
        if not context[span[0] : span[1]].islower() or any(map(str.islower, behind)):
            found.append(span)
        elif not all(map(_is_acronym, behind)):
            lower.append((pattern, span))
    words: set[Span] = set()
    if lower:
        names = {
            fold(context[start:end]).text
            for start, end in found
            if not context[start:end].islower() and not begins_sentence(context, start)
        }
        lower = [(pattern, span) for pattern, span in lower if pattern not in names]
        words = {span for pattern, span in lower if any(map(_is_name, by_pattern[pattern]))}
        found += [span for _, span in lower]
    found.sort(key=lambda span: (span[0], -span[1]))
    chosen: list[Span] = []
    for span in found:
        if not chosen or span[0] >= chosen[-1][1]:
            chosen.append(span)
    if all(context[start:end].islower() for start, end in chosen):
        return _Found(tuple(chosen))
    return _Found(tuple(chosen), tuple(span for span in chosen if span in words))


def _matches(text: str, patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Every (pattern, offset) at which a pattern stands in a text, overlapping ones too."""
    if len(patterns) > _FEW:
        found = _automaton(patterns).find_matches_as_indexes(text, overlapping=True)
        yield from ((patterns[index], start) for index, start, _ in found)
        return
    for pattern in patterns:
        at = text.find(pattern)
        while at >= 0:
            yield pattern, at
            at = text.find(pattern, at + 1)


def begins_with_preposition(text: str) -> bool:
    """Whether the first word of a text is one of `PREPOSITIONS`."""
    return any(word.lower() in PREPOSITIONS for word in text.split(None, 1)[:1])


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


def first_mentioned(context: str, aliases: Iterable[str]) -> str | None:
    """The first of the aliases that `find_spans` finds in a context, or None."""
    return next((alias for alias in aliases if find_spans(context, (alias,))), None)


def first_held(text: str, aliases: Iterable[str]) -> str | None:
    """The first of the aliases that stands in the text (see `holds_alias`), or None."""
    for alias in aliases:
        if holds_alias(text, alias):
            return alias
    return None


def substitute(
    context: str, spans: Sequence[Span], new: str | Sequence[str]
) -> tuple[str, list[Span]]:
    """Puts `new` in place of every span.

    Args:
      context: the original text.
      spans: ascending, disjoint offsets, as `find_spans` gives them.
      new: the text to put there, or one for each span.

    Returns:
      The new text, and the spans of `new` in it: each slices back to what was put there.
    """
    texts = [new] * len(spans) if isinstance(new, str) else new
    pieces: list[str] = []
    new_spans: list[Span] = []
    done = length = 0
    for (start, end), text in zip(spans, texts, strict=True):
        pieces.append(context[done:start])
        length += start - done
        pieces.append(text)
        new_spans.append((length, length + len(text)))
        length += len(text)
        done = end
    pieces.append(context[done:])
    return "".join(pieces), new_spans
