"""What is cut off an output before it is compared."""

import pytest

from kaft_promot.evaluation.language import written_in
from kaft_promot.evaluation.outputs import clean_output


@pytest.mark.parametrize(
    ("output", "prefix", "clean"),
    [
        (" Rome \n", "", "Rome"),
        ("<extra_id_0> Rome <extra_id_1> is nice <extra_id_2>", "", "Rome"),
        ("<extra_id_0> Rome", "", "Rome"),
        ("so <extra_id_0> Rome<extra_id_1>", "", "Rome"),
        ("Rome <extra_id_1> is", "", "Rome"),
        ("Rome\nQ: Who? A: Me Q: What?", "Q:", "Rome"),
        ("Q: Where? A: Rome Q: Who? A: Me", "Q:", "Q: Where? A: Rome"),
        ("<extra_id_0> Rome Q: Who? <extra_id_1>", "Q:", "Rome"),
        ("Rome", "Q:", "Rome"),
        ("", "Q:", ""),
    ],
)
def test_clean_output(output, prefix, clean):
    assert clean_output(output, prefix) == clean


def test_written_in_needs_more_words_than_any_other_language():
    german = written_in("de")
    assert german("Der Hund schläft.") and german("für")
    assert not german("The dog sleeps.") and not german("Hund") and not german("12 %")
    assert not german("der the of and")
    # White space, case and punctuation do not matter.
    assert german("NICHT, DER\tWIE")
