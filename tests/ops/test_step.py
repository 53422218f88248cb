import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.ops.cell import Weights, convlstm_step, state_dtype
from convlstm_jax.ops.sequence import convlstm_sequence
from tests.ops import oracle
from tests.ops.cases import Case, draw

CASES = (
    Case("tanh", kernels=(3, 5), shape=(2, 1, 4, 5)),
    Case("relu", peephole="location", activation="relu", shape=(2, 1, 3, 4)),
    Case("least", peephole="none", bias=False, inputs=False, shape=(1, 1, 3, 2)),
)


def as_jax(tree, dtype=None):
    layer, inputs, carry = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    return Weights(*layer), carry, None if inputs is None else inputs[:, 0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_step_equals_the_oracle(case):
    arguments = draw(case)
    (cell_state, hidden), _ = oracle.sequence(*arguments, 1, case.activation)
    with jax.enable_x64(True):
        step = jax.jit(
            functools.partial(
                convlstm_step, activation=case.activation, dtype=jnp.float64
            )
        )
        carry, output = step(*as_jax(arguments))
    np.testing.assert_allclose(carry[0], cell_state, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(carry[1], hidden, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(output, carry[1])


@pytest.mark.parametrize(
    ("compute", "state"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32")],
)
def test_the_state_is_never_less_than_float32(compute, state):
    assert state_dtype(jnp.dtype(compute)) == jnp.dtype(state)
    arguments = as_jax(draw(CASES[0]), jnp.float32)
    (cell_state, hidden), output = jax.eval_shape(
        functools.partial(convlstm_step, dtype=jnp.dtype(compute)), *arguments
    )
    assert cell_state.dtype == jnp.dtype(state)
    assert hidden.dtype == output.dtype == jnp.dtype(compute)


def test_no_silent_promotion_in_float32():
    arguments = as_jax(draw(CASES[0]), jnp.float32)
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(convlstm_step, *arguments)


def test_float64_stays():
    assert state_dtype(jnp.float64) == jnp.dtype("float64")


@pytest.mark.parametrize("run", [convlstm_step, convlstm_sequence])
@pytest.mark.parametrize(
    ("channels", "kernel_channels", "message"),
    [
        (None, 2, "inputs is None, but input_kernel is not"),
        (2, None, "input_kernel is None, but inputs is not"),
        (3, 2, r"needs 2 channels"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_inputs_that_do_not_fit_the_weights(run, channels, kernel_channels, message):
    kernel = None if kernel_channels is None else jnp.ones((1, 1, kernel_channels, 4))
    weights = Weights(kernel, jnp.ones((1, 1, 1, 4)), None, None)
    carry = (jnp.zeros((1, 2, 2, 1)),) * 2
    time = (1,) if run is convlstm_sequence else ()
    inputs = None if channels is None else jnp.ones((1, *time, 2, 2, channels))
    with pytest.raises(ValueError, match=message):
        if run is convlstm_step:
            convlstm_step(weights, carry, inputs)
        else:
            convlstm_sequence(weights, inputs, carry, num_steps=1)
