"""The cell and the layer: one set of parameters, three ways to run them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from convlstm_jax.ops.engine import MEMORY
from tests.ops import oracle
from tests.trees import assert_trees_close, fast_jit, random_like

BATCH, STEPS, HEIGHT, WIDTH, CHANNELS, FEATURES = 3, 4, 3, 5, 2, 3
SHAPE = (BATCH, STEPS, HEIGHT, WIDTH, CHANNELS)
STATE = (BATCH, HEIGHT, WIDTH, FEATURES)
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def make_cell(**fields):
    fields = {"input_kernel_size": 3, "recurrent_kernel_size": 5, **fields}
    return ConvLSTMCell(FEATURES, **fields)


def normal(shape, seed=0, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def parameter_shapes(module, *arguments, **keywords):
    init = functools.partial(module.init, **keywords)
    return jax.eval_shape(init, jax.random.key(0), *arguments)


@pytest.mark.parametrize("reverse", [False, True])
def test_every_way_to_run_gives_the_same_outputs_and_gradients(reverse):
    """`nn.RNN`, `nn.scan`, fused and the oracle, from one tree of parameters."""
    cell = make_cell(**DOUBLE)
    layers = [RecurrentLayer(cell, name, reverse) for name in IMPLEMENTATIONS]
    layers += [RecurrentLayer(cell, reverse=reverse, memory=name) for name in MEMORY]
    rnn = nn.RNN(cell, return_carry=True, reverse=reverse, keep_order=True)
    with jax.enable_x64(True):
        inputs, carry = normal(SHAPE), (normal(STATE, 1), normal(STATE, 2))
        shapes = parameter_shapes(rnn, inputs)
        assert all(shapes == parameter_shapes(layer, inputs) for layer in layers)
        variables = random_like(shapes)

        @fast_jit
        def run(variables, inputs, carry):
            results = []
            for module in (rnn, *layers):

                def apply(variables, inputs, carry, module=module):
                    return module.apply(variables, inputs, initial_carry=carry)

                result, pull_back = jax.vjp(apply, variables, inputs, carry)
                cotangent = jax.tree.map(lambda x: jnp.cos(3 * x), result)
                results.append((result, pull_back(cotangent)))
            return results

        by_rnn, fused, *others = jax.device_get(run(variables, inputs, carry))
    for found in (fused, *others):
        assert_trees_close(found, by_rnn)
    weights = jax.tree.map(np.asarray, variables["params"]["cell"])
    expected = oracle.sequence(
        oracle.Layer(**weights), inputs, carry, STEPS, "tanh", reverse=reverse
    )
    assert_trees_close(fused[0], expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_carry_is_zero_unless_given(implementation):
    layer = RecurrentLayer(make_cell(peephole="location"), implementation)
    inputs = normal(SHAPE, dtype=np.float32)
    variables = random_like(parameter_shapes(layer, inputs))
    zeros = (jnp.zeros(STATE), jnp.zeros(STATE))
    run = fast_jit(lambda carry: layer.apply(variables, inputs, initial_carry=carry))
    assert_trees_close(run(None), run(zeros), 0)


def test_init_gives_one_tree_whatever_runs_it():
    cell = make_cell(peephole="location")
    inputs = normal(SHAPE, dtype=np.float32)
    key = jax.random.key(3)
    modules = [RecurrentLayer(cell, name) for name in IMPLEMENTATIONS] + [nn.RNN(cell)]
    inits = fast_jit(lambda key: [module.init(key, inputs) for module in modules])
    fused, scanned, rnn = inits(key)
    assert_trees_close(fused, scanned, 0)
    assert_trees_close(fused, rnn, 0)
    weights = fused["params"]["cell"]
    assert jax.tree.map(jnp.shape, weights) == {
        "input_kernel": (3, 3, CHANNELS, 4 * FEATURES),
        "recurrent_kernel": (5, 5, FEATURES, 4 * FEATURES),
        "bias": (4 * FEATURES,),
        "peephole": (3, HEIGHT, WIDTH, FEATURES),
    }
    assert not weights["peephole"].any()
    np.testing.assert_array_equal(weights["bias"], np.repeat([0, 1, 0, 0], FEATURES))


def test_the_cell_follows_the_rnn_interface():
    cell = make_cell(dtype=jnp.bfloat16)
    assert cell.num_feature_axes == 3
    frame = jnp.zeros((2, HEIGHT, WIDTH, CHANNELS))
    carry = cell.initialize_carry(jax.random.key(0), frame.shape)
    assert [(state.shape, state.dtype) for state in carry] == [
        ((2, HEIGHT, WIDTH, FEATURES), jnp.float32),
        ((2, HEIGHT, WIDTH, FEATURES), jnp.bfloat16),
    ]
    assert not any(state.any() for state in carry)
    ((c, h), output), variables = jax.eval_shape(
        cell.init_with_output, jax.random.key(0), carry, frame
    )
    assert c.dtype == jnp.float32
    assert h.dtype == output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
        jnp.dtype(jnp.float32)
    }


def test_the_cell_without_bias_and_peephole():
    cell = make_cell(use_bias=False, peephole="none")
    shapes = parameter_shapes(RecurrentLayer(cell), normal(SHAPE, dtype=np.float32))
    assert set(shapes["params"]["cell"]) == {"input_kernel", "recurrent_kernel"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": 0}, "features is 0: it must be an integer of at least 1"),
        ({"features": -4}, "features is -4: it must be an integer"),
        ({"features": 2.0}, "features is 2.0: it must be an integer"),
        ({"features": True}, "features is True: it must be an integer"),
        ({"features": (8, 8)}, r"features is \(8, 8\): it must be an integer"),
        ({"input_kernel_size": 4}, "input_kernel_size is 4: it must be odd"),
        ({"recurrent_kernel_size": 2}, "recurrent_kernel_size is 2: it must be odd"),
        ({"input_kernel_size": 0}, "input_kernel_size is 0: it must be an integer"),
        ({"recurrent_kernel_size": (3, 3)}, r"recurrent_kernel_size is \(3, 3\)"),
        ({"peephole": "pixel"}, "peephole is 'pixel': it must be one of .*'channel'"),
        ({"activation": "gelu"}, "activation is 'gelu': it must be one of .*'relu'"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_a_cell_refuses_what_it_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        ConvLSTMCell(**{"features": 4, **fields})


@pytest.mark.parametrize("keyword", ["strides", "padding"])
@pytest.mark.usefixtures("unchecked_types")
def test_a_cell_has_no_strides_and_no_padding(keyword):
    with pytest.raises(TypeError, match=keyword):
        ConvLSTMCell(4, **{keyword: 2})


@pytest.mark.usefixtures("unchecked_types")
def test_a_layer_refuses_an_unknown_implementation():
    with pytest.raises(ValueError, match="implementation is 'cudnn': it must be one"):
        RecurrentLayer(make_cell(), implementation="cudnn")


@pytest.mark.usefixtures("unchecked_types")
def test_a_layer_refuses_savings_it_does_not_know():
    with pytest.raises(ValueError, match="memory is 'none': it must be one of"):
        RecurrentLayer(make_cell(), memory="none")
    with pytest.raises(
        ValueError, match="memory is 'checkpoint': it must be 'default'"
    ):
        RecurrentLayer(make_cell(), implementation="scan", memory="checkpoint")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.usefixtures("unchecked_types")
def test_a_layer_refuses_calls_it_cannot_answer(implementation):
    layer = RecurrentLayer(make_cell(), implementation)
    init = functools.partial(layer.init, jax.random.key(0))
    carry = (jnp.zeros(STATE), jnp.zeros(STATE))
    for keywords in ({}, {"initial_carry": carry}, {"num_steps": 3}):
        with pytest.raises(ValueError, match=r"inputs is None: .* initial_carry and"):
            init(None, **keywords)
    with pytest.raises(ValueError, match=r"inputs has shape \(3, 5, 2\): it must be"):
        init(jnp.zeros((3, 5, 2)))


ZEROS = np.zeros((2, 4, 5, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 7}, r"num_steps is 7: it must be left out, or 6, the frames"),
        (
            {"initial_carry": (ZEROS, ZEROS[:1])},
            r"initial_carry has the shapes \(\(2, 4, 5, 3\), \(1, 4, 5, 3\)\): it must "
            r"be \(\(2, 4, 5, 3\), \(2, 4, 5, 3\)\)",
        ),
        ({"initial_carry": (ZEROS[..., :2],) * 2}, "initial_carry has the shapes"),
        ({"initial_carry": (ZEROS,) * 3}, "initial_carry has the shapes"),
        ({"initial_carry": (ZEROS[:, :3],) * 2}, "initial_carry has the shapes"),
        ({"seq_lengths": np.array([3])}, r"seq_lengths has shape \(1,\) and dtype int"),
        ({"seq_lengths": np.array([3.0, 2.0])}, r"one integer a clip, \(2,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_does_not_fit_is_refused(arguments, message):
    layer = RecurrentLayer(ConvLSTMCell(features=3))
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), np.zeros((2, 6, 4, 5, 1)), **arguments)


@pytest.mark.usefixtures("unchecked_types")
def test_a_cell_refuses_a_frame_without_a_batch_and_a_carry_of_another():
    cell = ConvLSTMCell(features=3)
    with pytest.raises(
        ValueError, match=r"inputs has shape \(4, 5, 1\): it must be \[B"
    ):
        cell.init(jax.random.key(0), (ZEROS, ZEROS), np.zeros((4, 5, 1)))
    with pytest.raises(
        ValueError, match=r"carry has the shapes .* must be \(\(1, 4, 5, 3\)"
    ):
        cell.init(jax.random.key(0), (ZEROS, ZEROS), np.zeros((1, 4, 5, 1)))
    with pytest.raises(
        ValueError, match=r"carry has the shapes .* must be \(\(2, 4, 5, 3\)"
    ):
        cell.init(jax.random.key(0), (ZEROS, ZEROS[..., :2]), None)


@pytest.mark.usefixtures("unchecked_types")
def test_lengths_may_be_a_list():
    layer = RecurrentLayer(ConvLSTMCell(features=3))
    inputs = np.ones((2, 6, 4, 5, 1))
    params = layer.init(jax.random.key(0), inputs)
    _, found = layer.apply(params, inputs, seq_lengths=[4, 6])
    _, expected = layer.apply(params, inputs, seq_lengths=jnp.array([4, 6]))
    np.testing.assert_array_equal(found, expected)
