"""Short made-up profiles: several claims about each of one or two made-up subjects.

They teach a reader to tell one relation from another: all claims about a subject are of different
relations, and two subjects share relations, so that both the name and the relation must be
matched to find the answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from kaft_promot.knowledge.relations import RELATIONS
from kaft_promot.mini.names import made_up

# Relations whose subjects are of one sort: people, works, places, organisations.
SORTS: tuple[tuple[str, ...], ...] = (
    (
        "P19",
        "P20",
        "P27",
        "P103",
        "P106",
        "P101",
        "P39",
        "P1303",
        "P413",
        "P108",
        "P937",
        "P140",
        "P1412",
    ),
    ("P136", "P364", "P407", "P449", "P495", "P264", "P178", "P176"),
    ("P17", "P131", "P36", "P37", "P30", "P190", "P1376"),
    ("P159", "P740", "P127", "P17", "P463"),
)


def draw_profile(
    names: Mapping[str, Sequence[str]],
    objects: Mapping[str, Sequence[str]],
    real: frozenset[str],
    rng: random.Random,
) -> dict[str, str] | None:
    """`question`, `context` and `answer`; None where the draw gave a real subject or an ambiguous
    context.
    """
    sort = [r for r in rng.choice(SORTS) if names.get(r) and objects.get(r)]
    if len(sort) < 3:
        return None
    relations = rng.sample(sort, rng.randint(2, 3))
    subjects = {made_up(names[relations[0]], rng) for _ in range(rng.randint(1, 2))}
    if subjects & real or any(len(s) < 4 or len(s) > 40 for s in subjects):
        return None
    claims = [
        (subject, relation, rng.choice(objects[relation]))
        for subject in sorted(subjects)
        for relation in relations
    ]
    rng.shuffle(claims)
    claims = claims[:4]
    if len({claim[2] for claim in claims}) < len(claims):
        return None
    if any(a != b and a in b for a in subjects for b in subjects):
        return None
    subject, relation, answer = claims[rng.randrange(len(claims))]
    if answer in subject:
        return None
    context = " ".join(RELATIONS[r].claim.format(subject=s, object=o) for s, r, o in claims)
    wordings = RELATIONS[relation].questions
    return {
        "question": wordings[rng.randrange(len(wordings))].format(subject=subject),
        "context": context,
        "answer": answer,
        "relation": relation,
    }
