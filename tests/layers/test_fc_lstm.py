import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.layers.recurrent import FCLSTM
from tests.ops.oracle import lstm_step

BATCH, STEPS, SIZE, FEATURES = 2, 4, 5, 3


@pytest.mark.parametrize(
    ("peephole", "implementation", "reverse"),
    [("channel", "fused", False), ("channel", "scan", True), ("none", "fused", True)],
)
def test_fc_lstm_equals_the_lstm(peephole, implementation, reverse):
    generator = np.random.default_rng(2)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    layer = FCLSTM(
        FEATURES, peephole=peephole, implementation=implementation, reverse=reverse
    )
    inputs, carry = draw(BATCH, STEPS, SIZE), (draw(2, FEATURES), draw(2, FEATURES))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    variables = jax.tree.map(lambda leaf: draw(*leaf.shape), shapes)
    weights = variables["params"]["lstm"]["cell"]
    assert ("peephole" in weights) == (peephole == "channel")
    run = jax.jit(lambda carry: layer.apply(variables, inputs, initial_carry=carry))
    outputs = np.zeros((BATCH, STEPS, FEATURES))
    weights, state, frames = jax.tree.map(np.asarray, (weights, carry, inputs))
    for t in range(STEPS)[:: -1 if reverse else 1]:
        state = lstm_step(weights, state, frames[:, t])
        outputs[:, t] = state[1]
    final, found = run(carry)
    assert found.shape == (BATCH, STEPS, FEATURES)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(found, outputs)
    jax.tree.map(close, final, state)


def test_fc_lstm_stops_at_the_end_of_a_clip_and_runs_without_input():
    layer = FCLSTM(FEATURES)
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5)), jnp.float32)
    shapes = jax.eval_shape(layer.init, jax.random.key(1), inputs)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.3), shapes)
    lengths = jnp.array([1, 3])
    run = jax.jit(lambda: layer.apply(variables, inputs, seq_lengths=lengths))
    (_, h), outputs = run()
    assert not outputs[0, 1:].any()
    assert not outputs[1, 3:].any()
    np.testing.assert_array_equal(h, [outputs[0, 0], outputs[1, 2]])
    carry = (jnp.ones((2, FEATURES)), jnp.ones((2, FEATURES)))
    run = functools.partial(layer.apply, initial_carry=carry, num_steps=6)
    _, outputs = jax.eval_shape(run, variables, None)
    assert outputs.shape == (2, 6, FEATURES)


@pytest.mark.usefixtures("unchecked_types")
def test_inputs_of_another_rank():
    layer = FCLSTM(features=2)
    with pytest.raises(ValueError, match=r"shape \(2, 3\): it must be \[B, T, D\]"):
        layer.init(jax.random.key(0), jnp.zeros((2, 3)))
