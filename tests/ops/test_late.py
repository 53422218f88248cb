"""Arrays that wait for a gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from convlstm_jax.ops.recurrence import late


def test_it_is_the_array_itself():
    array = jnp.asarray([[1.0, -2.0], [3.5, 0.0]])
    found = jax.jit(late)(array, jnp.full((2, 3), 7.0), jnp.full((1,), -1e30))
    np.testing.assert_array_equal(found, array)


def test_a_compiler_cannot_do_without_the_gradient():
    """As that would be wrong: what is not a number would be lost."""
    make = jax.jit(lambda gradient: late(jnp.zeros(3), gradient))
    assert np.isnan(make(jnp.full((2, 2), jnp.inf))).all()
