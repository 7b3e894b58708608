"""In which of four languages a text is written, by its surface: function words and letters.

This is the format of a translation task's outputs (see `output_share`). A text of names and numbers
is in none of the languages, and so are most answers of one or two words: the predicate is meant
for the question whether a model that was tuned to translate now answers everything in that
language.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Frequent function words. Words that are as frequent in another of the languages are left out:
# "de", "la", "un", "ce" (fr, ro), "des", "du" (fr, de), "in", "an", "so", "am", "was" (en, de).
_FUNCTION_WORDS = {
    "en": "the of and to is for that with by it from be at this have had not they which his their "
    "were been who would on he she has we you its will can there when what all one out up",
    "fr": "le les et est une dans que qui pour pas sur aux cette il elle ils avec par sont été "
    "être mais ou où nous vous leur ses son je se ne en l qu n",
    "de": "der die das und ist nicht mit von dem den ein eine einer einem einen eines auf sich "
    "auch als werden aus dass nach wird bei sind noch wie zum zur haben wurde sein vom oder aber "
    "kann wir sie er ich im zu es",
    "ro": "și şi este în din cu pe să sunt nu că pentru fost prin după când această acest acesta "
    "ale sau unei unui cea cel cei mai mă îl îi își o ei lor el",
}
# Letters that the other three languages hardly use.
_LETTERS = {"en": "", "fr": "éèêàçùûïôœë", "de": "äöüß", "ro": "ășțşţ"}
_WORDS = {language: frozenset(text.split()) for language, text in _FUNCTION_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")


def written_in(language: str) -> Callable[[str], bool]:
    """Whether a text has more words of `language` than of English, French, German or Romanian.

    Counted are its function words and the words with a letter of its own.

    Args:
      language: `en`, `fr`, `de` or `ro`.

    >>> is_french = written_in("fr")
    >>> is_french("Le chat est dans la maison."), is_french("The cat is in Paris"), is_french("cat")
    (True, False, False)
    """
    others = [other for other in _WORDS if other != language]

    def predicate(text: str) -> bool:
        words = [word.lower() for word in _WORD.findall(text)]
        own = _count(words, language)
        return own > 0 and all(own > _count(words, other) for other in others)

    return predicate


def _count(words: list[str], language: str) -> int:
    known, letters = _WORDS[language], _LETTERS[language]
    return sum(word in known or any(letter in letters for letter in word) for word in words)
