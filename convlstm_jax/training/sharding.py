"""Data parallelism: the placement of arrays on devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convlstm_jax.errors import UserError


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh, axis "data", over all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array (parameters, optimizer state)."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis is sharded over the devices (batches)."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(name: str, batch_size: int, mesh: Mesh) -> None:
    """Raises a `UserError` unless the global batch can be divided over the devices."""
    if batch_size % mesh.size:
        raise UserError(
            f"{name} is {batch_size}: it must be a multiple of the number of devices, "
            f"{mesh.size}"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """This process's part of a batch, as global arrays over the mesh."""
    sharding = batch_sharded(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def any_process(flag: bool, mesh: Mesh) -> Any:
    """Whether a flag is set in any process; each has to call this at the same step.

    None blocks: the returned array is ready once all have called.
    """
    if jax.process_count() == 1:
        return flag
    flags = {"flags": np.full(len(mesh.local_devices), flag)}
    return _any(mesh)(put_batch(flags, mesh)["flags"])


@functools.cache
def _any(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(jnp.any, out_shardings=replicated(mesh))
