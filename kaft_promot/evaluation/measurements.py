"""The measurements by name, grounding and retention: what each is called, asks and means.

One table, read by the measuring code, the terminal table and the report page, so that a name means
the same wherever it stands.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a figure means.

    Attributes:
      name: key in results.json.
      title: as shown to people.
      group: heading under which reports show it.
      on: the examples that it is measured on.
      definition: when an example scores.
      better: 'higher', 'lower' or '' (neither by itself).
    """

    name: str
    title: str
    group: str
    on: str
    definition: str
    better: str = "higher"


_CONFLICTS = "counterfactual contexts of questions whose closed-book answer was right"
_CLOSED_BOOK = "questions asked without a context"

MAIN: tuple[Measurement, ...] = (
    Measurement(
        name="controllability_strict",
        title="Controllability (strict)",
        group="Grounding",
        on=_CONFLICTS,
        definition="The output equals the counterfactual answer (or an alias of it), and not the "
        "original one: the model believes its context against its own memory.",
    ),
    Measurement(
        name="robustness_agree",
        title="Robustness (agree)",
        group="Grounding",
        on="contexts that do not hold the answer",
        definition="The output equals the base model's own closed-book answer, right or wrong: the "
        "model is not led astray.",
    ),
    Measurement(
        name="robustness_no_extraction",
        title="Robustness (no extraction)",
        group="Grounding",
        on="contexts that do not hold the answer",
        definition="The output is not a span of the irrelevant context beyond the question's own "
        "words, unless it is the base model's closed-book answer.",
    ),
    Measurement(
        name="source_accuracy",
        title="Announced source is right",
        group="Grounding",
        on="all contexts",
        definition="The output announces the right source of its answer: from context, irrelevant "
        "context or empty context. Announcing nothing counts as wrong, so a model that was never "
        "taught to announce scores 0 %.",
    ),
    Measurement(
        name="reading_em",
        title="Reading (exact match)",
        group="Reading",
        on="relevant contexts",
        definition="The output equals the answer that the context holds, or an alias of it, after "
        "SQuAD's normalisation (lower case, no punctuation, no articles, single spaces).",
    ),
    Measurement(
        name="reading_f1",
        title="Reading (F1)",
        group="Reading",
        on="relevant contexts",
        definition="Overlap of the output's words with the answer's: the harmonic mean of "
        "precision and recall, best alias.",
    ),
    Measurement(
        name="retention_em",
        title="Closed book (exact match)",
        group="Retention",
        on=_CLOSED_BOOK,
        definition="The output equals the gold answer or an alias of it.",
    ),
    Measurement(
        name="retention_agree",
        title="Closed book (agrees with base)",
        group="Retention",
        on=_CLOSED_BOOK,
        definition="The output equals the base model's own closed-book answer, right or wrong. For "
        "the base model itself this is 100 % by construction.",
    ),
)

DETAILS: tuple[Measurement, ...] = (
    Measurement(
        name="p_s",
        title="Recall of the substituted answer (p_s)",
        group="Conflicts in detail",
        on=_CONFLICTS,
        definition="Share of the counterfactual answer's words that the output has.",
    ),
    Measurement(
        name="p_o",
        title="Recall of the original answer (p_o)",
        group="Conflicts in detail",
        on=_CONFLICTS,
        definition="Share of the original answer's words that the output has.",
        better="lower",
    ),
    Measurement(
        name="memorization_ratio",
        title="Memorization ratio (M_R)",
        group="Conflicts in detail",
        on=_CONFLICTS,
        definition="p_o / (p_s + p_o): how often memory wins where either answer shows.",
        better="lower",
    ),
    Measurement(
        name="controllability_strict_shared",
        title="Controllability (strict), shared conflicts",
        group="Conflicts in detail",
        on="counterfactual contexts of questions that every compared arm, and its base, answers "
        "right closed book",
        definition="As controllability (strict), on the same conflicts for all arms.",
    ),
)

_IN_CONTEXT = "in-context tasks, asked without a soft prompt"

# What a model that was tuned on one target task can still do (`retention`).
RETENTION: tuple[Measurement, ...] = (
    Measurement(
        name="target",
        title="Target task",
        group="Target",
        on="the target task, asked with the arm's soft prompt where it has one",
        definition="The output equals the target.",
    ),
    Measurement(
        name="in_context_other_formats",
        title="In-context score, other formats",
        group="In context",
        on=f"{_IN_CONTEXT}, whose targets are not all in the target task's format",
        definition="The output equals the target: plain mean over tasks of each task's share. It "
        "collapses where tuning made the target task's format the only one left.",
    ),
    Measurement(
        name="in_context_same_format",
        title="In-context score, target's format",
        group="In context",
        on=f"{_IN_CONTEXT}, all of whose targets are in the target task's format",
        definition="The output equals the target: plain mean over tasks of each task's share. It "
        "may rise while the model forgets every other format.",
    ),
    Measurement(
        name="output_share",
        title="Output share",
        group="In context",
        on=f"{_IN_CONTEXT}, whose targets are not all in the target task's format",
        definition="The output is in the target task's format though the task asks for another "
        "one: plain mean over tasks of each task's share.",
        better="lower",
    ),
)

_KINDS = {
    "annotated": "contexts that people labelled as not holding the answer",
    "random": "contexts taken from another question at random",
    "hard": "the passages that a search engine ranks best among those without the answer",
}


def by_name(name: str) -> Measurement:
    """The measurement of that name; also `robustness_agree_random` and the like.

    Raises:
      KeyError: no such measurement.
    """
    for measurement in MAIN + DETAILS + RETENTION:
        if measurement.name == name:
            return measurement
    for base in (m for m in MAIN if m.name.startswith("robustness")):
        if name.startswith(base.name + "_"):
            kind = name[len(base.name) + 1 :]
            return Measurement(
                name=name,
                title=f"{base.title}, {kind} contexts",
                group="Irrelevant contexts by kind",
                on=_KINDS.get(kind, f"irrelevant contexts of kind {kind}"),
                definition=f"As {base.title[0].lower()}{base.title[1:]}, on this kind alone.",
            )
    raise KeyError(name)
