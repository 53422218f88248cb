"""Eight devices whose mesh has explicit axes against one device."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.trees import assert_trees_close, fast_jit


def explicit_mesh():
    mesh = jax.make_mesh((8,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)
    return mesh


def over(mesh, tree, *spec):
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))


def assert_equal_to_one_device(
    function, weights, batched, *more, jit=fast_jit, **close
):
    """`function(weights, batched, *more)` and its gradients by the first two.

    All arrays but the weights begin with B, and so do those of the result.
    """

    def both(weights, batched, *more):
        result, pull_back = jax.vjp(lambda *a: function(*a, *more), weights, batched)
        cotangents = jax.tree.map(lambda x: jnp.cos(3 * x), result)
        return result, *pull_back(cotangents)

    expected = jax.device_get(fast_jit(both)(weights, batched, *more))
    mesh = explicit_mesh()
    with jax.set_mesh(mesh):
        found = jit(both)(over(mesh, weights), *over(mesh, (batched, *more), "data"))
    result, weight_gradients, batch_gradients = found
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    for leaf in jax.tree.leaves((result, batch_gradients)):
        assert leaf.sharding.is_equivalent_to(by_batch, leaf.ndim)
    for leaf in jax.tree.leaves(weight_gradients):
        assert leaf.sharding.is_fully_replicated
    assert_trees_close(jax.device_get(found), expected, **close)
