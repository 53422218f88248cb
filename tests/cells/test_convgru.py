"""Ballas et al. 2016 in plain NumPy → the cell → the layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells.convgru import ConvGRUCell
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from tests.ops.cases import assert_trees_close
from tests.ops.oracle import convolve, sigmoid

SHAPE, FEATURES = (2, 4, 3, 5, 2), 3


def oracle(weights, inputs, hidden):
    """Clip by clip and frame by frame; inputs may be `None`."""
    b_z, b_r, b_n = np.split(weights["bias"], 3)
    outputs = []
    for clip, h in enumerate(hidden):
        for t in range(SHAPE[1]):
            gates = convolve(h, weights["gates_kernel"])
            n = 0
            if inputs is not None:
                gates += convolve(inputs[clip, t], weights["gates_input_kernel"])
                n = convolve(inputs[clip, t], weights["candidate_input_kernel"])
            z = sigmoid(gates[..., :FEATURES] + b_z)
            r = sigmoid(gates[..., FEATURES:] + b_r)
            n = np.tanh(n + convolve(r * h, weights["candidate_kernel"]) + b_n)
            h = (1 - z) * h + z * n
            outputs.append(h)
    outputs = np.reshape(outputs, (*SHAPE[:4], FEATURES))
    return outputs[:, -1], outputs


@pytest.mark.parametrize("with_inputs", [True, False])
def test_every_way_to_run_equals_the_oracle(with_inputs):
    generator = np.random.default_rng(2)
    inputs = generator.normal(size=SHAPE) if with_inputs else None
    hidden = generator.normal(size=(SHAPE[0], *SHAPE[2:4], FEATURES))
    cell = ConvGRUCell(FEATURES, 5, 3, dtype=jnp.float64, param_dtype=jnp.float64)
    layers = [RecurrentLayer(cell, name) for name in IMPLEMENTATIONS]
    with jax.enable_x64(True):
        call = {"initial_carry": jnp.asarray(hidden), "num_steps": SHAPE[1]}
        frames = None if inputs is None else jnp.asarray(inputs)
        init = functools.partial(layers[0].init, **call)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(0.4 * generator.normal(size=leaf.shape)),
            jax.eval_shape(init, jax.random.key(0), frames),
        )

        @jax.jit
        def run(variables, frames, hidden):
            found = []
            for layer in layers:

                def apply(variables, frames, hidden, layer=layer):
                    arguments = {**call, "initial_carry": hidden}
                    return layer.apply(variables, frames, **arguments)

                result, pull = jax.vjp(apply, variables, frames, hidden)
                found.append((result, pull(jax.tree.map(jnp.cos, result))))
            return found

        fused, scanned = jax.device_get(run(variables, frames, jnp.asarray(hidden)))
    assert_trees_close(fused, scanned)
    weights = jax.tree.map(np.asarray, variables["params"]["cell"])
    assert_trees_close(fused[0], oracle(weights, inputs, hidden))


def test_no_silent_promotion_in_float32():
    cell = ConvGRUCell(3)
    with jax.numpy_dtype_promotion("strict"):
        (carry, output), _ = jax.eval_shape(
            cell.init_with_output,
            jax.random.key(0),
            jnp.zeros((1, 4, 5, 3)),
            jnp.zeros((1, 4, 5, 2)),
        )
    assert carry.dtype == output.dtype == jnp.float32
