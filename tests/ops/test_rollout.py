"""Unrolled reference under plain autodiff → roll-out: outputs and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from convlstm_jax.ops import convolution
from convlstm_jax.ops import rollout as rollout_module
from convlstm_jax.ops.convolution import same_convolution
from convlstm_jax.ops.memory import checkpointed_rollout
from convlstm_jax.ops.rollout import (
    LayerWeights,
    Norm,
    RolloutState,
    StackWeights,
    initial_state,
    rollout,
)
from convlstm_jax.ops.winograd import Winograd
from tests.ops import oracle

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}
BATCH, STEPS, HEIGHT, WIDTH, CHANNELS = 2, 5, 3, 4, 2
FEATURES = (3, 4)
KERNELS = (3, 5)
FORGET_OFFSET = 0.7

# Compiling is what these tests take their time for; the numbers do not depend on it.
fast_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)

# The first clip is read to the end, the second has two predictions in between.
MIXED = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], bool)
MASKS = {
    "all frames": np.ones((BATCH, STEPS), bool),
    "one frame": np.arange(STEPS)[None].repeat(BATCH, 0) < 1,
    "no frame": np.zeros((BATCH, STEPS), bool),
    "mixed": MIXED,
}


def draw(*, norms=False, kernels=KERNELS, seed=0):
    """Random distinct float64 (weights, frames, state), as NumPy arrays."""
    generator = np.random.default_rng(seed)

    def normal(*shape, scale=1.0, mean=0.0):
        return mean + scale * generator.normal(size=shape)

    def norm(features):
        shape = (HEIGHT, WIDTH, 4 * features)
        return Norm(normal(*shape, scale=0.3, mean=1), normal(*shape, scale=0.3))

    layers, carries, channels = [], [], CHANNELS
    for features in FEATURES:
        layer_kernels = (
            normal(size, size, read, 4 * features, scale=0.3)
            for size, read in zip(kernels, (channels, features), strict=True)
        )
        layer_norms = (norm(features), norm(features)) if norms else None
        layers.append(LayerWeights(*layer_kernels, layer_norms))
        carries.append(
            tuple(normal(BATCH, HEIGHT, WIDTH, features, scale=0.5) for _ in "ch")
        )
        channels = features
    weights = StackWeights(tuple(layers), normal(1, 1, channels, CHANNELS))
    frames = normal(BATCH, STEPS, HEIGHT, WIDTH, CHANNELS)
    state = RolloutState(tuple(carries), normal(BATCH, HEIGHT, WIDTH, CHANNELS))
    return weights, frames, state


def reference(weights, frames, state, teacher_forcing):
    """The same in a Python loop, with nothing but `same_convolution` in common."""

    def normalise(z, norm):
        flat = z.reshape(len(z), -1)
        mean, variance = flat.mean(1), flat.var(1)
        z = (z - mean[:, None, None, None]) / jnp.sqrt(
            variance[:, None, None, None] + 1e-5
        )
        return z * norm.scale[None] + norm.offset[None]

    carries, prediction = list(state.carries), state.prediction
    predictions = []
    for t in range(teacher_forcing.shape[1]):
        mask = teacher_forcing[:, t, None, None, None]
        inputs = jnp.where(mask, frames[:, t], prediction) if t < frames.shape[1] else (
            prediction
        )  # fmt: skip
        for index, layer in enumerate(weights.layers):
            cell_state, hidden = carries[index]
            a = same_convolution(inputs, layer.input_kernel)
            b = same_convolution(hidden, layer.recurrent_kernel)
            if layer.norms is not None:
                a, b = normalise(a, layer.norms[0]), normalise(b, layer.norms[1])
            i, f, g, o = jnp.split(a + b, 4, axis=-1)
            forget = jax.nn.sigmoid(f + FORGET_OFFSET)
            cell_state = forget * cell_state + jax.nn.sigmoid(i) * jnp.tanh(g)
            inputs = jax.nn.sigmoid(o) * jnp.tanh(cell_state)
            carries[index] = (cell_state, inputs)
        prediction = same_convolution(inputs, weights.output_kernel)
        predictions.append(prediction)
    state = RolloutState(tuple(carries), prediction)
    return state, jnp.stack(predictions, axis=1)


def run(weights, frames, state, teacher_forcing, dtype=jnp.float64):
    return rollout(
        weights,
        frames,
        teacher_forcing,
        state,
        forget_offset=FORGET_OFFSET,
        dtype=dtype,
    )


def assert_trees_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(
            a, b, err_msg=jax.tree_util.keystr(path), **tolerance
        )


def checkpointed(weights, frames, state, teacher_forcing, dtype=jnp.float64):
    return checkpointed_rollout(
        weights,
        frames,
        teacher_forcing,
        state,
        forget_offset=FORGET_OFFSET,
        dtype=dtype,
    )


def reference_and(function, arguments, teacher_forcing, cotangent):
    """(outputs, gradients) of both."""
    results = []
    for one in (reference, function):
        outputs, pull_back = jax.vjp(
            lambda *a, one=one: one(*a, teacher_forcing), *arguments
        )
        results.append((outputs, pull_back(cotangent)))
    return results


# One function for all masks, which is compiled once.
reference_and_rollout = fast_jit(functools.partial(reference_and, run))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norms", [False, True], ids=["plain", "layer norm"])
def test_outputs_and_gradients_are_those_of_plain_autodiff(mask, norms):
    assert_equals_plain_autodiff(reference_and_rollout, draw(norms=norms), MASKS[mask])


def test_a_single_step():
    weights, frames, state = draw()
    arguments = (weights, frames[:, :1], state)
    assert_equals_plain_autodiff(reference_and_rollout, arguments, MIXED[:, :1])


@pytest.mark.parametrize("function", [rollout, checkpointed_rollout])
def test_a_rollout_of_no_steps_hands_the_state_on(function):
    arguments = jax.tree.map(jnp.float32, draw())
    teacher_forcing = jnp.ones((BATCH, 0), bool)

    def run(weights, frames, state):
        return function(weights, frames, teacher_forcing, state)

    (state, predictions), pull_back = jax.vjp(run, *arguments)
    assert_trees_close(state, arguments[2])
    assert predictions.shape == (BATCH, 0, HEIGHT, WIDTH, CHANNELS)
    *other_gradients, state_gradient = pull_back((state, predictions))
    assert_trees_close(state_gradient, arguments[2])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(other_gradients))


@pytest.mark.parametrize(("norms", "num_frames"), [(False, 3), (True, STEPS)])
def test_checkpoints_change_nothing(norms, num_frames):
    """Three steps, and two that are left over."""
    weights, frames, state = draw(norms=norms)
    both = fast_jit(functools.partial(reference_and, checkpointed))
    teacher_forcing = MIXED & (np.arange(STEPS) < num_frames)
    arguments = (weights, frames[:, :num_frames], state)
    assert_equals_plain_autodiff(both, arguments, teacher_forcing)


def run_as_on_an_accelerator(monkeypatch):
    def chosen(function, arguments):
        return function(*arguments, on_cpu=False)

    monkeypatch.setattr(rollout_module, "_by_platform", chosen)


@pytest.mark.parametrize("kernels", [KERNELS, (5, 5)], ids=["two", "side by side"])
@pytest.mark.parametrize("norms", [False, True], ids=["plain", "layer norm"])
def test_what_accelerators_compute(kernels, norms, monkeypatch):
    run_as_on_an_accelerator(monkeypatch)

    both = functools.partial(reference_and, run)
    arguments = draw(norms=norms, kernels=kernels)
    assert_equals_plain_autodiff(fast_jit(both), arguments, MIXED)


@pytest.mark.parametrize(
    ("size", "norms", "by_tiles"),
    [(5, False, False), (3, False, True), (3, True, True)],
    ids=["side by side", "side by side, by tiles", "layer norm, by tiles"],
)
def test_kernels_of_one_size(size, norms, by_tiles, monkeypatch):
    """Without norms one convolution reads both; small cases, too, go by tiles here."""

    def algorithm(kernel_shape, frame_shape, dtype):
        if kernel_shape[0] == 1:
            return None
        return Winograd(2, kernel_shape[0], *frame_shape[1:3])

    both = functools.partial(reference_and, run)
    arguments = draw(norms=norms, kernels=(size, size))
    if by_tiles:
        monkeypatch.setattr(convolution, "winograd_for", algorithm)
    assert_equals_plain_autodiff(fast_jit(both), arguments, MIXED)


def assert_equals_plain_autodiff(both, arguments, mask):
    generator = np.random.default_rng(7)
    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, arguments)
        shapes = jax.eval_shape(run, *arguments, mask)
        cotangent = jax.tree.map(
            lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), shapes
        )
        expected, found = jax.device_get(both(arguments, jnp.asarray(mask), cotangent))
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(found))
    assert_trees_close(found[0], expected[0], **TOLERANCE)
    assert_trees_close(found[1], expected[1], **TOLERANCE)
    weight_gradients = jax.tree.leaves(found[1][0])
    assert all(np.abs(gradient).max() > 1e-3 for gradient in weight_gradients)


def test_frames_that_are_not_taken_may_be_missing_and_have_no_gradient():
    weights, frames, state = draw()
    teacher_forcing = np.arange(STEPS)[None].repeat(BATCH, 0) < 3

    @fast_jit
    def both(frames):
        def total(frames):
            return run(weights, frames, state, teacher_forcing)[1].sum()

        whole, cut = frames, frames[:, :3]
        return [jax.value_and_grad(total)(frames) for frames in (whole, cut)]

    with jax.enable_x64(True):
        (whole, whole_gradient), (cut, cut_gradient) = both(jnp.asarray(frames))
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(whole_gradient[:, 3:], 0)
    np.testing.assert_array_equal(whole_gradient[:, :3], cut_gradient)


def test_one_layer_equals_the_oracle_of_the_paper():
    weights, frames, state = draw()
    layer = weights.layers[0]
    (cell_state, hidden), _ = state.carries
    weights = StackWeights((layer,), np.eye(3)[None, None, :, :CHANNELS])
    state = RolloutState((state.carries[0],), state.prediction)
    bias = np.repeat([0, FORGET_OFFSET, 0, 0], 3)
    paper = oracle.Layer(layer.input_kernel, layer.recurrent_kernel, bias, None)
    _, outputs = oracle.sequence(
        paper, frames, (cell_state, hidden), STEPS, "tanh", None, False
    )
    with jax.enable_x64(True):
        _, predictions = fast_jit(run)(weights, frames, state, MASKS["all frames"])
    np.testing.assert_allclose(predictions, outputs[..., :CHANNELS], **TOLERANCE)


def test_a_rollout_may_be_cut_and_the_state_handed_on():
    weights, frames, state = draw(norms=True)
    step = fast_jit(run)
    with jax.enable_x64(True):
        whole = step(weights, frames, state, MIXED)
        # The cut lies before a step that reads a prediction.
        state, first = step(weights, frames[:, :4], state, MIXED[:, :4])
        state, second = step(weights, frames[:, 4:], state, MIXED[:, 4:])
    joined = (state, jnp.concatenate([first, second], axis=1))
    assert_trees_close(joined, whole, rtol=1e-12, atol=1e-12)


def test_no_prediction_depends_on_a_frame_not_yet_read():
    weights, frames, state = draw()
    step = fast_jit(functools.partial(run, dtype=jnp.float32))
    _, expected = step(weights, frames, state, MIXED)
    for t in range(STEPS):
        disturbed = frames.copy()
        disturbed[:, t] += 1
        _, found = step(weights, disturbed, state, MIXED)
        changed = np.asarray(found != expected).any((2, 3, 4))
        # Only where the frame is read, and only from then on.
        np.testing.assert_array_equal(
            changed, MIXED[:, t, None] & (np.arange(STEPS) >= t)
        )


def test_in_bfloat16_the_cell_state_stays_float32():
    weights, frames, _ = draw()
    state = initial_state(weights, (BATCH, HEIGHT, WIDTH, CHANNELS), jnp.bfloat16)
    assert [c.shape[-1] for c, _ in state.carries] == list(FEATURES)
    bfloat16 = functools.partial(run, dtype=jnp.bfloat16)

    @fast_jit
    def value_and_gradient(weights):
        def total(weights):
            state_after, predictions = bfloat16(weights, frames, state, MIXED)
            return predictions.astype(jnp.float32).sum(), (state_after, predictions)

        return jax.grad(total, has_aux=True)(weights)

    weights = jax.tree.map(jnp.float32, weights)
    gradients, (state_after, predictions) = value_and_gradient(weights)
    for cell_state, hidden in (*state.carries, *state_after.carries):
        assert cell_state.dtype == jnp.float32
        assert hidden.dtype == jnp.bfloat16
    assert predictions.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    _, expected = fast_jit(functools.partial(run, dtype=jnp.float32))(
        weights, frames, state, MIXED
    )
    np.testing.assert_allclose(
        predictions.astype(jnp.float32), expected, rtol=0.1, atol=0.1
    )


@pytest.mark.parametrize("accelerator", [False, True], ids=["cpu", "accelerator"])
def test_in_bfloat16_a_long_clip_has_the_gradients_of_float32(accelerator, monkeypatch):
    """A sum over all steps in bfloat16 would stop growing."""
    if accelerator:
        run_as_on_an_accelerator(monkeypatch)
    num_steps = 300
    weights, frames, _ = jax.tree.map(jnp.float32, draw(kernels=(3, 3)))
    frames = jnp.repeat(frames[:, :1], num_steps, axis=1)
    teacher_forcing = np.ones((BATCH, num_steps), bool)

    def gradients(dtype):
        def total(weights):
            state = initial_state(weights, frames.shape[:1] + frames.shape[2:], dtype)
            _, predictions = run(weights, frames, state, teacher_forcing, dtype)
            return predictions.astype(jnp.float32).sum()

        return fast_jit(jax.grad(total))(weights)

    for found, expected in zip(
        jax.tree.leaves(gradients(jnp.bfloat16)),
        jax.tree.leaves(gradients(jnp.float32)),
        strict=True,
    ):
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 0.03


def test_checkpoints_keep_less():
    weights, frames, state = jax.tree.map(jnp.float32, draw())
    frames = jnp.tile(frames, (1, 5, 1, 1, 1))
    teacher_forcing = jnp.ones((BATCH, 25), bool)

    def kept(function):
        def pull_back(*arguments):
            return jax.vjp(lambda *a: function(*a, teacher_forcing), *arguments)[1]

        shapes = jax.eval_shape(pull_back, weights, frames, state)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    read = sum(leaf.size for leaf in jax.tree.leaves((weights, frames)))
    default = kept(lambda *a: run(*a, jnp.float32)) - read
    assert kept(lambda *a: checkpointed(*a, jnp.float32)) - read < default / 4


def convolutions(jaxpr, in_loop=False):
    """(whether it is in a loop, shape of the result) of every convolution."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield in_loop, equation.outvars[0].aval.shape
        inner = in_loop or equation.primitive.name in ("scan", "while")
        for value in equation.params.values():
            if isinstance(value, core.ClosedJaxpr):
                yield from convolutions(value.jaxpr, inner)


@pytest.mark.parametrize("norms", [False, True], ids=["plain", "layer norm"])
def test_accelerators_loops_hold_no_gradient_of_a_kernel(norms, monkeypatch):
    """One convolution per kernel over all frames, after the loop."""
    run_as_on_an_accelerator(monkeypatch)
    weights, frames, state = draw(norms=norms)

    def total(weights):
        return run(weights, frames, state, MIXED, jnp.float32)[1].sum()

    found = list(convolutions(jax.make_jaxpr(jax.grad(total))(weights).jaxpr))
    inside = [shape for in_loop, shape in found if in_loop]
    assert len(found) - len(inside) == 2 * len(FEATURES)
    # Forwards and backwards, each convolution once; all give frames.
    assert len(inside) == 2 * 2 * len(FEATURES)
    assert all(shape[:3] == (BATCH, HEIGHT, WIDTH) for shape in inside)
