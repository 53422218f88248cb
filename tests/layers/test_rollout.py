"""Unrolled reference under plain autodiff → roll-out: outputs and every gradient."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells.convgru import ConvGRUCell
from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.layers.rollout import RolloutState, rollout
from convlstm_jax.ops.convolution import same_convolution
from tests.ops.cases import run_as_on_an_accelerator, run_by_tiles
from tests.trees import assert_trees_close, fast_jit

BATCH, STEPS, HEIGHT, WIDTH, CHANNELS = 2, 5, 3, 4, 2
FEATURES = (3, 4)
KERNELS = (3, 5)
FORGET_OFFSET = 0.7

# The first clip is read to the end, the second has two predictions in between.
MIXED = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], bool)
MASKS = {
    "all frames": np.ones((BATCH, STEPS), bool),
    "one frame": np.arange(STEPS)[None].repeat(BATCH, 0) < 1,
    "no frame": np.zeros((BATCH, STEPS), bool),
    "mixed": MIXED,
}


class Stack(nn.Module):
    """Two layers, as a network holds them."""

    norms: bool = False
    kernels: tuple[int, int] = KERNELS
    features: tuple[int, ...] = FEATURES
    memory: str = "default"
    gru: bool = False
    dtype: type = jnp.float64

    @nn.compact
    def __call__(self, frames, teacher_forcing, state=None):
        own = {"peephole": "none", "use_bias": False, "layer_norm": self.norms}
        own["forget_offset"] = FORGET_OFFSET
        cls, own = (ConvGRUCell, {}) if self.gru else (ConvLSTMCell, own)
        cells = [
            cls(features, *self.kernels, dtype=self.dtype, name=f"layer_{n}", **own)
            for n, features in enumerate(self.features)
        ]
        shape = (1, 1, self.features[-1], CHANNELS)
        kernel = self.param("output", nn.initializers.ones, shape)
        return rollout(
            cells, kernel, frames, teacher_forcing, state, memory=self.memory
        )


def draw(stack, seed=0):
    """Random distinct float64 (parameters, frames, state), as NumPy arrays."""
    generator = np.random.default_rng(seed)

    def normal(*shape, scale=1.0, mean=0.0):
        return mean + scale * generator.normal(size=shape)

    def weight(path, leaf):
        is_scale = "scale" in jax.tree_util.keystr(path)
        return normal(*leaf.shape, scale=0.3, mean=float(is_scale))

    frames = normal(BATCH, STEPS, HEIGHT, WIDTH, CHANNELS)
    init = stack.clone(dtype=jnp.float32).init
    shapes = jax.eval_shape(init, jax.random.key(0), frames, MASKS["mixed"])
    parameters = jax.tree_util.tree_map_with_path(weight, shapes)
    carries = [
        [normal(BATCH, HEIGHT, WIDTH, features, scale=0.5) for _ in "ch"]
        for features in stack.features
    ]
    carries = tuple(h if stack.gru else (c, h) for c, h in carries)
    state = RolloutState(carries, normal(BATCH, HEIGHT, WIDTH, CHANNELS), {})
    return parameters, frames, state


def lstm_layer(stack, weights, carry, inputs):
    """One step with nothing but `same_convolution` in common."""

    def normalise(z, part):
        flat = z.reshape(len(z), -1)
        mean, variance = flat.mean(1), flat.var(1)
        z = (z - mean[:, None, None, None]) / jnp.sqrt(
            variance[:, None, None, None] + 1e-5
        )
        scale = weights[f"{part}_norm_scale"][None]
        return z * scale + weights[f"{part}_norm_offset"][None]

    cell_state, hidden = carry
    a = same_convolution(inputs, weights["input_kernel"])
    b = same_convolution(hidden, weights["recurrent_kernel"])
    if stack.norms:
        a, b = normalise(a, "input"), normalise(b, "recurrent")
    i, f, g, o = jnp.split(a + b, 4, axis=-1)
    forget = jax.nn.sigmoid(f + FORGET_OFFSET)
    cell_state = forget * cell_state + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell_state)
    return (cell_state, hidden), hidden


def gru_layer(stack, weights, hidden, inputs):
    """As `lstm_layer`."""
    z_bias, r_bias, n_bias = jnp.split(weights["bias"][None, None, None], 3, axis=-1)
    gates = same_convolution(inputs, weights["gates_input_kernel"])
    gates += same_convolution(hidden, weights["gates_kernel"])
    z, r = jnp.split(gates, 2, axis=-1)
    z, r = jax.nn.sigmoid(z + z_bias), jax.nn.sigmoid(r + r_bias)
    n = same_convolution(inputs, weights["candidate_input_kernel"]) + n_bias
    n = jnp.tanh(n + same_convolution(r * hidden, weights["candidate_kernel"]))
    hidden = (1 - z) * hidden + z * n
    return hidden, hidden


def reference(stack, variables, frames, state, teacher_forcing):
    """The roll-out in a Python loop."""
    weights = variables["params"]
    layer = gru_layer if stack.gru else lstm_layer
    carries, prediction = list(state.carries), state.prediction
    predictions = []
    for t in range(teacher_forcing.shape[1]):
        hidden = prediction
        if t < frames.shape[1]:
            mask = teacher_forcing[:, t, None, None, None]
            hidden = jnp.where(mask, frames[:, t], prediction)
        for n in range(len(carries)):
            carries[n], hidden = layer(stack, weights[f"layer_{n}"], carries[n], hidden)
        prediction = same_convolution(hidden, weights["output"])
        predictions.append(prediction)
    state = RolloutState(tuple(carries), prediction, {})
    return state, jnp.stack(predictions, axis=1)


def run(stack, variables, frames, state, teacher_forcing):
    return stack.apply(variables, frames, teacher_forcing, state)


@functools.cache
def compiled(stack, accelerator=None, tiles=None):
    """(outputs, gradients) of reference and roll-out; one program for all masks."""

    @fast_jit
    def both(arguments, teacher_forcing, cotangent):
        results = []
        for one in (reference, run):
            outputs, pull_back = jax.vjp(
                lambda *a, one=one: one(stack, *a, teacher_forcing), *arguments
            )
            results.append((outputs, pull_back(cotangent)))
        return results

    return both


def assert_equals_plain_autodiff(stack, arguments, mask, **how):
    generator = np.random.default_rng(7)
    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, arguments)
        shapes = jax.eval_shape(functools.partial(run, stack), *arguments, mask)
        cotangent = jax.tree.map(
            lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), shapes
        )
        both = compiled(stack, **how)
        expected, found = jax.device_get(both(arguments, jnp.asarray(mask), cotangent))
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(found))
    assert_trees_close(found[0], expected[0])
    assert_trees_close(found[1], expected[1])
    gradients = jax.tree.leaves(found[1][0])
    assert all(np.abs(gradient).max() > 1e-3 for gradient in gradients)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norms", [False, True], ids=["plain", "layer norm"])
def test_outputs_and_gradients_are_those_of_plain_autodiff(mask, norms):
    stack = Stack(norms)
    assert_equals_plain_autodiff(stack, draw(stack), MASKS[mask])


def test_other_cells():
    stack = Stack(gru=True)
    assert_equals_plain_autodiff(stack, draw(stack), MIXED)


def test_a_single_step():
    parameters, frames, state = draw(Stack())
    arguments = (parameters, frames[:, :1], state)
    assert_equals_plain_autodiff(Stack(), arguments, MIXED[:, :1])


@pytest.mark.parametrize(("norms", "num_frames"), [(False, 3), (True, STEPS)])
def test_checkpoints_change_nothing(norms, num_frames):
    """Three steps, and two that are left over."""
    stack = Stack(norms, memory="checkpoint")
    parameters, frames, state = draw(stack)
    teacher_forcing = MIXED & (np.arange(STEPS) < num_frames)
    arguments = (parameters, frames[:, :num_frames], state)
    assert_equals_plain_autodiff(stack, arguments, teacher_forcing)


@pytest.mark.parametrize("kernels", [KERNELS, (5, 5)], ids=["two", "side by side"])
@pytest.mark.parametrize("norms", [False, True], ids=["plain", "layer norm"])
def test_what_accelerators_compute(kernels, norms, monkeypatch):
    run_as_on_an_accelerator(monkeypatch)
    stack = Stack(norms, kernels)
    assert_equals_plain_autodiff(stack, draw(stack), MIXED, accelerator=True)


@pytest.mark.parametrize(
    ("size", "norms", "by_tiles"),
    [(5, False, False), (3, False, True), (3, True, True)],
    ids=["side by side", "side by side, by tiles", "layer norm, by tiles"],
)
def test_kernels_of_one_size(size, norms, by_tiles, monkeypatch):
    """Without norms one convolution reads both; small cases, too, go by tiles here."""
    if by_tiles:
        run_by_tiles(monkeypatch, 2)
    stack = Stack(norms, (size, size))
    assert_equals_plain_autodiff(stack, draw(stack), MIXED, tiles=by_tiles)


def test_frames_that_are_not_taken_may_be_missing_and_have_no_gradient():
    parameters, frames, state = draw(Stack())
    teacher_forcing = np.arange(STEPS)[None].repeat(BATCH, 0) < 3

    @fast_jit
    def both(frames):
        def total(frames):
            return run(Stack(), parameters, frames, state, teacher_forcing)[1].sum()

        return [jax.value_and_grad(total)(x) for x in (frames, frames[:, :3])]

    with jax.enable_x64(True):
        (whole, whole_gradient), (cut, cut_gradient) = both(jnp.asarray(frames))
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(whole_gradient[:, 3:], 0)
    np.testing.assert_array_equal(whole_gradient[:, :3], cut_gradient)


def test_no_prediction_depends_on_a_frame_not_yet_read():
    stack = Stack(dtype=jnp.float32)
    arguments = parameters, frames, state = jax.tree.map(np.float32, draw(stack))
    step = fast_jit(functools.partial(run, stack))
    _, expected = step(*arguments, MIXED)
    for t in range(STEPS):
        disturbed = frames.copy()
        disturbed[:, t] += 1
        _, found = step(parameters, disturbed, state, MIXED)
        changed = np.asarray(found != expected).any((2, 3, 4))
        # Only where the frame is read, and only from then on.
        np.testing.assert_array_equal(
            changed, MIXED[:, t, None] & (np.arange(STEPS) >= t)
        )


def test_in_bfloat16_the_cell_state_stays_float32():
    stacks = [Stack(dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32)]
    parameters, frames, _ = jax.tree.map(jnp.float32, draw(stacks[1]))

    @fast_jit
    def results(parameters):
        found = []
        for stack in stacks:

            def total(parameters, stack=stack):
                state, predictions = run(stack, parameters, frames, None, MIXED)
                return predictions.astype(jnp.float32).sum(), (state, predictions)

            found.append(jax.grad(total, has_aux=True)(parameters))
        return found

    (gradients, (state, predictions)), (_, (_, expected)) = results(parameters)
    for cell_state, hidden in state.carries:
        assert cell_state.dtype == jnp.float32
        assert hidden.dtype == jnp.bfloat16
    assert predictions.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(
        predictions.astype(jnp.float32), expected, rtol=0.1, atol=0.1
    )
