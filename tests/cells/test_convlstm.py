"""The equations of the cell, worked out on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells.convlstm import (
    ACTIVATIONS,
    GATE_ORDER,
    PEEPHOLE_ORDER,
    ConvLSTMCell,
    forget_gate_ones,
    peephole_shape,
    split_gates,
)

LOG2, LOG3 = np.log(2.0), np.log(3.0)


def one_step(gates, parameters, **fields):
    """One pixel whose convolutions give these pre-activations, from c = 4."""
    cell = ConvLSTMCell(1, **fields)
    carry = (jnp.full((1, 1, 1, 1), 4.0), jnp.zeros((1, 1, 1, 1)))
    z = jnp.asarray(gates, jnp.float32).reshape(1, 1, 1, 4)
    (cell_state, hidden), output = cell.step(
        lambda **arrays: z, jax.tree.map(jnp.float32, parameters), carry, None
    )
    assert output is hidden
    return cell_state.item(), hidden.item()


def test_the_order_of_gates_and_peepholes():
    assert GATE_ORDER == ("i", "f", "g", "o")
    assert PEEPHOLE_ORDER == ("i", "f", "o")
    np.testing.assert_array_equal(
        jnp.stack(split_gates(jnp.arange(8.0)[None])).ravel(), np.arange(8)
    )


def test_peephole_shape():
    assert peephole_shape("none", 5, 3, 4) is None
    assert peephole_shape("channel", 5, 3, 4) == (3, 5)
    assert peephole_shape("location", 5, 3, 4) == (3, 3, 4, 5)


@pytest.mark.parametrize(
    ("activation", "candidate", "squash"),
    [("relu", 2.0, lambda x: x), ("tanh", np.arctanh(0.5), np.tanh)],
)
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_gates_by_hand(activation, candidate, squash, offset):
    """Gates 1/2, 3/4 and 1/5; the forget gate's offset stands beside its bias."""
    gates = np.array([0, LOG3 - offset - 0.5, candidate, -2 * LOG2])
    cell_state, hidden = one_step(
        gates,
        {"bias": np.array([0, 0.5, 0, 0])},
        peephole="none",
        activation=activation,
        forget_offset=offset,
    )
    expected = 0.75 * 4 + 0.5 * {"relu": 2.0, "tanh": 0.5}[activation]
    assert cell_state == pytest.approx(expected)
    assert hidden == pytest.approx(0.2 * squash(expected))


@pytest.mark.parametrize("peephole", ["channel", "location"])
def test_peepholes_of_i_and_f_see_the_old_state_and_that_of_o_the_new(peephole):
    # i = σ(ln 3) = 3/4, f = σ(ln 3 − ln 3) = 1/2, c' = 2 + 3/2; o = σ(−ln 4) = 1/5.
    weights = np.array([LOG3 / 4, -LOG3 / 4, 2 * LOG2 / 3.5])
    shape = peephole_shape(peephole, 1, 1, 1)
    cell_state, hidden = one_step(
        [0, LOG3, 2, -4 * LOG2],
        {"peephole": weights.reshape(shape)},
        peephole=peephole,
        activation="relu",
        use_bias=False,
    )
    assert cell_state == pytest.approx(3.5)
    assert hidden == pytest.approx(0.7)


def test_relu_is_flat_at_zero():
    assert jax.grad(ACTIVATIONS["relu"])(0.0) == 0


def test_the_forget_gate_starts_open():
    bias = forget_gate_ones(jax.random.key(0), (8,), jnp.bfloat16)
    assert bias.dtype == jnp.bfloat16
    np.testing.assert_array_equal(bias, [0, 0, 1, 1, 0, 0, 0, 0])
