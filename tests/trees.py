"""Trees of arrays: compiled soon, drawn at random, compared."""

import functools

import jax
import numpy as np

# Compiling is what many tests take their time for; the numbers do not depend on it.
fast_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def random_like(shapes, scale=0.4, seed=0, dtype=None):
    """Random distinct numbers in place of a tree's own, of its dtypes if not given."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (scale * generator.normal(size=leaf.shape)).astype(
            dtype or leaf.dtype
        ),
        shapes,
    )


def assert_trees_close(found, expected, rtol=1e-9, atol=1e-9):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol, atol, err_msg=jax.tree_util.keystr(path))
