"""Batches on a mesh with explicit axes, the default of `jax.make_mesh`."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

Tree = Any


def over_batch(function: Callable[..., Any], weights: Tree, *batched: Tree) -> Any:
    """`function(weights, *batched)`, sharded over the batch as `batched` is.

    The arrays of `batched` and of the result begin with B. Where axes are explicit, JAX
    asks for the sharding of each array that is made on the way, in a user's cell too.
    Here they are left to the compiler, as on a mesh with automatic axes: the program is
    the same. On such a mesh, and on none, this is a plain call.

    Raises:
        ValueError: An array of `batched` is sharded over another of its axes.
    """
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves(batched)]
    explicit = [array for array in types if array.sharding.mesh.explicit_axes]
    if not explicit:
        return function(weights, *batched)
    mesh, batch_axes = explicit[0].sharding.mesh, None
    for array in explicit:
        first, *others = array.sharding.spec
        if any(others):
            # XLA's gradient of a kernel may be wrong where height is sharded.
            raise ValueError(
                f"an array of shape {array.shape} is sharded as {array.sharding.spec}: "
                "the batch, its first axis, alone may be sharded over explicit axes"
            )
        batch_axes = batch_axes or first
    by_compiler = auto_axes(
        function,
        axes=mesh.explicit_axes,
        out_sharding=NamedSharding(mesh, PartitionSpec(batch_axes)),
    )
    return by_compiler(weights, *batched)
