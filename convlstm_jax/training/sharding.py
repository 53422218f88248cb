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


def training_mesh(batch_size: int) -> Mesh:
    """`data_mesh` of as many devices as can share a batch evenly.

    Raises:
        UserError: There are several processes, which all take part, and their devices
            cannot share the batch.
    """
    count = jax.device_count()
    if batch_size % count == 0:
        return data_mesh()
    if jax.process_count() > 1:
        above = -(-batch_size // count) * count
        raise UserError(
            f"config.train.batch_size is {batch_size}: it must be a multiple of the "
            f"number of devices, {count}, such as {above}"
        )
    used = max(n for n in range(1, count) if batch_size % n == 0)
    return data_mesh(jax.devices()[:used])


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
