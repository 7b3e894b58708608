"""A small part of T-REx with its splits, made once."""

import pathlib
import shutil

import pytest

from kaft_promot.mini import facts as facts_lib

SIZES = facts_lib.SplitSizes(
    remembered_train=120,
    remembered_validation=30,
    remembered_test=60,
    reading_validation=20,
    reading_test=40,
)


@pytest.fixture(scope="session")
def sizes() -> facts_lib.SplitSizes:
    return SIZES


@pytest.fixture(scope="session")
def trex_part(shared_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("trex")
    shutil.copy(shared_dir / "data" / "trex" / "trex.dev.jsonl.gz", folder)
    return folder


@pytest.fixture(scope="session")
def split_part(trex_part: pathlib.Path) -> list[facts_lib.Fact]:
    return facts_lib.split_facts(facts_lib.read_facts(trex_part), 0, SIZES)
