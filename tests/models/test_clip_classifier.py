import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.models.clip_classifier import ClipClassifier
from convlstm_jax.models.describe import multiply_adds
from tests.trees import fast_jit, random_like

# Frames of 10×14 pixels are 5×7 patches, and 2×3 pixels once they are pooled.
TINY = {
    "features": (3, 4),
    "num_classes": 3,
    "input_kernel_size": 3,
    "recurrent_kernel_size": 1,
    "patch_size": 2,
}
SHAPE = (2, 4, 10, 14, 2)


def make(**fields):
    return ClipClassifier(**(TINY | fields))


def clips(shape=SHAPE, seed=1):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def shapes_of(model, shape=SHAPE):
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), inputs)


def random_variables(model):
    return random_like(shapes_of(model), 0.5)


@functools.cache
def classify(**fields):
    return fast_jit(make(**fields).apply)


def test_patches_and_pooling_bring_the_work_down():
    """Multiply-adds of a 9×224×224×3 clip by hand: 56×56, 28×28 and 14×14 pixels."""

    def work(**fields):
        model = ClipClassifier((32, 64, 64), **fields)
        shape = (1, 9, 224, 224, 3)
        inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
        return multiply_adds(model.apply, shapes_of(model, shape), inputs)

    layers = [(56, 48 + 32, 32), (28, 32 + 64, 64), (14, 64 + 64, 64)]
    expected = sum(
        9 * side**2 * 3 * 3 * channels * 4 * features
        for side, channels, features in layers
    )
    assert work() == expected + 64 * 2
    assert round(work(patch_size=1, pool_size=1) / work()) == 54


@pytest.mark.parametrize("pool_size", [1, 2])
def test_the_logits_follow_from_the_layers_outputs(pool_size):
    """Shift, patches, pooling, average, dense layer in NumPy around the real layers."""
    model = make(pool_size=pool_size)
    variables = random_variables(model)
    params = variables["params"]

    def run_layer(index, inputs):
        cell = ConvLSTMCell(TINY["features"][index], 3, 1)
        layer = RecurrentLayer(cell)
        _, outputs = fast_jit(layer.apply)(
            {"params": {"cell": params[f"layer_{index}"]}}, jnp.asarray(inputs)
        )
        return np.asarray(outputs)

    frames = clips()
    patches = np.concatenate(
        [2 * frames[:, :, i::2, j::2] - 1 for i in range(2) for j in range(2)], axis=-1
    )
    hidden = run_layer(0, patches)
    height, width = hidden.shape[2] // pool_size, hidden.shape[3] // pool_size
    pooled = np.full((*hidden.shape[:2], height, width, 3), np.nan, np.float32)
    for y in range(height):
        for x in range(width):
            rows = slice(y * pool_size, (y + 1) * pool_size)
            columns = slice(x * pool_size, (x + 1) * pool_size)
            pooled[:, :, y, x] = hidden[:, :, rows, columns].max(axis=(2, 3))
    last = run_layer(1, pooled)[:, -1].astype(np.float64)
    head = params["output"]
    expected = last.mean(axis=(1, 2)) @ head["kernel"] + head["bias"]

    logits = classify(pool_size=pool_size)(variables, frames)
    assert logits.shape == (2, 3)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_every_frame_and_their_order_matter():
    variables, frames = random_variables(make()), clips()
    logits = classify()(variables, frames)
    for order in ([3, 2, 1, 0], [1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2]):
        other = classify()(variables, frames[:, order])
        assert np.abs(other - logits).max() > 1e-4, order
    for frame in range(4):
        changed = frames.copy()
        changed[:, frame] = clips(seed=2)[:, frame]
        assert np.abs(classify()(variables, changed) - logits).max() > 1e-4, frame


def test_what_stands_behind_a_clips_end_changes_nothing():
    variables, frames = random_variables(make()), clips()
    run = fast_jit(lambda x, n: make().apply(variables, x, seq_lengths=n))
    both = run(frames, np.array([2, 4]))
    np.testing.assert_allclose(
        both[:1], classify()(variables, frames[:1, :2]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        both[1:], classify()(variables, frames[1:]), rtol=1e-5, atol=1e-6
    )
    changed = frames.copy()
    changed[0, 2:] = clips(seed=2)[0, 2:]
    np.testing.assert_array_equal(run(changed, np.array([2, 4])), both)


@pytest.mark.usefixtures("unchecked_types")
def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 4, 10, 14\): it must be \[B, T, H"):
        shapes_of(make(), SHAPE[:-1])
    with pytest.raises(ValueError, match=r"patch_size is 4: .* 10×14 pixels"):
        shapes_of(make(patch_size=4))
    with pytest.raises(ValueError, match="pool_size is 6: the frames have 5×7 pixels"):
        shapes_of(make(pool_size=6))
