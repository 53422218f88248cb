"""What holds for every cell: clips of unequal length, `nn.RNN`, both directions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells import CELLS, build_cell
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from tests.trees import fast_jit, random_like

SHAPE = (2, 4, 5, 4, 3)  # B, T, H, W, C
LENGTHS = np.array([4, 2])


def make(name):
    """The cell, random distinct weights of its layer, and inputs."""
    cell = build_cell(
        name, features=3, input_kernel_size=3, recurrent_kernel_size=3, num_links=2
    )
    inputs = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    init = functools.partial(RecurrentLayer(cell).init, jax.random.key(0))
    return cell, random_like(jax.eval_shape(init, inputs), 0.3), inputs


@pytest.mark.parametrize("name", CELLS)
def test_nothing_behind_a_clips_end_reaches_outputs_or_gradients(name):
    cell, variables, inputs = make(name)
    valid = np.arange(SHAPE[1])[None] < LENGTHS[:, None]
    behind = ~valid[..., None, None, None] & np.ones(SHAPE, bool)

    @fast_jit
    def run(variables, inputs):
        def apply(variables, inputs):
            return RecurrentLayer(cell).apply(variables, inputs, seq_lengths=LENGTHS)

        outputs, pull = jax.vjp(apply, variables, inputs)
        return outputs, pull(jax.tree.map(jnp.cos, outputs))

    expected = jax.device_get(run(variables, np.where(behind, 0, inputs)))
    found = jax.device_get(run(variables, np.where(behind, np.nan, inputs)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    (carry, outputs), (_, input_gradient) = found
    assert np.isfinite(outputs).all() and not outputs[~valid].any()
    assert not input_gradient[behind].any()
    # The short clip alone: its last carry is that of its own last frame.
    alone = jax.device_get(RecurrentLayer(cell).apply(variables, inputs[1:, :2]))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[1:], y, rtol=1e-5, atol=1e-5),
        (carry, outputs[:, :2]),
        alone,
    )


@pytest.mark.parametrize("name", CELLS)
def test_flax_runs_it_in_both_directions(name):
    cell, variables, inputs = make(name)
    weights = variables["params"]["cell"]
    both = nn.Bidirectional(nn.RNN(cell), nn.RNN(cell.clone()))
    params = {"forward_rnn": {"cell": weights}, "backward_rnn": {"cell": weights}}

    @fast_jit
    def run(inputs):
        layers = [RecurrentLayer(cell, reverse=reverse) for reverse in (False, True)]
        apart = [layer.apply(variables, inputs)[1] for layer in layers]
        return both.apply({"params": params}, inputs), jnp.concatenate(apart, axis=-1)

    found, expected = jax.device_get(run(inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(found[..., :3] - found[..., 3:]).max() > 1e-2


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *((name, {}) for name in CELLS),
        ("convlstm", {"layer_norm": True}),
        ("convgru", {"reset_after": True, "activation": "leaky_relu"}),
    ],
)
def test_no_silent_promotion_in_float32(name, fields, implementation):
    layer = RecurrentLayer(build_cell(name, features=3, **fields), implementation)
    inputs = jax.ShapeDtypeStruct(SHAPE, jnp.float32)

    def loss(variables, inputs):
        return layer.apply(variables, inputs, seq_lengths=LENGTHS)[1].sum()

    with jax.numpy_dtype_promotion("strict"):
        shapes = jax.eval_shape(layer.init, jax.random.key(0), inputs)
        gradients = jax.eval_shape(jax.grad(loss), shapes, inputs)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((shapes, gradients))}
    assert dtypes == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", [n for n, cell in CELLS.items() if cell.needs_input])
def test_a_cell_that_cannot_run_without_input_is_refused(name, implementation):
    cell = CELLS[name](3)
    init = functools.partial(
        RecurrentLayer(cell, implementation).init, num_steps=2,
        initial_carry=cell.initialize_carry(None, (1, 4, 4, 3)),
    )  # fmt: skip
    message = f"inputs is None: a {type(cell).__name__} cannot run without input"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(init, jax.random.key(0), None)
