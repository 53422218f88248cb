"""NumPy oracle → scan of steps → fused sequence: outputs and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.ops.sequence import convlstm_sequence
from convlstm_jax.ops.step import Weights
from tests.ops import oracle
from tests.ops.cases import CASES, draw, scan_of_steps

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


def settings(case, dtype=jnp.float64):
    return {
        "num_steps": case.shape[1],
        "activation": case.activation,
        "valid": case.valid,
        "reverse": case.reverse,
        "dtype": dtype,
    }


def as_jax(tree, dtype=None):
    layer, inputs, carry = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    return Weights(*layer), inputs, carry


def assert_trees_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(
            a, b, err_msg=jax.tree_util.keystr(path), **tolerance
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_oracle_scan_and_fused_sequence_agree(case):
    """All three in float64; gradients under cotangents on outputs and final carry."""
    arguments = draw(case)
    expected = oracle.sequence(
        *arguments, case.shape[1], case.activation, case.valid, case.reverse
    )
    generator = np.random.default_rng(7)
    cotangent = jax.tree.map(lambda x: generator.normal(size=x.shape), expected)

    @jax.jit
    def both(arguments, cotangent):
        results = []
        for function in (scan_of_steps, convlstm_sequence):
            function = functools.partial(function, **settings(case))
            outputs, pull_back = jax.vjp(function, *arguments)
            results.append((outputs, pull_back(cotangent)))
        return results

    with jax.enable_x64(True):
        (scanned, scanned_gradients), (fused, fused_gradients) = jax.device_get(
            both(as_jax(arguments), jax.tree.map(jnp.asarray, cotangent))
        )
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(fused))
    assert_trees_close(scanned, expected, **TOLERANCE)
    assert_trees_close(fused, expected, **TOLERANCE)
    assert_trees_close(fused_gradients, scanned_gradients, **TOLERANCE)
    if any(case.lengths or (1,)) and case.inputs:
        assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(fused_gradients))
