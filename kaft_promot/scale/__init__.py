"""Process setup and device meshes: one code path from one CPU to a slice of accelerators."""

from kaft_promot.scale.compilation_cache import use_compilation_cache
from kaft_promot.scale.mesh import LOGICAL_AXIS_RULES, MeshConfig, param_shardings, shard_batch
from kaft_promot.scale.process import initialize

__all__ = [
    "LOGICAL_AXIS_RULES",
    "MeshConfig",
    "initialize",
    "param_shardings",
    "shard_batch",
    "use_compilation_cache",
]
