"""ProMoT's comparison without running one: its settings, and what follows from them."""

import dataclasses

import gin
import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation import suites
from kaft_promot.gin_config import OWN_MODEL, parse_gin
from kaft_promot.promot import arms
from kaft_promot.promot.measured import Steps
from kaft_promot.promot.measuring import in_context_length
from kaft_promot.promot.settings import Promot
from kaft_promot.quickstart import Quickstart
from kaft_promot.training import AdamW
from kaft_promot.training.optimizers import learning_rate_at

SOUND = dict(
    target="t",
    base_checkpoint="mini",
    task_feature_lengths={},
    batch_size=1,
    prompt_steps=1,
    prompt_optimizer=AdamW(),
    steps=10,
    optimizer=AdamW(),
    lora_optimizer=AdamW(),
    suite="s",
)


def test_no_target_of_an_in_context_task_is_cut():
    def tokens(targets, **more):
        fields = [{"target": target} for target in targets]
        task = suites.EvalTask(
            name="t",
            examples=lambda data: [
                suites.EvalExample(example_id=str(i), question_id=str(i), prompt="?", fields=f)
                for i, f in enumerate(fields)
            ],
            read=lambda output: {"answer": output},
            score=lambda row: {},
        )
        lengths = {"inputs": 64, "targets": shared}
        more |= {"vocabulary": "bytes", "task_feature_lengths": lengths}
        settings = Promot(**(SOUND | more))
        return in_context_length(
            settings, suites.Suite(name="s", description="", tasks=(task,)), {}
        )

    shared = 8
    assert tokens(["a", "b" * (shared - 1)]) == shared
    assert tokens(["a", "b" * shared, "c"]) == shared + 1  # the end of the answer is a token, too
    assert tokens(["b" * shared], in_context_decode_length=3) == 3


def test_the_reported_step_is_the_last_or_the_first_with_the_best_target_score():
    def row(step, score, arm="a", suite="target"):
        return {"arm": arm, "suite": suite, "step": step, "scores": {"exact_match": score}}

    rows = [row(2, 1.0), row(2, 0.0), row(4, 1.0), row(4, 1.0), row(6, 1.0)]
    rows += [row(8, 0.0), row(2, 1.0, arm="b"), row(8, 1.0, suite="in_context")]
    assert Steps.of(rows, Promot(**SOUND)).reported == {"a": 4, "b": 2}
    assert Steps.of(rows, Promot(**SOUND, select="last")).reported == {"a": 8, "b": 2}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"arms": ()}, "name arms, each once"),
        ({"arms": ("base",)}, "'base' is measured anyway"),
        ({"arms": ("wise_ft",)}, "'wise_ft' needs the arm 'finetune' before it"),
        ({"steps": 0}, "Promot.steps = 0: must be at least 1"),
        ({"select": "first"}, "choose 'last' or 'best'"),
        ({"seeds": (1, 1)}, "name seeds, each once"),
        ({"seeds": 3}, r"Promot.seeds = 3: give a tuple, such as \(3,\)"),
        ({"arms": "promot"}, "Promot.arms = 'promot': give a tuple"),
        ({"steps": 2.5}, "Promot.steps = 2.5: must be at least 1, a whole number"),
        ({"prompt_length": 0}, "Promot.prompt_length = 0: must be at least 1"),
        ({"curve_examples": {"target": 4}}, "Promot.curve_examples = .*'queries': 20"),
        ({"curve_examples": {"target": 4, "queries": 0}}, "Promot.curve_examples"),
        ({"global_norm_clip_threshold": 0}, "Promot.global_norm_clip_threshold = 0: .*above 0"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Promot(**(SOUND | fields))


def test_rates_of_minis_recipes_fall_to_zero_with_the_last_step():
    """A rate's slope and the number of steps are two numbers of a recipe that belong together."""
    runs = []
    try:
        for recipe in ("quickstart", "promot_mini_dropout"):
            parse_gin([f"recipes/{recipe}.gin"], ["MODEL_DIR='unused'"], defaults=OWN_MODEL)
            promot = gin.get_configurable(Promot)()
            runs.append((promot.optimizer, promot.steps))
            if recipe == "quickstart":
                grounding = gin.get_configurable(Quickstart)()
                runs.append((grounding.optimizer, grounding.train_steps))
    finally:
        gin.clear_config()
    for optimizer, steps in runs:
        rates = [float(learning_rate_at(optimizer, step)) for step in range(steps + 1)]
        assert rates[-1] < 2e-3 * max(rates) < rates[steps * 9 // 10]
        assert rates.index(max(rates)) == 20


def test_curve_points_end_at_the_last_step():
    assert Promot(**SOUND, curve_points=4).curve_steps == [3, 6, 9, 10]


def test_settings_are_chosen_and_tested_on_different_queries():
    data = {"suite_data": {"shots": (2,), "queries": 50}}
    for test_split, split in (("validation", "validation"), ("test", "test"), ("dev", "test")):
        settings = Promot(**SOUND, **data, test_split=test_split)
        assert settings.suite_arguments(for_curves=False) == data["suite_data"] | {"split": split}
        queries = settings.curve_examples["queries"]
        curves = {"shots": (2,), "queries": queries, "split": "validation"}
        assert settings.suite_arguments(for_curves=True) == curves
        # Kept with the run, so that a folder is not gone on with under another split.
        assert settings.described()["suite_data"]["split"] == split


def test_only_what_an_arm_uses_belongs_to_a_comparison():
    """Another rate for LoRA says nothing of a folder where no arm uses LoRA."""
    described = {}
    for names in (("finetune", "promot"), ("finetune", "lora")):
        given = [SOUND | {"lora_optimizer": AdamW(learning_rate=rate)} for rate in (0.1, 0.2)]
        described[names[-1]] = [Promot(**(each | {"arms": names})).described() for each in given]
    assert described["promot"][0] == described["promot"][1]
    assert described["lora"][0] != described["lora"][1]


def test_a_run_shorter_than_its_curve_has_fewer_points():
    assert Promot(**(SOUND | {"steps": 2}), curve_points=4).curve_steps == [1, 2]


def test_arms_are_stages_and_no_code():
    promot, finetune = arms.ARMS["promot"], arms.ARMS["finetune"]
    changed = {
        f.name
        for f in dataclasses.fields(promot)
        if getattr(promot, f.name) != getattr(finetune, f.name)
    }
    assert changed == {"stage", "prompt"}
