"""Token stores: what goes in comes out, whole or not at all."""

import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaft_promot.errors import UserError
from kaft_promot.feeding.token_store import TokenStore, write_store

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=6)
EXAMPLES = st.lists(st.fixed_dictionaries({"inputs": IDS, "targets": IDS}), max_size=8)


def as_lists(store: TokenStore) -> list[dict[str, list[int]]]:
    return [{k: v.tolist() for k, v in store[i].items()} for i in range(len(store))]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(examples=EXAMPLES)
def test_examples_survive_memory_and_disk(tmp_path_factory, examples) -> None:
    store = TokenStore.from_examples(examples)
    assert as_lists(store) == examples
    folder = tmp_path_factory.mktemp("store") / "s"
    store.save(folder)
    assert as_lists(TokenStore.open(folder)) == examples
    assert store.lengths("inputs").tolist() == [len(e["inputs"]) for e in examples]


def test_chunks_join() -> None:
    chunk = {"inputs": (np.array([1, 2, 3]), np.array([2, 1]))}
    store = TokenStore.from_chunks([chunk, chunk], ["inputs"])
    assert as_lists(store) == [{"inputs": [1, 2]}, {"inputs": [3]}] * 2
    with pytest.raises(IndexError):
        store[4]


def test_broken_build_leaves_nothing(tmp_path: pathlib.Path) -> None:
    def chunks():
        yield {"inputs": (np.arange(3), np.array([3]))}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_store(chunks(), ["inputs"], tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_first_of_two_builders_wins(tmp_path: pathlib.Path) -> None:
    first = TokenStore.from_examples([{"inputs": [1]}])
    second = TokenStore.from_examples([{"inputs": [2]}])
    first.save(tmp_path / "store")
    second.save(tmp_path / "store")
    assert as_lists(TokenStore.open(tmp_path / "store")) == [{"inputs": [1]}]
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_damaged_store_is_refused(tmp_path: pathlib.Path) -> None:
    TokenStore.from_examples([{"inputs": [1, 2, 3]}]).save(tmp_path / "store")
    file = tmp_path / "store" / "inputs.ids"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="inputs.ids is damaged"):
        TokenStore.open(tmp_path / "store")
    with pytest.raises(UserError, match="is not a token store"):
        TokenStore.open(tmp_path)


def test_unwritable_folder_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the token store"):
        TokenStore.from_examples([{"inputs": [1]}]).save(tmp_path / "file" / "store")
