"""Output share: the target task's own predicate decides."""

import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation.output_share import in_format, one_of, register_format


def test_the_share_is_what_the_registered_predicate_says():
    register_format("share_rte", one_of("True", "False"))
    outputs = ["True", " false.", "Paris", "", "not true", "TRUE"]
    assert in_format(outputs, "share_rte") == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    register_format("share_french", lambda output: output.startswith("le "))
    assert in_format(["le chat", "the cat"], "share_french") == [1.0, 0.0]


def test_a_target_without_a_predicate_is_an_error():
    with pytest.raises(UserError, match="target task 'share_none' has no format predicate"):
        in_format([], "share_none")
