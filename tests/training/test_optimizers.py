"""Adafactor against an independent numpy version, schedules against values worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kaft_promot.errors import UserError
from kaft_promot.models import flatten, logical_axes, stack_layers, unflatten
from kaft_promot.training import Adafactor, AdamW, Muon, create_learning_rate_scheduler


def adafactor_by_hand(param, grads, rate, min_dim=128):
    """Shazeer and Stern's algorithm 4 with T5X's settings, in float64, one array."""
    row = col = full = 0.0
    for t, grad in enumerate(grads, start=1):
        decay = 1.0 - t**-0.8
        square = grad**2 + 1e-30
        if param.ndim == 2 and min(param.shape) >= min_dim:
            row = decay * row + (1 - decay) * square.mean(axis=1)
            col = decay * col + (1 - decay) * square.mean(axis=0)
            update = grad / np.sqrt(np.outer(row, col) / row.mean())
        else:
            full = decay * full + (1 - decay) * square
            update = grad / np.sqrt(full)
        update = update / max(1.0, np.sqrt((update**2).mean()))
        scale = max(1e-3, np.sqrt((param**2).mean()))
        param = param - rate * scale * update
    return param


@pytest.mark.parametrize("shape", [(4, 6), (5,), (3, 9)])
def test_adafactor_equals_the_algorithm_by_hand(shape):
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape)
    grads = [rng.normal(size=shape) * 10.0**-i for i in range(5)]
    optimizer = Adafactor(learning_rate=0.1, min_dim_size_to_factor=4)
    transform = optimizer.make({"w": ("embed", "mlp")[: len(shape)]})
    params = {"w": jnp.float32(start)}
    state = transform.init(params)
    for grad in grads:
        updates, state = transform.update({"w": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
    want = adafactor_by_hand(start, grads, 0.1, min_dim=4)
    np.testing.assert_allclose(params["w"], want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_rate": 0.0}, "Adafactor.decay_rate = 0.0: must be above 0"),
        ({"decay_rate": -0.8}, "Adafactor.decay_rate = -0.8: must be above 0"),
        ({"step_offset": 1000}, "Adafactor.step_offset = 1000: .*counts its steps from its own"),
        ({"clipping_threshold": 0.0}, "Adafactor.clipping_threshold = 0.0: .*None for no clipp"),
        ({"clipping_threshold": -1.0}, "Adafactor.clipping_threshold = -1.0: must be above 0"),
    ],
)
def test_adafactor_refuses_what_makes_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        Adafactor(**settings)


def test_adafactor_factors_matrices_only():
    axes = {"matrix": ("embed", "mlp"), "small": ("heads", "relpos_buckets"), "norm": ("embed",)}
    params = {"matrix": jnp.ones((6, 8)), "small": jnp.ones((2, 8)), "norm": jnp.ones(6)}
    state = Adafactor(min_dim_size_to_factor=6).make(axes).init(params)
    elements = sum(x.size for x in jax.tree.leaves(state) if x.size > 1)
    assert elements == (6 + 8) + 2 * 8 + 6


def test_adafactor_updates_stacked_layers_as_if_they_were_apart():
    rng = np.random.default_rng(1)
    # The third layer's gradients are far larger; a shared scale or clipping would show.
    params = rng.normal(size=(3, 4, 6)) * np.array([1, 0.01, 5])[:, None, None]
    grads = rng.normal(size=(4, 3, 4, 6)) * np.array([1, 1, 1000])[:, None, None]
    optimizer = Adafactor(learning_rate=0.1, min_dim_size_to_factor=4)
    transform = optimizer.make({"w": ("layers", "embed", "mlp"), "b": ("embed",)})
    tree = {"w": jnp.float32(params), "b": jnp.ones(4)}
    state = transform.init(tree)
    for grad in grads:
        updates, state = transform.update({"w": jnp.float32(grad), "b": jnp.zeros(4)}, state, tree)
        tree = optax.apply_updates(tree, updates)
    for layer in range(3):
        want = adafactor_by_hand(params[layer], list(grads[:, layer]), 0.1, min_dim=4)
        np.testing.assert_allclose(tree["w"][layer], want, rtol=2e-5, atol=1e-6)


def test_adamw_first_step_and_decay():
    optimizer = AdamW(learning_rate=0.1, weight_decay=0.5)
    params = {"mlp": {"kernel": jnp.ones((2, 2))}, "norm": {"scale": jnp.ones(2)}}
    transform = optimizer.make({"mlp": {"kernel": ("embed", "mlp")}, "norm": {"scale": ("embed",)}})
    grads = jax.tree.map(lambda x: 3.0 * x, params)
    updates, _ = transform.update(grads, transform.init(params), params)
    # The first step is the learning rate times the sign; only the kernel decays.
    np.testing.assert_allclose(updates["mlp"]["kernel"], -0.1 - 0.1 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(updates["norm"]["scale"], -0.1, rtol=1e-5)


@pytest.mark.parametrize(
    ("factors", "arguments", "values"),
    [
        ("constant", {}, {0: 0.5, 999: 0.5}),
        ("constant * linear_warmup", {}, {0: 1e-8, 10: 0.05, 100: 0.5, 500: 0.5}),
        ("constant*linear_warmup*rsqrt_decay", {}, {50: 0.025, 100: 0.05, 400: 0.025}),
        ("constant * rsqrt_normalized_decay", {}, {0: 0.5, 100: 0.5, 400: 0.25}),
        ("linear_decay", {"decay_factor": 0.001}, {50: 0.25, 100: 0.5, 600: 0.25, 1200: 1e-8}),
        ("constant * decay_every", {"steps_per_decay": 10}, {9: 0.5, 10: 0.25, 25: 0.125}),
        ("constant * cosine_decay", {"steps_per_cycle": 200}, {100: 0.5, 200: 0.25, 300: 0.5}),
        ("constant * linear_warmup", {"step_offset": 1000}, {1000: 1e-8, 1010: 0.05}),
    ],
)
def test_schedule_values(factors, arguments, values):
    schedule = create_learning_rate_scheduler(
        factors, base_learning_rate=0.5, warmup_steps=100, **arguments
    )
    for step, value in values.items():
        assert float(schedule(step)) == pytest.approx(value, rel=1e-5), step


def test_schedules_and_optimizers_are_values():
    def make():
        return Adafactor(learning_rate=create_learning_rate_scheduler("constant"))

    assert make() == make()
    assert hash(make()) == hash(make())
    assert dataclasses.replace(make(), decay_rate=0.9) != make()


def test_bad_schedules_are_user_errors():
    with pytest.raises(UserError, match="warm_up"):
        create_learning_rate_scheduler("constant * warm_up")
    for factor, argument in (
        ("linear_warmup", "warmup_steps"),
        ("rsqrt_decay", "warmup_steps"),  # 1 / sqrt(0) at the first step
        ("decay_every", "steps_per_decay"),
        ("cosine_decay", "steps_per_cycle"),
    ):
        with pytest.raises(UserError, match=f"{argument} = 0.*{factor}"):
            create_learning_rate_scheduler(f"constant * {factor}", **{argument: 0})


def test_position_bias_factor_moves_biases_alone_faster():
    axes = {
        "encoder": {
            "relpos_bias": {"rel_embedding": ("heads", "relpos_buckets")},
            "encoder_norm": {"scale": ("embed",)},
        }
    }
    params = {
        "encoder": {
            "relpos_bias": {"rel_embedding": jnp.zeros((2, 4))},
            "encoder_norm": {"scale": jnp.ones((3,))},
        }
    }
    grads = jax.tree.map(jnp.ones_like, params)
    plain, fast = (
        AdamW(learning_rate=0.1, position_bias_factor=factor).make(axes) for factor in (1.0, 20.0)
    )
    expected, _ = plain.update(grads, plain.init(params), params)
    actual, _ = fast.update(grads, fast.init(params), params)
    np.testing.assert_allclose(
        actual["encoder"]["relpos_bias"]["rel_embedding"],
        20 * expected["encoder"]["relpos_bias"]["rel_embedding"],
    )
    np.testing.assert_array_equal(
        actual["encoder"]["encoder_norm"]["scale"], expected["encoder"]["encoder_norm"]["scale"]
    )


MATRIX = "encoder/layers_0/mlp/wi_0/kernel"


def muon_step(params, grads, **settings):
    """The change that one step of Muon makes, by path."""
    optimizer = Muon(learning_rate=1.0, **settings)
    nested, slopes = unflatten(params), unflatten(grads)
    transform = optimizer.make(logical_axes(nested))
    updates, _ = transform.update(slopes, transform.init(nested), nested)
    return {path: np.asarray(x) for path, x in flatten(updates).items()}


def some(rng, **shapes):
    return {path: rng.standard_normal(shape, np.float32) for path, shape in shapes.items()}


def test_muon_moves_a_matrix_alike_in_all_directions():
    rng = np.random.default_rng(0)
    params, grads = (some(rng, **{MATRIX: (16, 40)}) for _ in range(2))
    # A gradient that Adam would follow almost in one direction alone.
    u, _, v = np.linalg.svd(grads[MATRIX], full_matrices=False)
    sizes = np.geomspace(1.0, 1e-3, 16)
    grads[MATRIX] = ((u * sizes) @ v).astype(np.float32)
    update = muon_step(params, grads)[MATRIX]
    moved = -np.einsum("is,ij,sj->s", u, update, v)  # along each direction of the gradient
    assert moved.min() > 0.1 * moved.max()  # sizes differ by 1000
    # The size is that of Adam's steps: root mean square 0.2 at a learning rate of 1.
    assert np.sqrt(np.mean(update**2)) == pytest.approx(0.2, rel=0.3)


def test_muon_leaves_everything_but_layers_matrices_to_adam():
    rng = np.random.default_rng(1)
    shapes = {
        "token_embedder/embedding": (12, 8),
        "decoder/logits_dense/kernel": (8, 12),
        "encoder/encoder_norm/scale": (8,),
        "encoder/relpos_bias/rel_embedding": (2, 32),
        "encoder/prompt/prompt/prompt": (3, 8),
        MATRIX: (8, 16),
    }
    params, grads = some(rng, **shapes), some(rng, **shapes)
    found = muon_step(params, grads, position_bias_factor=3.0)
    adam = optax.nadam(learning_rate=1.0, b1=0.9, b2=0.98)
    expected, _ = adam.update(grads, adam.init(params))
    expected["encoder/relpos_bias/rel_embedding"] *= 3.0
    for path in shapes:
        same = np.allclose(found[path], expected[path], rtol=1e-4, atol=1e-5)
        assert same is (path != MATRIX), path


def test_muon_updates_stacked_layers_as_if_they_were_apart():
    rng = np.random.default_rng(2)
    shapes = {f"encoder/layers_{i}/mlp/wi_0/kernel": (8, 16) for i in range(3)}
    shapes["encoder/encoder_norm/scale"] = (8,)
    params, grads = some(rng, **shapes), some(rng, **shapes)
    apart = stack_layers(unflatten(muon_step(params, grads)))
    stacked = [flatten(stack_layers(unflatten(x))) for x in (params, grads)]
    together = muon_step(*stacked)
    for path, update in flatten(apart).items():
        np.testing.assert_allclose(together[path], update, rtol=2e-3, atol=2e-4)
