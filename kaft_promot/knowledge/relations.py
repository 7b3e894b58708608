"""The Wikidata relations of T-REx in words: questions, a claim, and the type of thing that answers.

All wordings are this project's own. mini is trained on every question wording of a relation; the
first one is canonical and is the one that readers and the quickstart ask. The types are used by
the `type` proposer, so that a place may be swapped for a place of another relation.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A Wikidata relation in words.

    Attributes:
      id: Wikidata property id, such as `P19`.
      label: its English label.
      answer_type: coarse type of its objects.
      one_valued: whether a subject has one object (T-REx's types `N-1` and `1-1`).
      questions: templates with `{subject}`; the first is the canonical one.
      claim: a statement with `{subject}` and `{object}`.
    """

    id: str
    label: str
    answer_type: str
    one_valued: bool
    questions: tuple[str, ...]
    claim: str

    def question(self, subject: str, wording: int = 0) -> str:
        """The question about `subject` in wording number `wording`."""
        return self.questions[wording].format(subject=subject)


# id | label | answer type | objects (1: one-valued, n: many) | questions ... | claim
# S and O are subject and object.
_TABLE = """
P17 | country | country | 1 | What country is S in? | In which country is S? | S belongs to which country? | S is in O.
P19 | place of birth | place | 1 | Where was S born? | What is the birthplace of S? | In what place was S born? | S was born in O.
P20 | place of death | place | 1 | Where did S die? | What is the place of death of S? | In what place did S die? | S died in O.
P27 | country of citizenship | country | n | What country is S a citizen of? | Which country is S from? | What is the nationality of S? | S is a citizen of O.
P30 | continent | continent | 1 | What continent is S on? | On which continent is S? | S is part of which continent? | S is on the continent of O.
P31 | instance of | class | n | What is S? | What kind of thing is S? | S is an example of what? | S is an instance of O.
P36 | capital | place | 1 | What is the capital of S? | Which place is the capital of S? | Where is the seat of S? | The capital of S is O.
P37 | official language | language | 1 | What is the official language of S? | Which language is official in S? | Which official language does S have? | The official language of S is O.
P39 | position held | office | n | What position did S hold? | Which office did S hold? | What was the office of S? | S held the position of O.
P47 | shares border with | place | n | What does S border? | Which place does S share a border with? | What is next to S? | S borders O.
P54 | member of sports team | team | 1 | What team does S play for? | Which club did S play for? | What is the team of S? | S plays for O.
P69 | educated at | organisation | n | Where did S study? | Which school did S attend? | Where was S educated? | S studied at O.
P101 | field of work | field | n | What field does S work in? | What is the field of S? | Which subject does S work on? | S works in the field of O.
P102 | member of political party | organisation | 1 | What party does S belong to? | Which political party is S in? | What is the party of S? | S belongs to the O.
P103 | native language | language | 1 | What is the native language of S? | What is the mother tongue of S? | Which language did S grow up with? | The native language of S is O.
P106 | occupation | occupation | n | What is the occupation of S? | What does S do for a living? | What is the profession of S? | S works as O.
P108 | employer | organisation | n | Who does S work for? | Which employer does S have? | Where does S work? | S works for O.
P127 | owned by | organisation | 1 | Who owns S? | Who is the owner of S? | S is owned by whom? | S is owned by O.
P131 | located in the administrative territorial entity | place | 1 | What region is S in? | In which region is S? | Which state or district is S in? | S is in the region of O.
P136 | genre | genre | 1 | What genre is S? | Which genre does S belong to? | What style is S known for? | The genre of S is O.
P138 | named after | namesake | 1 | What is S named after? | Where does the name of S come from? | Who or what gave S its name? | S is named after O.
P140 | religion | religion | 1 | What is the religion of S? | Which religion does S belong to? | Which faith does S follow? | The religion of S is O.
P159 | headquarters location | place | 1 | Where is the headquarters of S? | Where is S based? | In what place does S have its head office? | The headquarters of S is in O.
P166 | award received | award | n | What award did S win? | Which award did S receive? | What prize was given to S? | S received the O.
P176 | manufacturer | organisation | 1 | Who makes S? | Which company makes S? | Who is the manufacturer of S? | S is made by O.
P178 | developer | organisation | n | Who developed S? | Which company developed S? | Who is the developer of S? | S was developed by O.
P190 | twinned administrative body | place | n | What is the twin city of S? | Which place is S twinned with? | What is the sister city of S? | S is twinned with O.
P264 | record label | organisation | 1 | What is the record label of S? | Which label released S? | Which record label is S on? | The record label of S is O.
P276 | location | place | 1 | Where is S? | What is the location of S? | In what place is S? | S is in O.
P279 | subclass of | class | 1 | What is S a kind of? | What type of thing is S? | S is a type of what? | S is a kind of O.
P361 | part of | whole | 1 | What is S part of? | S is a part of what? | What does S belong to? | S is part of O.
P364 | original language of film or TV show | language | 1 | What is the original language of S? | What language was S made in? | Which language is spoken in S? | The original language of S is O.
P407 | language of work or name | language | 1 | What language is S in? | What language was S written in? | Which language does S use? | S is in O.
P413 | position played on team / speciality | position | 1 | What position does S play? | Which position did S play? | S plays in what position? | S plays as O.
P449 | original network | organisation | 1 | What network first aired S? | Which channel was S shown on? | Which network did S air on? | S first aired on O.
P463 | member of | organisation | n | What is S a member of? | Which group does S belong to? | Which organisation did S join? | S is a member of O.
P495 | country of origin | country | 1 | What country did S come from? | Which country made S? | What is the country of origin of S? | S comes from O.
P527 | has part | part | n | What does S contain? | What is S made of? | What is a part of S? | S contains O.
P530 | diplomatic relation | country | n | Which country does S have relations with? | With which country does S have diplomatic relations? | Which country is a diplomatic partner of S? | S has diplomatic relations with O.
P740 | location of formation | place | 1 | Where was S formed? | Where was S founded? | In what place did S start? | S was formed in O.
P937 | work location | place | n | Where did S work? | In what place did S work? | Which place did S work in? | S worked in O.
P1001 | applies to jurisdiction | place | n | Where does S apply? | What place does S apply to? | Which place does S govern? | S applies to O.
P1303 | instrument | instrument | n | What instrument does S play? | Which instrument did S play? | What is the instrument of S? | S plays the O.
P1376 | capital of | place | 1 | What is S the capital of? | S is the capital of which place? | Which place has S as its capital? | S is the capital of O.
P1412 | languages spoken, written or signed | language | n | What language does S speak? | Which language did S write in? | In which language did S work? | S speaks O.
P1923 | participating team | team | n | Which team took part in S? | Who played in S? | What team was in S? | O took part in S.
"""  # noqa: E501


def _read_table(table: str) -> dict[str, Relation]:
    relations = {}
    for line in table.strip().splitlines():
        name, label, answer_type, objects, *wordings = line.split(" | ")
        filled = [" ".join(map(_slot, wording.split(" "))) for wording in wordings]
        relations[name] = Relation(
            id=name,
            label=label,
            answer_type=answer_type,
            one_valued=objects == "1",
            questions=tuple(filled[:-1]),
            claim=filled[-1],
        )
    return relations


def _slot(word: str) -> str:
    """A word of a wording, with the slots `S` and `O` (and what punctuation follows) in format's
    form.
    """
    for short, name in (("S", "{subject}"), ("O", "{object}")):
        if word.rstrip("?.") == short:
            return name + word[1:]
    return word


RELATIONS: dict[str, Relation] = _read_table(_TABLE)


def question_for(relation: str, subject: str, template: str | None = None) -> str | None:
    """The question that asks for the object of (subject, relation).

    Args:
      relation: a Wikidata property, e.g. "P19".
      subject: the subject's label.
      template: a statement such as "[X] was born in [Y] ."; used for relations unknown here, as
        the statement up to its gap.

    Returns:
      The question, or None if the relation is unknown and no usable template is given.

    >>> question_for("P19", "Ada Lovelace")
    'Where was Ada Lovelace born?'
    >>> question_for("P9999", "Ada", "[X] was painted by [Y] .")
    'Ada was painted by what?'
    """
    if relation in RELATIONS:
        return RELATIONS[relation].question(subject)
    if template is None or "[X]" not in template or "[Y]" not in template:
        return None
    statement = template.rstrip(" .").replace("[Y]", "what").replace("[X]", subject)
    return f"{statement}?"


def answer_type_for(relation: str) -> str | None:
    """The type of a relation's objects, or None if the relation is unknown here."""
    return RELATIONS[relation].answer_type if relation in RELATIONS else None
