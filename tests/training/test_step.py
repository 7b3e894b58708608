"""The training step: stages, microbatches, clipping, metrics, memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_tiny import CONFIG, batch, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.models import flatten, stack_layers, unstack_layers
from kaft_promot.scale import MeshConfig
from kaft_promot.training import (
    FULL,
    MODEL,
    PROMPT,
    Adafactor,
    AdamW,
    Stage,
    init_state,
    make_eval_step,
    make_train_step,
    merge,
    partition,
)
from kaft_promot.training.step import forward

OPTIMIZER = Adafactor(learning_rate=0.1)
PROMPTED = dataclasses.replace(CONFIG, prompt_length=3, num_prompts=1)


@pytest.fixture(scope="module")
def params():
    return numpy_params(CONFIG)


@pytest.fixture(scope="module")
def prompted():
    return numpy_params(PROMPTED)


def prompted_batch():
    made = batch()
    made["encoder_input_tokens"][:, :3] = PROMPTED.placeholder_ids()
    return made


def new_state(params, stage=FULL, optimizer=OPTIMIZER):
    return init_state(params, optimizer, stage, MeshConfig().make())


def test_training_lowers_the_loss(params):
    state, step = new_state(params), make_train_step(CONFIG, OPTIMIZER)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch())
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0]
    assert int(state.step) == 60


def test_metrics_of_a_step(params):
    one = batch()
    _, metrics = make_train_step(CONFIG, OPTIMIZER, z_loss=0.0)(new_state(params), one)
    logits = np.asarray(jax.jit(lambda p, b: forward(CONFIG, p, b))(params, one))
    weights = one["decoder_loss_weights"]
    log_probs = jax.nn.log_softmax(logits)
    picked = np.take_along_axis(log_probs, one["decoder_target_tokens"][..., None], -1)[..., 0]
    mean = float(-(picked * weights).sum() / weights.sum())
    assert float(metrics["loss"]) == pytest.approx(mean, rel=1e-4)
    right = logits.argmax(-1) == one["decoder_target_tokens"]
    assert float(metrics["accuracy"]) == pytest.approx(
        float((right * weights).sum() / weights.sum())
    )
    assert float(metrics["tokens"]) == weights.sum()
    assert float(metrics["learning_rate"]) == pytest.approx(0.1)
    sums = make_eval_step(CONFIG)(params, one)
    assert float(sums["loss"]) == pytest.approx(mean * weights.sum(), rel=1e-4)
    assert float(sums["weights"]) == weights.sum()


@pytest.mark.parametrize("factor", [None, "AVERAGE_PER_SEQUENCE"])
def test_microbatches_equal_the_whole_batch(params, factor):
    optimizer = AdamW(learning_rate=0.01)
    results = []
    for parts in (1, 2):
        step = make_train_step(
            CONFIG, optimizer, loss_normalizing_factor=factor, num_microbatches=parts
        )
        state, metrics = new_state(params, optimizer=optimizer), {}
        for seed in range(2):
            state, metrics = step(state, batch(seed=seed))
        results.append((flatten(state.params), metrics))
    (whole, whole_metrics), (parted, parted_metrics) = results
    for name in ("loss", "accuracy", "tokens", "gradient_norm"):
        assert float(parted_metrics[name]) == pytest.approx(float(whole_metrics[name]), rel=1e-4)
    for path, value in whole.items():
        np.testing.assert_allclose(parted[path], value, atol=2e-5, err_msg=path)


def test_indivisible_microbatches_are_a_user_error(params):
    step = make_train_step(CONFIG, OPTIMIZER, num_microbatches=3)
    for use in (step, step.compile):
        with pytest.raises(UserError, match="num_microbatches = 3"):
            use(new_state(params), batch())


def test_clipping_bounds_the_update(params):
    class Plain:  # gradient descent with rate 1: the update is the gradient
        learning_rate = 1.0

        def make(self, axes):
            return optax.sgd(1.0)

    moves = {}
    for threshold in (None, 0.5):
        step = make_train_step(CONFIG, Plain(), global_norm_clip_threshold=threshold)
        state, metrics = step(new_state(params, optimizer=Plain()), batch())
        moved = jax.tree.map(jnp.subtract, state.params, params)
        moves[threshold] = float(optax.global_norm(moved))
        assert float(metrics["gradient_norm"]) > 1.0  # before clipping
    assert moves[None] > 1.0
    assert moves[0.5] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_norm_clip_threshold": 0.0}, "global_norm_clip_threshold = 0.0: .*None for no cl"),
        ({"global_norm_clip_threshold": -1.0}, "global_norm_clip_threshold = -1.0: .*above 0"),
        ({"global_norm_clip_threshold": float("nan")}, "global_norm_clip_threshold = nan"),
        ({"z_loss": -1.0}, "z_loss = -1.0: must be at least 0"),
    ],
)
def test_settings_that_freeze_or_climb_are_refused(arguments, message):
    """A threshold of 0 would stop every update, a negative one or z-loss would climb."""
    with pytest.raises(UserError, match=message):
        make_train_step(CONFIG, OPTIMIZER, **arguments)


def test_prompt_stage_changes_the_prompt_alone(prompted):
    state = new_state(prompted, PROMPT)
    assert list(flatten(state.trainable)) == ["encoder/prompt/prompt/prompt"]
    sizes = [x.size for x in jax.tree.leaves(state.opt_state)]
    assert sum(sizes) < 2 * prompted["encoder"]["prompt"]["prompt"]["prompt"].size + 10
    before = {path: np.array(x) for path, x in flatten(prompted).items()}
    step = make_train_step(PROMPTED, OPTIMIZER)
    for _ in range(3):
        state, _ = step(state, prompted_batch())
    for path, value in flatten(state.params).items():
        same = np.array_equal(value, before[path])
        assert same != ("prompt" in path), path


def test_model_stage_leaves_the_prompt_as_it_is(prompted):
    state = new_state(prompted, MODEL)
    assert "encoder/prompt/prompt/prompt" not in flatten(state.trainable)
    state, _ = make_train_step(PROMPTED, OPTIMIZER)(state, prompted_batch())
    after = flatten(state.params)
    for path, value in flatten(prompted).items():
        assert np.array_equal(value, after[path]) == ("prompt/prompt" in path), path


def test_stages_partition_and_merge(prompted):
    trainable, frozen = partition(prompted, Stage(trainable=(r".*/attention/.*", r".*prompt.*")))
    flat = set(flatten(trainable))
    assert "encoder/layers_0/attention/query/kernel" in flat
    assert flat.isdisjoint(flatten(frozen))
    assert flatten(merge(trainable, frozen)).keys() == flatten(prompted).keys()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage(trainable=(".*", ".*lora.*")), r"lora.*matches no parameter"),
        (PROMPT, r"prompt.*matches no parameter"),
        (Stage(frozen=".*"), "nothing is left to train"),
    ],
)
def test_stages_that_train_nothing_are_user_errors(params, stage, message):
    with pytest.raises(UserError, match=message):
        new_state(params, stage)


def test_a_broken_pattern_is_a_user_error():
    with pytest.raises(UserError, match="not a regular expression"):
        Stage(trainable="(")


def test_scanned_layers_train_as_unrolled_ones():
    two = dataclasses.replace(CONFIG, num_encoder_layers=2, num_decoder_layers=2)
    params = numpy_params(two)
    scanned = dataclasses.replace(two, scan_layers=True)
    small = Adafactor(learning_rate=0.1, min_dim_size_to_factor=4)
    results = []
    for config, start in ((two, params), (scanned, stack_layers(params))):
        state, step = new_state(start, optimizer=small), make_train_step(config, small)
        for seed in range(3):
            state, _ = step(state, batch(seed=seed))
        results.append(flatten(unstack_layers(state.params)))
    for path, value in results[0].items():
        np.testing.assert_allclose(results[1][path], value, atol=1e-4, err_msg=path)


def test_equal_arguments_share_one_program_and_the_start_survives(params):
    step = make_train_step(CONFIG, Adafactor(learning_rate=0.1))
    assert step is make_train_step(CONFIG, OPTIMIZER)
    before = {path: np.array(x) for path, x in flatten(params).items()}
    ends = []
    for _ in range(2):  # two arms from the same parameters in memory
        state = new_state(params)
        for seed in range(2):
            state, _ = step(state, batch(seed=seed))
        ends.append(flatten(state.params))
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(value, before[path])
        np.testing.assert_array_equal(ends[0][path], ends[1][path])


def test_dropout_depends_on_seed_and_step_only(params):
    config = dataclasses.replace(CONFIG, dropout_rate=0.3)
    # Steps of rate 0 leave the parameters, so that only dropout can change the loss.
    still = AdamW(learning_rate=0.0)
    step = make_train_step(config, still)

    def losses(seed):
        state, found = init_state(params, still, FULL, MeshConfig().make(), seed), []
        for _ in range(3):
            state, metrics = step(state, batch())
            found.append(float(metrics["loss"]))
        return found

    first = losses(0)
    assert len(set(first)) == 3
    assert losses(0) == first
    assert losses(1) != first


def test_missing_features_are_a_user_error(params):
    one = batch()
    del one["decoder_input_tokens"]
    with pytest.raises(UserError, match="has no decoder_input_tokens"):
        make_train_step(CONFIG, OPTIMIZER)(new_state(params), one)
