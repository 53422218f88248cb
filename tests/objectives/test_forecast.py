import functools

import jax
import jax.numpy as jnp
import numpy as np

from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives.base import to_unit_interval
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.objectives.losses import frame_loss
from tests.trees import random_like

FRAME_SHAPE = (4, 6, 2)


def make_task(**fields):
    model = EncoderForecaster((3,), 3, 3, patch_size=2)
    fields = {"num_input_frames": 3, "num_output_frames": 2, **fields}
    return ForecastObjective(model, **fields)


def stored_frames(num_frames=5):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (2, num_frames, *FRAME_SHAPE), dtype=np.uint8)


@functools.cache
def parameters():
    init = make_task().init
    shapes = jax.eval_shape(lambda key: init(key, FRAME_SHAPE), jax.random.key(0))
    return random_like(shapes, 0.3, seed=1)


def test_to_unit_interval():
    pixels = to_unit_interval(jnp.array([0, 51, 255], jnp.uint8))
    assert pixels.dtype == jnp.float32
    np.testing.assert_allclose(pixels, [0, 0.2, 1], rtol=1e-7)
    for dtype in (jnp.float32, jnp.bfloat16):
        pixels = to_unit_interval(jnp.array([0, 0.5, 1], dtype))
        assert pixels.dtype == jnp.float32
        np.testing.assert_array_equal(pixels, [0, 0.5, 1])


def test_loss_fn_is_the_loss_of_the_forecast():
    task, frames = make_task(loss="mae"), jnp.asarray(stored_frames())

    @jax.jit
    def run(variables):
        inputs, target = task.split(frames)
        forecast = task.forecast(variables, inputs, 2)
        losses = [
            task.loss_fn(variables, {"frames": frames}, jax.random.key(seed), seed)
            for seed in (0, 1)
        ]
        return losses, frame_loss("mae", forecast, target)

    ((losses, auxiliary), (again, _)), expected = run(parameters())
    assert auxiliary == {}
    assert losses.shape == (2,)
    np.testing.assert_array_equal(losses, again)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
