"""What a run reads: batches that end, evaluation on all of them, ids that do not fit."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from training_tiny import CONFIG, assert_same, batch, batches, run

from kaft_promot.errors import UserError
from kaft_promot.feeding import DatasetConfig
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.saved import write_tokens
from kaft_promot.feeding.token_store import TokenStore
from kaft_promot.training import (
    Adafactor,
    AdamW,
    Checkpoints,
    load_run,
    make_eval_step,
    read_metrics,
)
from kaft_promot.training.feed import check_ids, eval_batches


def test_evaluation_counts_every_real_token_once(tmp_path, base):
    short = {name: x[:3] for name, x in batch(seed=1).items()}
    run(
        tmp_path,
        3,
        initial_params=base,
        optimizer=AdamW(learning_rate=0.0),
        train_eval_dataset_cfg=[batch(seed=0), short],
        eval_period=2,
    )
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 3]
    first, second = rows
    assert first["eval/loss"] == second["eval/loss"]
    joined = {n: np.concatenate([batch(seed=0)[n], x]) for n, x in short.items()}
    from kaft_promot.training import make_eval_step

    sums = make_eval_step(CONFIG)(base, joined)
    assert first["eval/loss"] == pytest.approx(float(sums["loss"] / sums["weights"]), rel=1e-5)
    assert first["eval/accuracy"] == pytest.approx(float(sums["correct"] / sums["weights"]))


def test_data_that_ends_early_is_saved_and_told(tmp_path, base):
    with pytest.raises(UserError, match="ended after step 3 of 9"):
        run(
            tmp_path,
            9,
            initial_params=base,
            train_dataset_cfg=lambda: itertools.islice(batches(), 3),
        )
    config, params = load_run(tmp_path)
    assert config == CONFIG
    assert_same(params, run(None, 3, initial_params=base))


@pytest.fixture
def dataset(tmp_path):
    """Saves 37 examples, and returns a configuration that reads them."""

    def make(**settings):
        cfg = DatasetConfig(
            mixture_or_task_name="saved",
            task_feature_lengths={"inputs": 16, "targets": 8},
            batch_size=8,
            saved=str(tmp_path / "saved"),
        )
        if not (tmp_path / "saved").exists():
            rng = np.random.default_rng(0)
            examples = [
                {"inputs": [*rng.integers(2, 32, n), 1], "targets": [*rng.integers(2, 32, 2), 1]}
                for n in rng.integers(1, 8, 37)
            ]
            source = Source(name="saved", rate=1.0, store=TokenStore.from_examples(examples))
            write_tokens([source], cfg, cfg.saved)
        return dataclasses.replace(cfg, **settings)

    return make


def test_a_run_whose_data_ended_goes_on_with_more_epochs(tmp_path, base, dataset):
    """As the message says, and with the batches of a run that never ended."""
    with pytest.raises(UserError, match=r"after step 4 of 9 \(saved\): set DatasetConfig.num_epo"):
        run(tmp_path / "a", 9, initial_params=base, train_dataset_cfg=dataset(num_epochs=1))
    on = run(tmp_path / "a", 9, initial_params=base, train_dataset_cfg=dataset())
    run(tmp_path / "b", 9, initial_params=base, train_dataset_cfg=dataset())
    assert_same(on, run(None, 9, initial_params=base, train_dataset_cfg=dataset()))
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == other


def test_what_a_run_is_told_when_its_data_end_is_true(tmp_path, base, dataset):
    packed = dataset(num_epochs=1, pack=True, batch_size=2)
    with pytest.raises(
        UserError, match=r"after step (\d+) of 99 \(saved\): lower train.total_s"
    ) as e:
        run(tmp_path / "packed", 99, initial_params=base, train_dataset_cfg=packed)
    steps = int(re.search(r"after step (\d+)", str(e.value))[1])
    run(tmp_path / "packed", steps, initial_params=base, train_dataset_cfg=packed)
    few = lambda: itertools.islice(batches(), 3)  # noqa: E731
    with pytest.raises(
        UserError, match="after step 3 of 5 .*: give more batches or lower train.to"
    ):
        run(tmp_path / "few", 5, initial_params=base, train_dataset_cfg=few)
    assert_same(run(tmp_path / "few", 5, initial_params=base), run(None, 5, initial_params=base))


@pytest.mark.parametrize("pack", [False, True])
def test_data_without_a_batch_save_nothing(tmp_path, base, dataset, pack):
    too_few = dataset(num_epochs=1, pack=pack, batch_size=38)
    with pytest.raises(UserError, match="gives no full batch: its 37 examples"):
        run(tmp_path / "run", 9, initial_params=base, train_dataset_cfg=too_few)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="train_dataset_cfg: no batch in it"):
        run(tmp_path / "run", 9, initial_params=base, train_dataset_cfg=lambda: [])
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_data_that_ends_after_a_loss_that_is_not_finite_saves_nothing(tmp_path, base):
    def poisoned():
        for one in itertools.islice(batches(), 2):
            yield one
        yield one | {"decoder_loss_weights": np.full_like(one["decoder_loss_weights"], np.inf)}

    with pytest.raises(UserError, match="step 3 is not finite"):
        run(tmp_path, 9, initial_params=base, train_dataset_cfg=poisoned)
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == []
    checkpoints.close()


@pytest.mark.parametrize("pack", [False, True])
def test_an_evaluation_of_all_leaves_nothing_out(tmp_path, base, dataset, pack):
    """37 examples in batches of 8, or of 8 packed rows."""
    every = dataset(num_epochs=1, shuffle=False, pack=pack)
    held_out = eval_batches(every, None)
    assert all(len(b["decoder_target_tokens"]) == 8 for b in held_out)
    assert sum((b["decoder_target_tokens"] == 1).sum() for b in held_out) == 37
    shares = [eval_batches(every, None, process, 4) for process in range(4)]
    for whole, *parts in zip(held_out, *shares, strict=True):
        for name, rows in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows)
    run(
        tmp_path / "run",
        1,
        initial_params=base,
        optimizer=AdamW(learning_rate=0.0),
        train_eval_dataset_cfg=every,
    )
    (row,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    single = eval_batches(dataset(num_epochs=1, shuffle=False, batch_size=37), None)
    (sums,) = (make_eval_step(CONFIG)(base, one) for one in single)
    assert row["eval/loss"] == pytest.approx(float(sums["loss"] / sums["weights"]), rel=1e-5)
    assert row["eval/accuracy"] == pytest.approx(float(sums["correct"] / sums["weights"]))


def test_an_evaluation_of_no_batch_is_refused(base, dataset):
    for steps in (0, -3):
        with pytest.raises(UserError, match=f"train.eval_steps = {steps}: must be at least 1"):
            run(None, 1, initial_params=base, train_eval_dataset_cfg=batches, eval_steps=steps)


@pytest.mark.parametrize("source", ["train_dataset_cfg", "train_eval_dataset_cfg"])
@pytest.mark.parametrize("name", ["encoder_input_tokens", "decoder_target_tokens"])
def test_ids_of_another_vocabulary_are_refused_before_training(tmp_path, base, source, name):
    """JAX would take another row of the embedding without a word."""
    odd = batch()
    odd[name][1, 2] = CONFIG.vocab_size
    message = rf"the token id 32 \({name}\), but the model has embeddings for 32 ids only"
    with pytest.raises(UserError, match=message):
        run(tmp_path, 2, initial_params=base, **{source: lambda: [odd]})
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())
    odd[name][1, 2] = -1
    with pytest.raises(UserError, match="the token id -1"):
        run(tmp_path, 2, initial_params=base, **{source: lambda: [odd]})


def test_placeholders_of_prompts_are_ids_of_the_encoder_alone():
    config = dataclasses.replace(CONFIG, prompt_length=2, num_prompts=2)
    fine, odd = batch(), batch()
    fine["encoder_input_tokens"][0, :2] = (34, 35)
    check_ids(fine, config)
    odd["encoder_input_tokens"][0, 0] = 36
    for wrong, settings in ((odd, config), (fine, CONFIG)):
        with pytest.raises(UserError, match="encoder_input_tokens"):
            check_ids(wrong, settings)
    fine["decoder_target_tokens"][0, 0] = 32
    with pytest.raises(UserError, match="decoder_target_tokens"):
        check_ids(fine, config)


def test_a_dataset_config_compiles_before_its_first_batch(tmp_path, base, monkeypatch):
    from kaft_promot.feeding import DatasetConfig
    from kaft_promot.training.compiled import TrainStep

    np.savez(tmp_path / "saved.npz", **{name: x[None] for name, x in batch().items()})
    config = DatasetConfig(
        mixture_or_task_name="none",
        task_feature_lengths={"inputs": 8, "targets": 5},
        batch_size=4,
        saved=str(tmp_path / "saved.npz"),
    )
    compiled = []
    compile_ahead = TrainStep.compile

    def noted(self, *arguments):
        compile_ahead(self, *arguments)
        compiled.append(self)

    monkeypatch.setattr(TrainStep, "compile", noted)
    fresh = Adafactor(learning_rate=0.123)  # no other test's programs
    params = run(None, 3, initial_params=base, train_dataset_cfg=config, optimizer=fresh)
    assert len(compiled[0]._compiled) == 1  # and the run's batches needed no other program:
    assert not any(jitted._cache_size() for jitted in compiled[0]._jitted.values())
    other = run(
        None, 3, initial_params=base, train_dataset_cfg=lambda: [batch()] * 3, optimizer=fresh
    )
    assert_same(params, other)
