"""Device meshes and the one table that says where every named axis is sharded."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kaft_promot.errors import UserError

logger = logging.getLogger(__name__)

MESH_AXES = ("data", "fsdp", "tensor")

# Named axis of an array -> axes of the mesh. Axes that are not named here are whole on each device.
LOGICAL_AXIS_RULES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "joined_kv": ("tensor",),
}


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices each axis of the mesh has.

    Attributes:
      data: copies of the model, each with its share of the batch; -1 takes the devices that are
        left over.
      fsdp: devices that share the batch and also each keep a slice of every parameter.
      tensor: devices among which heads, MLP units and vocabulary are divided.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def make(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """The mesh over `devices` (default: all of them).

        Raises:
          UserError: if the axes do not use each device exactly once.
        """
        devices = jax.devices() if devices is None else devices
        fixed = self.fsdp * self.tensor
        data = len(devices) // max(fixed, 1) if self.data == -1 else self.data
        if min(self.fsdp, self.tensor, data) < 1 or data * fixed != len(devices):
            raise UserError(
                f"MeshConfig(data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}) does not "
                f"divide the {len(devices)} device(s) here; their product must be that number"
            )
        return Mesh(np.asarray(devices).reshape(data, self.fsdp, self.tensor), MESH_AXES)


def local_mesh(config: MeshConfig) -> Mesh:
    """The mesh for what each process does by itself, such as decoding.

    In a run of one process it is that of `config`; of several, each process has one of its own
    devices, with the fsdp and tensor of `config` where they divide their number, else with a whole
    copy of the model on each.

    Raises:
      UserError: as `MeshConfig.make`.
    """
    if jax.process_count() == 1:
        return config.make()
    devices = jax.local_devices()
    if len(devices) % max(config.fsdp * config.tensor, 1):
        logger.warning(
            "%s does not divide the %d device(s) of one process: each holds the whole model",
            config,
            len(devices),
        )
        config = MeshConfig(data=-1, fsdp=1, tensor=1)
    return dataclasses.replace(config, data=-1).make(devices)


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters lie on, or None if they lie on none of `MeshConfig`'s."""
    for leaf in jax.tree.leaves(params):
        sharding = getattr(leaf, "sharding", None)
        mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
        if isinstance(mesh, Mesh) and mesh.axis_names == MESH_AXES:
            return mesh
    return None


def spec(axes: Sequence[str], shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """Where an array with named `axes` and `shape` lies on `mesh`.

    An axis whose size the mesh does not divide stays whole: that costs memory, never correctness.
    """
    parts: list[tuple[str, ...] | None] = []
    for name, size in zip(axes, shape, strict=True):
        wanted = LOGICAL_AXIS_RULES.get(name, ())
        devices = int(np.prod([mesh.shape[axis] for axis in wanted]))
        parts.append(wanted if wanted and size % devices == 0 else None)
    return PartitionSpec(*parts)


def param_shardings(params: Any, axes: Any, mesh: Mesh) -> Any:
    """A tree of shardings for `params` (arrays or shapes) with named `axes` of the same tree."""
    return jax.tree.map(
        lambda x, names: NamedSharding(mesh, spec(names, x.shape, mesh)), params, axes
    )


def like_params(state: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of an optimizer's `state` (a tree of shapes), taken from its parameters'.

    A leaf of a parameter's shape lies as the parameter does; a leaf that lacks one of its axes
    (Adafactor's rows and columns) lies as the rest does; all else is copied to every device.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    known = {
        tuple(path): (x.shape, s.spec)
        for (path, x), s in zip(flat, jax.tree.leaves(shardings), strict=True)
    }

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        for start in range(len(path)):
            if path[start:] in known:
                shape, where = known[path[start:]]
                where = tuple(where)
                if leaf.shape == shape:
                    return NamedSharding(mesh, PartitionSpec(*where))
                for axis in range(len(shape)):
                    if leaf.shape == shape[:axis] + shape[axis + 1 :]:
                        return NamedSharding(mesh, PartitionSpec(*where[:axis], *where[axis + 1 :]))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array `[B, ...]` whose rows are divided over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL_AXIS_RULES["batch"]))


def row_parts(mesh: Mesh) -> int:
    """In how many parts the rows of a batch are divided."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from this process's rows of a batch, divided over data and fsdp.

    Args:
      batch: arrays `[B / processes, ...]`.
      mesh: where to put them.

    Raises:
      UserError: if the batch does not divide the mesh.
    """
    check_divides(batch, mesh)
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(x))
        for name, x in batch.items()
    }


def check_divides(batch: Mapping[str, np.ndarray], mesh: Mesh) -> None:
    """Raises UserError unless the rows of `batch` divide over the mesh's data and fsdp axes."""
    parts = row_parts(mesh)
    for name, x in batch.items():
        rows = x.shape[0] * jax.process_count()
        if rows % parts:
            raise UserError(
                f"a batch of {rows} rows ({name}) does not divide over {parts} devices "
                f"(data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']}); choose a batch_size "
                f"that is a multiple of {parts}, or another MeshConfig"
            )
