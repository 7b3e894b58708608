"""The size files in gin/models/: every file gives a network; published parameter counts."""

import pathlib

import gin
import jax
import numpy as np
import pytest

from kaft_promot.gin_config import macro_value, packaged_gin_folder, parse_gin
from kaft_promot.models import abstract_params

FILES = sorted(path.stem for path in (packaged_gin_folder() / "models").glob("*.gin"))
# Parameters of the public checkpoints google/t5-v1_1-*, google/mt5-*, google/byt5-small.
PUBLISHED = {
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "flan_t5_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "byt5_small": 299_637_760,
}


def config_of(name: str):
    parse_gin([f"models/{name}.gin"])
    return macro_value("MODEL").scoped_configurable_fn()


@pytest.mark.parametrize("name", FILES)
def test_size_file(name: str) -> None:
    try:
        config = config_of(name)
    finally:
        gin.clear_config()
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract_params(config)))
    assert count == PUBLISHED.get(name, count)
    first_line = (packaged_gin_folder() / "models" / f"{name}.gin").read_text().splitlines()[0]
    assert first_line.startswith("# ")


def test_every_published_size_has_a_file() -> None:
    assert set(PUBLISHED) <= set(FILES)
    assert pathlib.Path(packaged_gin_folder()).is_dir()
