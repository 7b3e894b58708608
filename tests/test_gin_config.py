"""Gin as T5X's users type it, and one clear line for every mistake."""

import importlib
import re

import gin
import pytest

from kaft_promot.errors import UserError
from kaft_promot.gin_config import (
    UnknownName,
    call,
    import_task_files,
    packaged_gin_folder,
    parse_gin,
    split_gin_flags,
    whole_config,
)


@gin.configurable
def bake(minutes=gin.REQUIRED, flour=500, name=None, salted=True, oven=None):
    return {"minutes": minutes, "flour": flour, "name": name, "salted": salted, "oven": oven}


@gin.configurable
def heat(degrees):
    if degrees > 300:
        raise UserError(f"heat.degrees = {degrees}: too hot")
    return degrees


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config()


def write(tmp_path, text, name="a.gin"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_flags_are_taken_out_in_order():
    arguments = ["train", "--gin.A=1", "--gin_file=x.gin", "--gin.b.c = 'x=y' "]
    assert split_gin_flags(arguments) == (["train", "--gin_file=x.gin"], ["A=1", "b.c='x=y'"])


@pytest.mark.parametrize("flag", ["--gin.A", "--gin.A=", "--gin.=3"])
def test_a_flag_without_name_or_value_is_refused(flag):
    with pytest.raises(UserError, match="write --gin.NAME=VALUE"):
        split_gin_flags([flag])


def test_later_files_win_over_earlier_ones_and_flags_over_files(tmp_path):
    first = write(tmp_path, "TIME = %gin.REQUIRED\nbake.minutes = %TIME\nbake.flour = 1\n")
    second = write(tmp_path, "TIME = 30\nbake.flour = 2\n", "b.gin")
    parse_gin([first, second], ["bake.name='rye'"])
    assert call(bake)["minutes"] == 30
    parse_gin([first, second], ["TIME=40"])
    result = call(bake)
    assert (result["minutes"], result["flour"], result["name"]) == (40, 2, None)


@pytest.mark.parametrize("typed", ["/tmp/a b", "runs/a", "kaft", "gs://b/c_1", "a=b", "'/tmp/a b'"])
def test_strings_need_no_quotes(typed):
    parse_gin([], ["bake.minutes=1", f"bake.name={typed}"])
    assert call(bake)["name"] == typed.strip("'")


def test_files_are_found_here_in_search_paths_and_in_the_package(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere", "bake.minutes = 1", "there.gin")
    write(tmp_path, "include 'there.gin'\nbake.flour = 9", "here.gin")
    monkeypatch.chdir(tmp_path)
    parse_gin(["here.gin"], search_paths=["elsewhere"])
    assert call(bake)["flour"] == 9
    assert (packaged_gin_folder() / "runs" / "train.gin").is_file()


def test_defaults_give_way_to_files_in_any_order(tmp_path):
    model = write(tmp_path, "OVEN = 'hot'", "model.gin")
    run = write(tmp_path, "bake.oven = %OVEN\nbake.minutes = 1", "run.gin")
    for files in ([model, run], [run, model]):
        parse_gin(files, defaults={"OVEN": None})
        assert call(bake)["oven"] == "hot"
    parse_gin([run], defaults={"OVEN": None})
    assert call(bake)["oven"] is None


def test_a_configuration_does_not_leak_into_the_next(tmp_path):
    parse_gin([], ["bake.flour=1", "bake.minutes=1"])
    parse_gin([], ["bake.minutes=1"])
    assert call(bake)["flour"] == 500


def test_scopes_that_references_enter_are_used():
    parse_gin([], ["long/heat.degrees=200", "bake.oven=@long/heat()", "bake.minutes=1"])
    assert call(bake)["oven"] == 200


def test_the_whole_configuration_can_be_parsed_again(tmp_path):
    setting = write(
        tmp_path, "bake.oven = @s/heat()\ns/heat.degrees = 1\nbake.minutes = %T", "b.gin"
    )
    parse_gin([setting], ["T=3", "bake.oven=None"], defaults={"SPARE": 1})
    before = call(bake)
    parse_gin([write(tmp_path, whole_config())])
    assert call(bake) == before


@pytest.mark.parametrize(
    "text, message",
    [
        ("\nbaek.minutes = 1", r"a.gin:2: No configurable matching 'baek'; did you mean bake\?"),
        ("bake.minute = 1", r"a.gin:1: .*parameter named 'minute'; did you mean minutes\?"),
        ("TIMES = 3", "a.gin:1: nothing uses TIMES"),
        ("T = 3\nU = 4\nbake.minutes = %U", "a.gin:1: nothing uses T"),
        ("bake.minutes = %U", "%U is used but has no value: add --gin.U="),
        ("\n\nbake.minutes = foo", "a.gin:3: not valid gin: .*'foo'"),
        ("bake.name = {\n'a': 1,\n", "a.gin:[23]: EOF"),
        ("bake.minutes 3", "a.gin:1: not valid gin"),
        ("import nothing.here", "a.gin:1: No module named 'nothing'"),
        ("bake.oven = @heart()", "a.gin:1: No configurable matching reference '@heart"),
        ("include 'gone.gin'", "a.gin:1: no file gone.gin"),
        ("long/heat.degrees = 2", "a.gin:1: nothing uses the scope long"),
        ("long/heat:\n  degrees = 2", "a.gin:1: nothing uses the scope long"),
        ("T = %gin.REQUIRED\nbake.minutes = %T", "no value for T: add --gin.T="),
        ("bake.name = 'x'", r"bake needs a value for \['minutes'\]: add --gin.bake.minutes="),
        ("bake.oven = @heat()\nbake.minutes=1", r"heat needs a value for \['degrees'\]"),
    ],
)
def test_mistakes_in_files_name_file_and_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_gin([write(tmp_path, text)])
        call(bake)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "binding, message",
    [
        (
            "TRAIN_STEP=3",
            r"--gin.TRAIN_STEP=3: nothing uses TRAIN_STEP; did you mean TRAIN_STEPS\?",
        ),
        ("TRAIN_STEPS=3O", "--gin.TRAIN_STEPS=3O: not a gin value"),
        ("TRAIN_STEPS=many", "--gin.TRAIN_STEPS=many: expected an int"),
        ("bake.flour=lots", "--gin.bake.flour=lots: expected an int"),
        ("bake.salted=false", "--gin.bake.salted=false: write False"),
        ("bake.name={'a': 1", "not a gin value"),
        ("bake.nmae=x", "--gin.bake.nmae=x: .*did you mean name"),
        ("baker.name=x", "--gin.baker.name=x: No configurable matching 'baker'"),
        ("shrot/heat.degrees=2", r"nothing uses the scope shrot; did you mean short\?"),
        ("heat.degrees=400", "^heat.degrees = 400: too hot$"),
    ],
)
def test_mistakes_in_flags_name_the_flag(tmp_path, binding, message):
    file = write(
        tmp_path, "TRAIN_STEPS = 5\nbake.minutes = %TRAIN_STEPS\nbake.oven = @short/heat()\n"
    )
    with pytest.raises(UserError, match=message) as error:
        parse_gin([file], [binding])
        call(bake)
    assert "\n" not in str(error.value)


def test_unknown_functions_can_be_told_apart():
    with pytest.raises(UnknownName):
        parse_gin([], ["baker.name=x"])


def test_a_missing_file_lists_where_it_was_searched_and_the_nearest(tmp_path):
    with pytest.raises(
        UserError, match=rf"runs/trian.gin.*{tmp_path}.*did you mean runs/train.gin"
    ):
        parse_gin(["runs/trian.gin"], search_paths=[str(tmp_path)])


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.gin").write_bytes(b"A = '\xff'\n")
    with pytest.raises(UserError, match="a.gin: not UTF-8 text"):
        parse_gin([str(tmp_path / "a.gin")])


def test_packaged_macros_need_not_be_used_but_those_of_users_must(tmp_path, monkeypatch):
    monkeypatch.setattr("kaft_promot.gin_config.packaged_gin_folder", lambda: tmp_path / "packaged")
    (tmp_path / "packaged").mkdir()
    write(tmp_path / "packaged", "SPARE = 1\nbake.minutes = 2\n", "own.gin")
    parse_gin(["own.gin"])
    assert call(bake)["minutes"] == 2
    with pytest.raises(UserError, match="nothing uses SPARE"):
        parse_gin(["own.gin"], ["SPARE=2"])


@pytest.mark.parametrize(
    "text", ["heat.degrees = 2", "heat:\n  degrees = 2", "tests.heat.degrees = 2"]
)
def test_values_that_nothing_refers_to_are_refused(tmp_path, monkeypatch, text):
    """As AdamW's settings in a run with Adafactor: gin would ignore them."""
    monkeypatch.setattr("kaft_promot.gin_config._BY_REFERENCE", {"heat"})
    text = text.replace("tests.", f"{__name__}.")
    with pytest.raises(
        UserError, match=r"a.gin:2: nothing uses heat in this run; refer .*@heat\(\)"
    ):
        parse_gin([write(tmp_path, f"bake.minutes = 1\n{text}")])
    parse_gin([write(tmp_path, f"bake.oven = @heat()\nbake.minutes = 1\n{text}")])
    assert call(bake)["oven"] == 2


TRAIN = [
    "MIXTURE_OR_TASK_NAME=kaft",
    "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
    "INITIAL_CHECKPOINT_PATH=mini",
    "TRAIN_STEPS=5",
    "MODEL_DIR=out",
]
NO_MODEL = {"MODEL": None, "VOCABULARY": None}


@pytest.fixture(scope="module")
def rooms():
    """Gin knows what runs configure."""
    for name in ("training", "feeding", "decoding", "interop", "scale.process", "specialize"):
        importlib.import_module(f"kaft_promot.{name}")
    for name in ("evaluate", "infer", "promot.report", "quickstart"):
        importlib.import_module(f"kaft_promot.{name}")
    import_task_files()


@pytest.mark.parametrize(
    "binding, wanted, example",
    [
        ("TRAIN_STEPS=2.5", "train.total_steps must be a whole number of at least 1", "=2"),
        ("TRAIN_STEPS=1e3", "train.total_steps must be a whole number", "=1000"),
        ("TRAIN_STEPS='300'", "train.total_steps must be a whole number", "=300"),
        ("TRAIN_STEPS=True", "train.total_steps must be a whole number", "=1"),
        ("TRAIN_STEPS=None", "train.total_steps must be a whole number", "=100"),
        ("BATCH_SIZE=0", "DatasetConfig.batch_size must be a whole number of at least 1", "=100"),
        ("EVAL_PERIOD='a'", "train.eval_period must be a whole number of at least 1", "=1000"),
        ("EVAL_STEPS=0", "train.eval_steps must be a whole number of at least 1, or None", "=100"),
        ("SAVING_PERIOD=-1", "CheckpointConfig.period must be a whole number", "=1000"),
        ("Z_LOSS=-1", "train.z_loss must be a number of at least 0", "=0.0001"),
        ("DROPOUT_RATE=1.5", "train.dropout_rate must be a number from 0 to below 1", "=0.1"),
        ("RANDOM_SEED=0.5", "train.random_seed must be a whole number from 0", "=0"),
        ("USE_CACHED_TASKS='no'", "DatasetConfig.use_cached must be True or False", "=False"),
        ("TASK_FEATURE_LENGTHS=9", "task_feature_lengths must be a mapping", "=\"{'inputs': 512"),
        ("train/DatasetConfig.prefetch=-1", "prefetch must be a whole number of at least 0", "=2"),
        (
            "create_learning_rate_scheduler.base_learning_rate='x'",
            "create_learning_rate_scheduler.base_learning_rate must be a number",
            "=0.5",
        ),
        ("Adafactor.learning_rate='x'", "Adafactor.learning_rate must be a number", "=0.001"),
    ],
)
def test_values_of_the_wrong_type_or_size_name_the_binding_and_what_to_write(
    rooms, binding, wanted, example
):
    with pytest.raises(UserError) as error:
        parse_gin(["runs/train.gin"], [*TRAIN, binding], defaults=NO_MODEL)
    said, name = str(error.value), binding.partition("=")[0]
    assert said.startswith(f"--gin.{binding}: ") and wanted in said and "\n" not in said
    assert f"; write --gin.{name}{example}" in said
    # What it says to write is right.
    flag = said.partition("; write --gin.")[2].removesuffix(", for example").replace('"', "")
    parse_gin(["runs/train.gin"], [*TRAIN, flag], defaults=NO_MODEL)


def test_a_wrong_value_in_a_file_has_its_place(rooms, tmp_path):
    file = write(tmp_path, "\nBATCH_SIZE = %SIZE\nSIZE = 2.5\n")
    with pytest.raises(UserError, match=r"a.gin:3: SIZE = 2.5: DatasetConfig.batch_size must be "):
        parse_gin(["runs/train.gin", file], TRAIN, defaults=NO_MODEL)
    file = write(tmp_path, "train/DatasetConfig:\n  pack = 3\n")
    with pytest.raises(UserError, match="train/DatasetConfig.pack = 3: DatasetConfig.pack must be"):
        parse_gin(["runs/train.gin", file], TRAIN, defaults=NO_MODEL)


@pytest.mark.parametrize(
    "binding",
    [
        "EVAL_STEPS=None",
        "DROPOUT_RATE=None",
        "DROPOUT_RATE=0",
        "Z_LOSS=0",
        "LOSS_NORMALIZING_FACTOR='NUM_REAL_TARGET_TOKENS'",
        "LOSS_NORMALIZING_FACTOR=2",
        "Adafactor.learning_rate=0.1",
        "BATCH_SIZE=%TRAIN_STEPS",
        "train/DatasetConfig.pack=0",
        "train/DatasetConfig.seed=None",
    ],
)
def test_sound_values_pass(rooms, binding):
    parse_gin(["runs/train.gin"], [*TRAIN, binding], defaults=NO_MODEL)


FILES = sorted(
    path.relative_to(packaged_gin_folder()).as_posix()
    for path in packaged_gin_folder().rglob("*.gin")
    if path.parent.name != "models"
)


@pytest.mark.parametrize("file", FILES)
def test_every_packaged_file_holds_sound_values(rooms, file):
    values = dict(binding.split("=", 1) for binding in TRAIN)
    bindings: dict[str, str] = {}
    while True:  # add what the file requires
        try:
            parse_gin([file], [f"{k}={v}" for k, v in bindings.items()], defaults=NO_MODEL)
            return
        except UserError as error:
            required = re.match(r"no value for (.*): add ", str(error))
            if required is None or set(required[1].split(", ")) <= bindings.keys():
                raise
            names = required[1].split(", ")
            bindings |= {name: values.get(name, "x") for name in names}


@pytest.mark.parametrize(
    "file", sorted(path.name for path in (packaged_gin_folder() / "models").glob("*.gin"))
)
def test_every_packaged_model_holds_sound_values(rooms, file):
    parse_gin([f"models/{file}", "runs/train.gin"], TRAIN, defaults=NO_MODEL)
