"""SeqIO tasks and mixtures through the door, against SeqIO's own pipeline."""

import dataclasses
import functools
import json
import pathlib
import sys
import threading

import gin
import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.feeding import DatasetConfig, eval_examples, train_iterator
from kaft_promot.feeding.dataset import open_sources

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")

from kaft_promot.feeding import jsonl_task, materialize, seqio_door, text_task  # noqa: E402

LENGTHS = {"inputs": 12, "targets": 5}
ROWS = [
    {
        "question": f"Which town is number {i} " + "of many towns " * (i % 4),
        "answer": ["Bonn", "Ulm am Rhein bei Basel in der Ferne", ""][i % 3],
        "id": f"q{i}",
        "aliases": ["x"] * (i % 3),
        "score": i / 2,
    }
    for i in range(25)
]


@pytest.fixture(scope="module", autouse=True)
def registry(tmp_path_factory: pytest.TempPathFactory, shared_dir: pathlib.Path):
    """Registers the tasks of this file, and takes them out again."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "empty.jsonl").write_text("\n")
    (folder / "cut.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1])[:-5])
    (folder / "latin.jsonl").write_bytes(b'{"question": "caf\xe9"}\n')
    (folder / "kinds.jsonl").write_text(json.dumps({**ROWS[0], "score": "high"}) + "\n")
    (folder / "list.jsonl").write_text("[1]\n")
    (folder / "bare.jsonl").write_text('{"question": "a"}\n')
    vocabulary = shared_dir / "data" / "t5_vocab" / "t5_spiece.model"
    features = seqio_door.output_features(vocabulary)
    common = {
        "path": lambda split: folder / f"{split}.jsonl",
        "fields": {
            "inputs": str,
            "targets": str,
            "id": str,
            "aliases": list,
            "score": float,
        },
        "select": lambda row: {**row, "inputs": row["question"], "targets": row["answer"]},
        "splits": ("train", "empty", "cut", "latin", "list", "bare", "kinds", "missing"),
    }
    jsonl_task.register_jsonl_task("door_plain", features=features, **common)
    jsonl_task.register_jsonl_task(
        "door_bytes", features=seqio_door.output_features("bytes"), **common
    )
    jsonl_task.register_jsonl_task(
        "door_no_eos", features=seqio_door.output_features(vocabulary, add_eos=False), **common
    )
    plain = seqio.TaskRegistry.get("door_plain")
    for name, steps in {
        "door_append_eos": [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        "door_tokenize": [seqio.preprocessors.tokenize],
        "door_custom": [
            functools.partial(seqio.preprocessors.rekey, key_map={"inputs": "id", "targets": "id"}),
            seqio.preprocessors.tokenize_and_append_eos,
        ],
        "door_random": [random_suffix, *jsonl_task.TOKENIZE],
        "door_untokenized": [],
        "door_cached": [
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(required=True),
            seqio.preprocessors.append_eos,
        ],
    }.items():
        seqio.TaskRegistry.add(
            name, source=plain.source, preprocessors=steps, output_features=features
        )
    (folder / "lines.txt").write_text("one\ntwo\n")
    seqio.TaskRegistry.add(
        "door_lines",
        source=seqio.TextLineDataSource({"train": str(folder / "lines.txt")}),
        preprocessors=[lines_to_text, *jsonl_task.TOKENIZE],
        output_features=features,
    )
    seqio.MixtureRegistry.add("door_inner", [("door_plain", 1.0), ("door_no_eos", 3.0)])
    seqio.MixtureRegistry.add(
        "door_nested",
        [("door_inner", 4), ("door_append_eos", lambda task: 2.0), ("door_plain", 0.5)],
    )
    seqio.MixtureRegistry.add("door_lopsided", [("door_plain", 1), ("door_lines", 1)])
    by_count = seqio.mixing_rate_num_examples
    seqio.MixtureRegistry.add("door_by_count", [("door_plain", by_count), ("door_bytes", 5)])
    seqio.MixtureRegistry.add("door_uncounted", [("door_lines", by_count)])
    seqio.MixtureRegistry.add("door_zero", [("door_plain", 0)])
    yield folder
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        # Not those of task files that a test imported: their modules stay, and would not be asked.
        for name in [n for n in registry.names() if n.startswith(("door_", "zebra_"))]:
            registry.remove(name)


def lines_to_text(data):
    return data.map(lambda line: {"inputs": line, "targets": line})


@seqio.map_over_dataset(num_seeds=1)
def random_suffix(example, seed):
    number = tf.random.stateless_uniform([], seed, 0, 1000, tf.int32)
    return {**example, "inputs": tf.strings.as_string(number)}


def config(name: str, **settings: object) -> DatasetConfig:
    base = DatasetConfig(mixture_or_task_name=name, task_feature_lengths=LENGTHS, batch_size=4)
    return dataclasses.replace(base, **settings)  # type: ignore[arg-type]


def seqios_tokens(cfg: DatasetConfig) -> list[dict[str, list[int]]]:
    data = materialize.dataset(seqio.TaskRegistry.get(cfg.mixture_or_task_name), cfg)
    return [
        {name: example[name].tolist() for name in LENGTHS} for example in data.as_numpy_iterator()
    ]


def stored_tokens(cfg: DatasetConfig) -> list[dict[str, list[int]]]:
    (source,) = open_sources(cfg)
    return [
        {name: ids.tolist() for name, ids in source.store[i].items()}
        for i in range(len(source.store))
    ]


@pytest.mark.parametrize(
    "name",
    [
        "door_plain",
        "door_bytes",
        "door_no_eos",
        "door_append_eos",
        "door_tokenize",
        "door_custom",
        "door_random",
    ],
)
def test_tokens_equal_seqios(name: str) -> None:
    expected = seqios_tokens(config(name))
    assert len(expected) == 25
    assert stored_tokens(config(name)) == expected
    longest = max(len(e["inputs"]) for e in expected)
    if name in ("door_plain", "door_bytes"):  # cut before the end is appended
        assert longest == 12 and all(e["inputs"][-1] == 1 for e in expected)


def test_common_tasks_are_tokenized_in_bulk() -> None:
    tasks = {name: seqio.TaskRegistry.get(name) for name in ("door_plain", "door_custom")}
    bulk = {n: materialize._text_before_tokenizing(t, config(n)) for n, t in tasks.items()}
    assert bulk["door_plain"] is not None and bulk["door_custom"] is None


def test_random_preprocessors_follow_the_seed() -> None:
    first = stored_tokens(config("door_random"))
    assert stored_tokens(config("door_random")) == first
    assert stored_tokens(config("door_random", seed=1)) != first


def test_nested_rates_equal_seqios() -> None:
    mixture = seqio.get_mixture_or_task("door_nested")
    found = {task.name: rate for task, rate in seqio_door.tasks_with_rates(mixture)}
    assert found == {"door_plain": 1.5, "door_no_eos": 3.0, "door_append_eos": 2.0}
    assert found == {task.name: mixture.get_rate(task) for task in mixture.tasks}


def test_rate_by_number_of_examples() -> None:
    mixture = seqio.get_mixture_or_task("door_by_count")
    assert [mixture.get_rate(task) for task in mixture.tasks] == [5.0, 25.0]


def test_vocabularies_of_a_mixture_must_agree() -> None:
    with pytest.raises(UserError, match="'door_by_count'.*must use the same vocabulary"):
        open_sources(config("door_by_count"))


def test_mixture_trains() -> None:
    batch = next(train_iterator(config("door_nested", pack=True)))
    assert batch["encoder_input_tokens"].shape == (4, 12)
    assert batch["decoder_segment_ids"].dtype == np.int32


def test_mixture_leaves_out_tasks_without_the_split(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="'door_plain' has no examples in split 'empty'"):
        open_sources(config("door_lopsided", split="empty"))
    names = [s.name for s in open_sources(config("door_lopsided"))]
    assert names == ["door_lines", "door_plain"]


def test_gin_configures_the_dataset_and_the_vocabulary(shared_dir: pathlib.Path) -> None:
    vocabulary = shared_dir / "data" / "t5_vocab" / "t5_spiece.model"
    features = seqio_door.output_features()
    gin.clear_config()
    try:
        gin.parse_config(
            f"""
            MIXTURE_OR_TASK_NAME = 'door_plain'
            DatasetConfig.mixture_or_task_name = %MIXTURE_OR_TASK_NAME
            DatasetConfig.task_feature_lengths = {{'inputs': 9, 'targets': 3}}
            DatasetConfig.batch_size = 2
            task_vocabulary.path = '{vocabulary}'
            """
        )
        assert features["inputs"].vocabulary.vocab_size == 32100
        assert features["inputs"].vocabulary.encode("Hello world") == [8774, 296]
        batch = next(train_iterator(DatasetConfig()))  # type: ignore[call-arg]
    finally:
        gin.clear_config()
    assert batch["encoder_input_tokens"].shape == (2, 9)


def test_offline_cache_is_read(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "seqio" / "door_cached"
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "train.tfrecord-00000-of-00001")) as file:
        for ids in ([5, 6], [7]):
            numbers = tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
            example = tf.train.Features(feature={"inputs": numbers, "targets": numbers})
            file.write(tf.train.Example(features=example).SerializeToString())
    shape = {"shape": [None], "dtype": "int32"}
    info = {"num_shards": 1, "seqio_version": "1.0", "features": dict.fromkeys(LENGTHS, shape)}
    (folder / "info.train.json").write_text(json.dumps(info))
    (folder / "stats.train.json").write_text(json.dumps({"examples": 2}))
    (folder / "COMPLETED").write_text("")
    before = list(seqio.utils.get_global_cache_dirs())
    seqio.add_global_cache_dirs([str(tmp_path / "seqio")])
    task = seqio.TaskRegistry.get("door_cached")
    try:
        cfg = config("door_cached", use_cached=True, cache_dir=str(tmp_path / "tokens"))
        for _ in range(2):  # built, then read again
            assert [e["inputs"] for e in stored_tokens(cfg)] == [[5, 6, 1], [7, 1]]
    finally:
        seqio.utils.set_global_cache_dirs(before)
        task._cache_dir = None
    assert len(list((tmp_path / "tokens").glob("door_cached/train-*"))) == 1


def test_eval_examples_keep_order_and_fields() -> None:
    found = eval_examples(config("door_plain"))
    assert [e["id"] for e in found] == [row["id"] for row in ROWS]
    example = found[2]
    assert example["task"] == "door_plain"
    assert example["inputs_pretokenized"] == ROWS[2]["question"]
    assert example["targets_pretokenized"] == ""
    assert example["aliases"] == ["x", "x"] and example["score"] == 1.0
    assert example["inputs"].tolist() == seqios_tokens(config("door_plain"))[2]["inputs"]
    assert len(eval_examples(config("door_nested"), max_examples=2)) == 6


def test_cache_is_used_until_something_changes(
    tmp_path: pathlib.Path, registry: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config("door_plain", cache_dir=str(tmp_path))
    expected = stored_tokens(cfg)
    built = list(tmp_path.glob("door_plain/train-*/meta.json"))
    assert len(built) == 1
    with monkeypatch.context() as patch:
        patch.setattr(materialize, "token_chunks", None)  # would fail if the task were run
        assert stored_tokens(cfg) == expected
    for changed in ({"task_feature_lengths": {"inputs": 8, "targets": 5}}, {"seed": 3}):
        stored_tokens(dataclasses.replace(cfg, **changed))
    assert len(list(tmp_path.glob("door_plain/train-*"))) == 3
    file = registry / "train.jsonl"
    content = file.read_text()
    try:
        file.write_text(content + json.dumps({**ROWS[0], "id": "new"}) + "\n")
        assert len(stored_tokens(cfg)) == 26
    finally:
        file.write_text(content)
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_fingerprint_sees_preprocessors(
    registry: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    from kaft_promot.feeding.fingerprint import task_fingerprint

    def prefixed(text: str):
        return lambda data: data.map(lambda e: {**e, "inputs": text + e["inputs"]})

    plain = seqio.TaskRegistry.get("door_plain")
    cfg = config("door_plain")
    found = [
        task_fingerprint(plain.replace(preprocessors=[*steps, *jsonl_task.TOKENIZE]), cfg)
        for steps in ([], [prefixed("a")], [prefixed("b")], [prefixed("a")])
    ]
    assert found[1] == found[3] and len(set(found)) == 3
    lines = seqio.TaskRegistry.get("door_lines")
    assert task_fingerprint(lines, cfg) is not None
    versions = [
        task_fingerprint(plain.replace(source=seqio.TfdsDataSource(f"squad:{v}.0.0")), cfg)
        for v in (1, 1, 2)
    ]
    assert versions[0] == versions[1] != versions[2]
    unknown = plain.replace(
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: None, splits=["train"]
        )
    )
    assert task_fingerprint(unknown, cfg) is None
    # A value that cannot be told, in a preprocessor or in the function of a source.
    lock = threading.Lock()
    held = plain.replace(preprocessors=[lambda data: data and lock, *jsonl_task.TOKENIZE])
    assert task_fingerprint(held, cfg) is None
    source = text_task.TextSource(lambda split: [lock], ["train"], decided_by=lambda split: None)
    assert task_fingerprint(plain.replace(source=source), cfg) is None
    assert "its tokens are not kept in a cache: a value of type lock cannot" in caplog.text


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("door_plian", {}, "called 'door_plian'.*near names: .*door_plain"),
        ("door_plain", {"split": "dev"}, "has no split 'dev'.*it has: bare, cut, empty, kinds"),
        ("door_plain", {"split": "missing"}, r"missing.jsonl: No such file"),
        ("door_plain", {"split": "cut"}, r"cut.jsonl:2: not valid JSON"),
        ("door_plain", {"split": "latin"}, r"latin.jsonl:1: not valid UTF-8"),
        ("door_plain", {"split": "list"}, r"list.jsonl:1: not a JSON object"),
        ("door_plain", {"split": "bare"}, r"bare.jsonl:1: the line has no field 'answer'"),
        ("door_plain", {"split": "kinds"}, r"kinds.jsonl:1: field 'score' is 'high', .* no float"),
        ("door_plain", {"split": "empty"}, "has no examples in split 'empty'"),
        ("door_cached", {"use_cached": True, "cache_dir": "."}, "no offline cache.*use_cached"),
        ("door_cached", {"use_cached": False}, "requires caching"),
        ("door_uncounted", {}, "mixture 'door_uncounted': cannot tell its rates: .*number of ex"),
        ("door_zero", {}, "every rate of mixture 'door_zero' is 0"),
        ("door_untokenized", {}, "'door_untokenized'.*inputs"),
        ("door_plain", {"module": "no_such_module_here"}, "no module 'no_such_module_here'"),
    ],
)
def test_mistakes_are_one_clear_line(name: str, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train_iterator(config(name, **settings))
    assert "\n" not in str(caught.value)


def test_users_module_is_imported_from_the_current_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_door_tasks.py").write_text(
        "import seqio\nseqio.MixtureRegistry.add('door_mine', [('door_plain', 1)])\n"
    )
    (tmp_path / "my_door_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    found = seqio_door.get_mixture_or_task("door_mine", "my_door_tasks")
    assert found.name == "door_mine" and sys.path == path
    with pytest.raises(UserError, match="my_door_broken.*ZeroDivisionError"):
        seqio_door.get_mixture_or_task("door_mine", "my_door_broken")


def test_task_files_are_imported_when_a_name_needs_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "door_task_files"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "zebra.py").write_text(
        "import seqio\nseqio.MixtureRegistry.add('zebra_mix', [('door_plain', 1)])\n"
    )
    (package / "broken.py").write_text("import nothing_like_this\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(seqio_door, "TASKS_PACKAGE", "door_task_files")
    assert seqio_door.get_mixture_or_task("zebra_mix").name == "zebra_mix"
    assert "door_task_files.broken" not in sys.modules
    with pytest.raises(UserError, match=r"near names: zebra_mix.*broken.*nothing_like_this"):
        seqio_door.get_mixture_or_task("zebra_mixx")
