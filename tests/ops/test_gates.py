import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.ops.cell import (
    ACTIVATIONS,
    GATE_ORDER,
    PEEPHOLE_ORDER,
    frame_peepholes,
    peephole_shape,
    split_gates,
    update_state,
    update_state_gradient,
)

LOG2, LOG3 = np.log(2.0), np.log(3.0)


def pixel(value):
    return jnp.full((1, 1, 1, 1), value, jnp.float32)


def test_the_order_of_gates_and_peepholes():
    assert GATE_ORDER == ("i", "f", "g", "o")
    assert PEEPHOLE_ORDER == ("i", "f", "o")


@pytest.mark.usefixtures("unchecked_types")
def test_peephole_shape():
    assert peephole_shape("none", 5, 3, 4) is None
    assert peephole_shape("channel", 5, 3, 4) == (3, 5)
    assert peephole_shape("location", 5, 3, 4) == (3, 3, 4, 5)
    with pytest.raises(ValueError, match="peephole is 'pixel': it must be one of"):
        peephole_shape("pixel", 5, 3, 4)


def test_split_gates():
    i, f, g, o = split_gates(jnp.arange(24.0).reshape(2, 12))
    np.testing.assert_array_equal(i, [[0, 1, 2], [12, 13, 14]])
    np.testing.assert_array_equal(f, [[3, 4, 5], [15, 16, 17]])
    np.testing.assert_array_equal(g, [[6, 7, 8], [18, 19, 20]])
    np.testing.assert_array_equal(o, [[9, 10, 11], [21, 22, 23]])


def test_frame_peepholes():
    assert frame_peepholes(None, jnp.float32) is None
    channel = jnp.arange(6.0).reshape(3, 2)
    for gate, expected in zip(
        frame_peepholes(channel, jnp.float32), [[0, 1], [2, 3], [4, 5]], strict=True
    ):
        np.testing.assert_array_equal(gate, np.reshape(expected, (1, 1, 1, 2)))
    location = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    gates = frame_peepholes(jnp.asarray(location, jnp.bfloat16), jnp.float32)
    assert all(gate.dtype == jnp.float32 for gate in gates)
    np.testing.assert_allclose(np.concatenate(gates), location, rtol=0.01)


@pytest.mark.parametrize(
    ("activation", "candidate", "squash"),
    [("relu", 2.0, lambda x: x), ("tanh", np.arctanh(0.5), np.tanh)],
)
def test_update_state_by_hand(activation, candidate, squash):
    """Gates 1/2, 3/4 and 1/5, worked out on paper."""
    z = (pixel(0), pixel(LOG3), pixel(candidate), pixel(-2 * LOG2))
    gates, cell_state, hidden = update_state(z, pixel(4), None, activation)
    g = {"relu": 2.0, "tanh": 0.5}[activation]
    np.testing.assert_allclose(np.ravel(gates), [0.5, 0.75, g, 0.2], rtol=1e-6)
    expected = 0.75 * 4 + 0.5 * g
    assert cell_state.item() == pytest.approx(expected)
    assert hidden.item() == pytest.approx(0.2 * squash(expected))


def test_peepholes_of_i_and_f_see_the_old_state_and_that_of_o_the_new():
    z = (pixel(0), pixel(LOG3), pixel(2), pixel(-4 * LOG2))
    # i = σ(ln 3) = 3/4, f = σ(ln 3 − ln 3) = 1/2, c' = 2 + 3/2; o = σ(−ln 4) = 1/5.
    peepholes = (pixel(LOG3 / 4), pixel(-LOG3 / 4), pixel(2 * LOG2 / 3.5))
    gates, cell_state, hidden = update_state(z, pixel(4), peepholes, "relu")
    np.testing.assert_allclose(np.ravel(gates), [0.75, 0.5, 2, 0.2], rtol=1e-6)
    assert cell_state.item() == pytest.approx(3.5)
    assert hidden.item() == pytest.approx(0.7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("peephole", ["none", "channel", "location"])
def test_update_state_gradient_is_that_of_autodiff(peephole, activation):
    generator = np.random.default_rng(3)
    shape = (2, 3, 4, 5)
    peephole_axes = {"none": None, "channel": (3, 5), "location": (3, 3, 4, 5)}
    with jax.enable_x64(True):
        draw = lambda shape: jnp.asarray(generator.normal(size=shape))  # noqa: E731
        z, cell_state = tuple(draw(shape) for _ in "ifgo"), draw(shape)
        # The state of a relu layer that starts from zero stays there: a tie.
        cell_state = cell_state.at[0, 0].set(0)
        axes = peephole_axes[peephole]
        peepholes = None if axes is None else frame_peepholes(draw(axes), jnp.float64)

        def update(z, cell_state):
            _, *state = update_state(z, cell_state, peepholes, activation)
            return tuple(state)

        cotangents = draw(shape), draw(shape)
        (new_cell_state, _), pull_back = jax.vjp(update, z, cell_state)
        expected = pull_back(cotangents)
        gates, *_ = update_state(z, cell_state, peepholes, activation)
        found = update_state_gradient(
            *cotangents, gates, cell_state, new_cell_state, peepholes, activation
        )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12),
        found,
        expected,
    )


def test_relu_is_flat_at_zero():
    """In the forward pass's autodiff as in the gradient written by hand."""
    relu = ACTIVATIONS["relu"]
    assert jax.grad(relu.apply)(0.0) == 0
    assert relu.derivative_from_output(relu.apply(jnp.zeros(()))) == 0
