"""Input and target texts of KAFT examples: the only place that writes or strips them.

The target depends on the context kind and the three answers, and on nothing else: never on
which passage was kept or dropped while the context was made.
"""

from __future__ import annotations

RELEVANT, COUNTERFACTUAL, IRRELEVANT, EMPTY = KINDS = (
    "relevant",
    "counterfactual",
    "irrelevant",
    "empty",
)

ABSTENTION = "unanswerable"
"""Target of the `abstain` arm on irrelevant contexts (as DisentQA does)."""

CONTEXT_SOURCE, IRRELEVANT_SOURCE, EMPTY_SOURCE = SOURCES = (
    "context",
    "irrelevant context",
    "empty context",
)

SUFFIXES = {
    RELEVANT: " (from context)",
    COUNTERFACTUAL: " (from context)",
    IRRELEVANT: " (irrelevant context)",
    EMPTY: " (empty context)",
}
"""What a target announces about its source (Li et al. 2023, as reported)."""

_SOURCE_OF_SUFFIX = {
    SUFFIXES[RELEVANT]: CONTEXT_SOURCE,
    SUFFIXES[IRRELEVANT]: IRRELEVANT_SOURCE,
    SUFFIXES[EMPTY]: EMPTY_SOURCE,
}


def source_of(context_kind: str) -> str:
    """The source that a right answer announces for a context kind: one of `SOURCES`."""
    return _SOURCE_OF_SUFFIX[SUFFIXES[context_kind]]


def format_input(question: str, context: str | None = None) -> str:
    """The model's input text; without a context this is also the closed-book prompt.

    >>> format_input("Where was Ada born?", "Ada was born in London.")
    'question: Where was Ada born? context: Ada was born in London.'
    >>> format_input("Where was Ada born?")
    'question: Where was Ada born?'
    """
    question = " ".join(question.split())
    if not context:
        return f"question: {question}"
    return f"question: {question} context: {' '.join(context.split())}"


def format_target(answer: str, context_kind: str, suffixes: bool = True) -> str:
    """The target text of an answer for a context kind.

    >>> format_target("London", "irrelevant")
    'London (irrelevant context)'
    """
    return answer + SUFFIXES[context_kind] if suffixes else answer


def split_source(text: str) -> tuple[str, str | None]:
    """Strips the announced source: (answer, one of `SOURCES` or None if none is announced).

    >>> split_source("London (from context)")
    ('London', 'context')
    >>> split_source("London")
    ('London', None)
    """
    text = text.strip()
    for suffix, source in _SOURCE_OF_SUFFIX.items():
        if text.endswith(suffix.strip()):
            return text[: -len(suffix.strip())].strip(), source
    return text, None
