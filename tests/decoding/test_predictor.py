"""Text in, text out: order, buckets, long prompts, names for sampling, errors."""

import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaft_promot.decoding import Predictor, greedy, programs, score, trace_counts
from kaft_promot.decoding.batching import bucket_length, group_by_length, pad
from kaft_promot.errors import UserError

letters = st.text(alphabet="abcdefghijklmn", max_size=20)


@pytest.fixture(scope="module")
def make(config, params, vocabulary):
    def make_predictor(**options):
        options = {"batch_size": 4, "max_decode_length": 8, "max_input_length": 64} | options
        return Predictor(config, params, vocabulary, **options)

    return make_predictor


def one_by_one(config, params, vocabulary, prompts):
    texts = []
    for prompt in prompts:
        inputs = pad([[*vocabulary.encode(prompt), 1]], 4, 32)
        tokens = greedy(config, params, inputs, 8).tokens[0].tolist()
        texts.append(vocabulary.decode(tokens[: tokens.index(1)] if 1 in tokens else tokens))
    return texts


@settings(max_examples=20, deadline=None)
@given(prompts=st.lists(letters, max_size=11))
def test_order_is_restored(make, config, params, vocabulary, prompts):
    assert make().generate(prompts) == one_by_one(config, params, vocabulary, prompts)


def test_texts_and_their_ids_give_the_same(make, vocabulary):
    prompts = ["abc", "nmlkj", "", "aaaaaaaa"]
    ids = [[*vocabulary.encode(p), 1] for p in prompts]
    predictor = make()
    assert predictor.generate(prompts) == predictor.generate(ids)
    for text, tokens in zip(
        predictor.generate(prompts), predictor.generate_tokens(prompts), strict=True
    ):
        assert vocabulary.decode(tokens) == text
        assert 0 not in tokens
        assert 1 not in tokens


def test_no_batch_recompiles(make):
    predictor = make()
    prompts = ["a" * n for n in range(10, 40)]
    predictor.generate(prompts)
    predictor.score(prompts, prompts)
    before = trace_counts()
    predictor.generate(prompts[:21:-1] + prompts[:3])
    predictor.score(prompts[3:13], prompts[5:15])
    assert trace_counts() == before
    predictor.generate(["a" * 100])  # cut to 64 tokens, a length that is compiled
    assert trace_counts() == before


def test_long_prompts_are_cut_with_a_warning(make, caplog):
    predictor = make(max_input_length=10)
    long, short = "abcdefghijklmn", "abcdefghi"
    with caplog.at_level(logging.WARNING):
        texts = predictor.generate([short, long])
    assert texts[0] == texts[1]  # both are 'abcdefghi' and the end token
    assert predictor.truncated == 1
    assert "1 of 2 prompts" in caplog.text
    assert "number 1 with 15" in caplog.text


def test_long_prompts_are_an_error_on_demand(make):
    predictor = make(max_input_length=10, on_long_input="error")
    assert len(predictor.generate(["abcdefghi"])) == 1
    with pytest.raises(UserError, match=r"max_input_length=10.*number 1 with 12"):
        predictor.generate(["ab", "abcdefghijk"])


def test_score_equals_the_program(make, config, params, vocabulary):
    prompts = ["abc", "n", "hijklm", "abcabcabc", "dd"]
    targets = ["a", "bcd", "", "mmmmmmmmmm", "ef"]
    found = make().score(prompts, targets)
    assert found.dtype == np.float32
    for i, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        inputs = pad([[*vocabulary.encode(prompt), 1]], 4, 32)
        outputs = pad([[*vocabulary.encode(target), 1]], 4, 16)
        assert found[i] == pytest.approx(float(score(config, params, inputs, outputs)[0]), abs=1e-4)


def test_samples_depend_on_seed_and_name_only(make):
    prompts = ["abc", "nmlkj", "abc", "aaaaaaaa", "hh", "klm"]
    names = [f"q{i}" for i in range(6)]
    options = {"method": "sample", "temperature": 2.0}
    texts = make(**options).generate(prompts, ids=names)
    back = make(**options, batch_size=3).generate(prompts[::-1], ids=names[::-1])
    assert back[::-1] == texts
    assert make(**options, seed=1).generate(prompts, ids=names) != texts
    unnamed = make(**options).generate(prompts)
    assert make(**options).generate(prompts[:3]) == unnamed[:3]
    assert unnamed[0] != unnamed[2]  # equal prompts are drawn apart


def test_beam_returns_the_best_hypothesis(make, config, params, vocabulary):
    prompts = ["abc", "nmlkj", "hh"]
    found = make(method="beam", num_beams=3).generate(prompts)
    inputs = pad([[*vocabulary.encode(p), 1] for p in prompts], 4, 32)
    best = np.asarray(programs.beam_search(config, params, inputs, 8, num_beams=3).tokens[:3, -1])
    for text, row in zip(found, best.tolist(), strict=True):
        assert text == vocabulary.decode(row[: row.index(1)] if 1 in row else row)


def test_prompts_may_hold_soft_prompt_placeholders(config, params, vocabulary):
    config = dataclasses.replace(config, prompt_length=2, num_prompts=1)
    encoder = params["encoder"] | {"prompt": {"prompt": {"prompt": 3 * np.eye(2, 8)}}}
    predictor = Predictor(config, params | {"encoder": encoder}, vocabulary, max_decode_length=8)
    attached = [[*config.placeholder_ids(), *vocabulary.encode(p), 1] for p in ("ab", "lmn")]
    plain = [[*vocabulary.encode(p), 1] for p in ("ab", "lmn")]
    mixed = predictor.generate_tokens([attached[0], plain[1], attached[1], plain[0]])
    assert mixed[0] != mixed[3]
    with pytest.raises(UserError, match="takes ids 1 to 18"):
        predictor.generate([[19, 1]])


def test_a_prefix_stands_in_front_of_every_prompt(config, params, vocabulary):
    config = dataclasses.replace(config, prompt_length=2, num_prompts=1)
    encoder = params["encoder"] | {"prompt": {"prompt": {"prompt": 3 * np.eye(2, 8)}}}
    model = (config, params | {"encoder": encoder}, vocabulary)
    prefix = config.placeholder_ids()
    texts = ["ab", "lmn", "", "a" * 40]
    ids = [[*vocabulary.encode(text), 1] for text in texts]
    plain = Predictor(*model, max_decode_length=8)
    attached = Predictor(*model, prefix=prefix, max_input_length=32, max_decode_length=8)
    by_hand = plain.generate([[*prefix, *row[:31], 1] for row in ids[3:]])
    by_hand = plain.generate([[*prefix, *row] for row in ids[:3]]) + by_hand
    assert attached.generate(texts) == by_hand  # the prefix takes no room from a text
    assert attached.truncated == 1
    scores = attached.score(texts[:3], ["a", "b", "c"])
    expected = plain.score([[*prefix, *row] for row in ids[:3]], ["a", "b", "c"])
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    with pytest.raises(UserError, match="prefix number 0 has token id 99"):
        Predictor(*model, prefix=[99])


def test_progress_is_shown(make, capsys):
    make().generate(["abc"] * 5, progress=True)
    assert "5/5" in capsys.readouterr().err


def test_bad_input_is_told_in_one_line(make, config, params, vocabulary):
    with pytest.raises(UserError, match="prompt number 1 has no tokens"):
        make().generate([[3, 1], []])
    with pytest.raises(UserError, match="prompt number 0 has token id 99"):
        make().generate([[99, 1]])
    with pytest.raises(UserError, match="target number 0 has token id 0"):
        make().score(["a"], [[3, 0]])
    with pytest.raises(UserError, match="2 prompts but 1 targets"):
        make().score(["a", "b"], ["a"])
    with pytest.raises(UserError, match="2 prompts but 1 ids"):
        make(method="sample").generate(["a", "b"], ids=["a"])
    for options in (
        {"method": "nucleus"},
        {"on_long_input": "drop"},
        {"batch_size": 0},
        {"num_beams": 0},
        {"top_p": 3},
    ):
        with pytest.raises(UserError, match=next(iter(options))):
            make(**options)
    big = type("Big", (type(vocabulary),), {"vocab_size": 99})()
    with pytest.raises(UserError, match="99 ids, the model only 17"):
        Predictor(config, params, big)


@given(st.lists(st.integers(1, 500), max_size=60), st.sampled_from([1, 8, 20]), st.integers(1, 16))
def test_groups_hold_every_row_once_longest_first(lengths, batch_size, parts):
    groups = list(group_by_length(lengths, batch_size, parts))
    rows = [i for group in groups for i in group.rows]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[i] for i in rows] == sorted(lengths, reverse=True)
    assert all(len(g.rows) <= g.batch_size < batch_size + parts for g in groups)
    assert all(g.batch_size % parts == 0 for g in groups)
    assert len({g.batch_size for g in groups}) <= 1


@given(st.integers(1, 2000))
def test_buckets_hold_their_lengths(length):
    size = bucket_length(length)
    assert length <= size <= max(32, 2 * length)
    assert bucket_length(length, largest=700) == min(size, 700)
