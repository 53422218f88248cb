"""Layers on the mesh that `jax.make_mesh` makes by default."""

import collections
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from convlstm_jax.cells.cell import CellWeights, RecurrentCell
from convlstm_jax.cells.convgru import ConvGRUCell
from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.layers.rollout import rollout
from convlstm_jax.layers.video_convolution import VideoConvolution
from convlstm_jax.ops.patches import to_patches
from tests.explicit_mesh import assert_equal_to_one_device, explicit_mesh, over
from tests.trees import assert_trees_close, fast_jit

SHAPE = BATCH, STEPS, HEIGHT, WIDTH, CHANNELS = 8, 3, 3, 4, 2
FEATURES = 3
LENGTHS = np.array([3, 0, 1, 2, 3, 1, 3, 2])
NO_INPUTS = {"with_inputs": False, "with_carry": True, "lengths": LENGTHS}
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


class OwnCell(RecurrentCell):
    """h' = tanh(W∗x + U∗h + b), with arrays of its own whose sharding it never says."""

    @nn.compact
    def weights(self, input_features, height, width):
        kernels = self.kernels(
            input_features,
            input_kernel=(False, self.features),
            recurrent_kernel=(True, self.features),
        )
        init, shape = nn.initializers.zeros, (self.features,)
        bias = self.param("bias", init, shape, self.param_dtype)
        return CellWeights(kernels, {"bias": bias})

    @nn.nowrap
    def step(self, convolve, parameters, carry, inputs):
        z = convolve(input_kernel=inputs, recurrent_kernel=carry)
        ones = jnp.ones((*z.shape[:-1], 1), z.dtype)
        rows = jnp.concatenate([z, ones], axis=-1).reshape(-1, self.features + 1)
        identity = jnp.eye(self.features, dtype=z.dtype)
        matrix = jnp.vstack([identity, parameters["bias"][None]])
        hidden = jnp.tanh((rows @ matrix).reshape(z.shape))
        return hidden, hidden

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.features), self.dtype)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def draw(seed, shapes):
    """Random distinct float64 arrays in place of a tree's own."""
    leaves, structure = jax.tree.flatten(shapes)
    arrays = [0.4 * normal((seed, n), *x.shape) for n, x in enumerate(leaves)]
    return structure.unflatten(arrays)


def check(layer, with_inputs=True, with_carry=False, lengths=None, **how):
    keywords = {} if with_inputs else {"num_steps": STEPS}

    def run(variables, batched, lengths):
        inputs, carry = batched
        return layer.apply(
            variables, inputs, initial_carry=carry, seq_lengths=lengths, **keywords
        )

    with jax.enable_x64(True):
        frame = (BATCH, HEIGHT, WIDTH, CHANNELS)
        carry = jax.eval_shape(lambda: layer.cell.initialize_carry(None, frame))
        inputs = normal(1, *SHAPE) if with_inputs else None
        carry = draw(2, carry) if with_carry else None
        init = functools.partial(layer.init, initial_carry=carry, **keywords)
        variables = draw(3, jax.eval_shape(init, jax.random.key(0), inputs))
        batched = (inputs, carry)
        assert_equal_to_one_device(run, variables, batched, lengths, **how)


@pytest.mark.parametrize(
    ("cell", "fields", "keywords"),
    [
        (ConvLSTMCell, {}, {"with_carry": True}),
        (ConvGRUCell, {"reverse": True}, {"lengths": LENGTHS}),
        (OwnCell, {}, {}),
        (ConvLSTMCell, {"memory": "checkpoint"}, NO_INPUTS),
        (OwnCell, {"memory": "checkpoint", "reverse": True}, {"lengths": LENGTHS}),
        (ConvLSTMCell, {"implementation": "scan"}, {"lengths": LENGTHS}),
        (OwnCell, {"implementation": "scan", "reverse": True}, {"with_carry": True}),
    ],
)
def test_a_layer_gives_what_it_gives_on_one_device(cell, fields, keywords):
    check(RecurrentLayer(cell(FEATURES, **DOUBLE), **fields), **keywords)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_a_layer_that_is_not_jitted(implementation):
    layer = RecurrentLayer(OwnCell(FEATURES, **DOUBLE), implementation)
    check(layer, lengths=LENGTHS, jit=lambda function: function)


def test_weights_do_not_depend_on_the_mesh():
    layer, inputs = RecurrentLayer(ConvLSTMCell(FEATURES)), np.ones(SHAPE, np.float32)
    init = fast_jit(lambda inputs: layer.init(jax.random.key(3), inputs))
    expected = jax.device_get(init(inputs))
    mesh = explicit_mesh()
    with jax.set_mesh(mesh):
        found = init(over(mesh, inputs, "data"))
    assert_trees_close(found, expected, rtol=0, atol=0)


class Stack(nn.Module):
    """Two layers that read what they predict."""

    memory: str = "default"

    @nn.compact
    def __call__(self, frames, teacher_forcing):
        cells = [OwnCell(FEATURES, **DOUBLE, name=name) for name in ("low", "high")]
        shape = (1, 1, FEATURES, CHANNELS)
        kernel = self.param("output", nn.initializers.ones, shape, jnp.float64)
        return rollout(cells, kernel, frames, teacher_forcing, memory=self.memory)


@pytest.mark.parametrize("memory", ["default", "checkpoint"])
def test_a_rollout_gives_what_it_gives_on_one_device(memory):
    stack, frames = Stack(memory), normal(1, *SHAPE)
    forcing = np.random.default_rng(4).random((BATCH, STEPS + 1)) < [1, 0.5, 0.5, 0]
    with jax.enable_x64(True):
        shapes = jax.eval_shape(stack.init, jax.random.key(0), frames, forcing)
        assert_equal_to_one_device(stack.apply, draw(2, shapes), frames, forcing)


@pytest.mark.parametrize("causal", [False, True])
def test_a_video_convolution_gives_what_it_gives_on_one_device(causal):
    layer = VideoConvolution(FEATURES, causal=causal, **DOUBLE)

    def run(variables, frames):
        past = layer.remember(None, frames[:, :1])
        return layer.apply(variables, frames), layer.apply(variables, frames, past)

    with jax.enable_x64(True):
        frames = normal(1, *SHAPE)
        shapes = jax.eval_shape(layer.init, jax.random.key(0), frames)
        assert_equal_to_one_device(run, draw(2, shapes), frames)


def test_the_program_communicates_as_on_a_mesh_with_automatic_axes():
    """Gradients are summed over the devices, and nothing else moves."""
    layer, inputs = RecurrentLayer(ConvLSTMCell(FEATURES)), np.ones(SHAPE, np.float32)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    variables = jax.tree.map(np.float32, draw(3, shapes))

    def total(variables, inputs):
        return jnp.sin(layer.apply(variables, inputs)[1]).sum()

    found = []
    for kind in AxisType.Auto, AxisType.Explicit:
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            arguments = over(mesh, variables), over(mesh, inputs, "data")
            program = fast_jit(jax.grad(total)).lower(*arguments).compile()
        names = r"\b(all-\w+|collective-\w+|reduce-scatter)(?:-start)?\("
        found.append(collections.Counter(re.findall(names, program.as_text())))
    assert found[0] == found[1]
    assert set(found[0]) == {"all-reduce"}


def test_other_axes_than_the_batch_are_refused():
    mesh = explicit_mesh()
    frames = np.zeros((2, 3, 8, 4, 1), np.float32)
    layer = RecurrentLayer(ConvLSTMCell(FEATURES))
    message = r"an array of shape \(2, 3, 8, 4, 1\) is sharded as .*'data'.*: the batch"
    with jax.set_mesh(mesh):
        by_height = over(mesh, frames, None, None, "data")
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(layer.init, jax.random.key(0), by_height)
        with pytest.raises(ValueError, match=message):
            to_patches(by_height, 2)
