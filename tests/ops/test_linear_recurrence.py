"""A loop in NumPy → all states at once, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from convlstm_jax.cells.minimal import positive
from convlstm_jax.ops.linear_recurrence import (
    linear_recurrence,
    linear_recurrence_gradient,
)
from tests.trees import assert_trees_close, fast_jit


def draw(shape, seed=0):
    generator = np.random.default_rng(seed)
    a, b, gradient = (generator.normal(size=shape) for _ in "abg")
    return a, b, generator.normal(size=(shape[0], *shape[2:])), gradient


def loop(a, b, initial, reverse):
    states, state = np.zeros_like(b), initial
    for t in range(a.shape[1])[:: -1 if reverse else 1]:
        state = a[:, t] * state + b[:, t]
        states[:, t] = state
    return states


def by_scan(a, b, initial, reverse):
    def step(state, t):
        state = a[:, t] * state + b[:, t]
        return state, state

    steps = jnp.arange(a.shape[1])
    return jnp.moveaxis(lax.scan(step, initial, steps, reverse=reverse)[1], 0, 1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 3, 2, 2), (3, 1, 4), (1, 2), (2, 8, 1)])
def test_states_and_gradients_are_those_of_the_loop(shape, reverse):
    arrays = draw(shape)

    @fast_jit
    def run(a, b, initial, gradient):
        states = linear_recurrence(a, b, initial, reverse=reverse)
        found = linear_recurrence_gradient(
            a, initial, states, gradient, reverse=reverse
        )
        _, pull_back = jax.vjp(lambda *x: by_scan(*x, reverse), a, b, initial)
        return states, found, pull_back(gradient)

    with jax.enable_x64(True):
        states, found, expected = jax.device_get(run(*map(jnp.asarray, arrays)))
    assert_trees_close(states, loop(*arrays[:3], reverse), 1e-12, 1e-12)
    assert_trees_close(found, expected, 1e-12, 1e-12)


def test_long_sequences_keep_their_digits_where_sums_of_logarithms_do_not():
    """What `cells.minimal` says of float32, on gates of a minimal GRU."""
    generator = np.random.default_rng(0)
    z, n = (jnp.float32(generator.normal(size=(8, 2000, 16))) for _ in "zn")
    log_n = jnp.where(n >= 0, jnp.log(jnp.abs(n) + 0.5), jax.nn.log_sigmoid(n))

    @fast_jit
    def run(z, n):
        a, b = jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * positive(n)
        total = jnp.cumsum(jax.nn.log_sigmoid(-z), axis=1)
        terms = jax.nn.log_sigmoid(z) + log_n - total
        by_logarithms = total + lax.associative_scan(jnp.logaddexp, terms, axis=1)
        return linear_recurrence(a, b, jnp.zeros_like(b[:, 0])), jnp.exp(by_logarithms)

    found = jax.device_get(run(z, n))
    z, n = np.float64(z), np.float64(n)
    gate = 1 / (1 + np.exp(-z))
    values = gate * np.where(n >= 0, n + 0.5, 1 / (1 + np.exp(-n)))
    exact = loop(1 - gate, values, np.zeros((8, 16)), False)
    direct, by_logarithms = (np.abs(x / exact - 1)[:, -1].max() for x in found)
    assert direct < 6e-7
    assert by_logarithms > 1e-4
