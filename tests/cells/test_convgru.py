"""Ballas et al. 2016 and Shi et al. 2017 in plain NumPy → the cell → the layer."""

import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells.convgru import ConvGRUCell
from tests.cells.layers import run_every_way
from tests.ops.oracle import convolve, sigmoid
from tests.trees import assert_trees_close

SHAPE, FEATURES = (2, 4, 3, 5, 2), 3
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def reset_before(weights, gates, h, frame):
    b_z, b_r, b_n = np.split(weights["bias"], 3)
    from_h, from_frame = gates
    gates, n = from_h + from_frame, b_n
    if frame is not None:
        n = n + convolve(frame, weights["candidate_input_kernel"])
    z = sigmoid(gates[..., :FEATURES] + b_z)
    r = sigmoid(gates[..., FEATURES:] + b_r)
    n = np.tanh(n + convolve(r * h, weights["candidate_kernel"]))
    return (1 - z) * h + z * n


def reset_after(weights, gates, h, frame):
    h_z, h_r, h_n = np.split(gates[0], 3, axis=-1)
    x_z, x_r, x_n = np.split(gates[1] + weights["bias"], 3, axis=-1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    n = x_n + r * (h_n + weights["recurrent_bias"])
    return z * h + (1 - z) * np.where(n > 0, n, 0.2 * n)


def oracle(weights, inputs, hidden, update):
    """Clip by clip and frame by frame; inputs may be `None`."""
    outputs = []
    for clip, h in enumerate(hidden):
        for t in range(SHAPE[1]):
            from_h, frame = convolve(h, weights["gates_kernel"]), None
            from_frame = np.zeros_like(from_h)
            if inputs is not None:
                frame = inputs[clip, t]
                from_frame = convolve(frame, weights["gates_input_kernel"])
            h = update(weights, (from_h, from_frame), h, frame)
            outputs.append(h)
    outputs = np.reshape(outputs, (*SHAPE[:4], FEATURES))
    return outputs[:, -1], outputs


@pytest.mark.parametrize("with_inputs", [True, False])
@pytest.mark.parametrize(
    ("fields", "update"),
    [
        ({}, reset_before),
        ({"reset_after": True, "activation": "leaky_relu"}, reset_after),
    ],
)
def test_every_way_to_run_equals_the_oracle(fields, update, with_inputs):
    generator = np.random.default_rng(2)
    inputs = generator.normal(size=SHAPE) if with_inputs else None
    hidden = generator.normal(size=(SHAPE[0], *SHAPE[2:4], FEATURES))
    cell = ConvGRUCell(FEATURES, 5, 3, **fields, **DOUBLE)
    weights, (fused, scanned) = run_every_way(cell, inputs, hidden, SHAPE[1], generator)
    assert_trees_close(fused, scanned)
    assert_trees_close(fused[0], oracle(weights, inputs, hidden, update))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation is 'elu': it must be one of"):
        ConvGRUCell(3, activation="elu")
