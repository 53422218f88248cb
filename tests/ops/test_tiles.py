import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.ops.tiles import by_tiles

RADIUS = 3


def blurred(frames, weights):
    """Sums over windows of 7×7 pixels, zero beyond the edge, and a second array."""
    size = 2 * RADIUS + 1
    window = (1, 1, size, size, 1)
    sums = lax.reduce_window(frames * weights, 0.0, lax.add, window, (1,) * 5, "SAME")
    return sums.repeat(2, axis=1), {"more": sums + frames}


def random(rng, *shape):
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("size", [(40, 12), (12, 33), (37, 52), (18, 18), (10, 10)])
def test_tiles_are_equal_to_the_whole(size):
    rng = np.random.default_rng(0)
    arrays = random(rng, 2, 3, *size, 2), random(rng, 2, 1, *size, 2)
    found = by_tiles(blurred, *arrays, overlap=RADIUS, side=12)
    for tiled, whole in zip(
        jax.tree.leaves(found), jax.tree.leaves(blurred(*arrays)), strict=True
    ):
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_windows_are_small_and_their_sides_are_multiples():
    rng, shapes = np.random.default_rng(1), []

    def function(frames):
        shapes.append(frames.shape[2:4])
        return frames

    frames = random(rng, 1, 1, 104, 44, 1)
    found = by_tiles(function, frames, overlap=8, side=20, multiple=4)
    np.testing.assert_array_equal(found, frames)
    assert set(shapes) == {(104, 44), (36, 32)}  # the first for the result's shape


def test_without_an_overlap_there_are_no_tiles():
    frames = random(np.random.default_rng(2), 1, 1, 40, 40, 1)
    smaller = by_tiles(blurred, frames, frames, overlap=RADIUS - 1, side=12)[0]
    whole = by_tiles(blurred, frames, frames, overlap=None, side=12)[0]
    np.testing.assert_array_equal(whole, blurred(frames, frames)[0])
    assert np.abs(smaller - whole).max() > 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"cell": "convlstm"},
        {"cell": "convlstm", "recurrent_kernel_size": 5, "features": (2, 2)},
        {"cell": "convgru"},
        {"cell": "convgru", "reset_after": True, "input_kernel_size": 5},
    ],
)
def test_a_forecast_depends_on_nothing_beyond_its_reach(fields):
    fields = {"input_kernel_size": 3, "recurrent_kernel_size": 3} | fields
    model = EncoderForecaster(**{"features": (2,), **fields}, patch_size=2)
    reach, place = model.reach(2 + 2), 40
    inputs = random(np.random.default_rng(3), 1, 2, 2, 80, 1)
    init = jax.jit(model.init_forecaster, static_argnums=1)
    variables = init(jax.random.key(0), (2, 80, 1))

    def pixel(inputs):
        return model.forecast(variables, inputs, 2).logits[0, -1, 0, place, 0]

    gradient = np.abs(jax.jit(jax.grad(pixel))(inputs)).sum((0, 1, 2, 4))
    away = np.abs(np.flatnonzero(gradient) - place)
    assert reach / 2 < away.max() <= reach + 1  # to the end of a patch


def test_the_reach_of_learned_flows_is_unknown():
    assert EncoderForecaster(features=(2,), cell="trajgru").reach(4) is None
