import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models.recurrent_predictor import RecurrentPredictor, SamplingConfig
from convlstm_jax.objectives.forecast import ForecastObjective
from tests.trees import random_like

FRAME_SHAPE = (4, 6, 2)
INPUTS, OUTPUTS = 3, 2


def make_task(sampling="none", end=100, start=50, decay=10):
    training = SamplingConfig(
        sampling=sampling,
        sampling_end_step=end,
        reverse_sampling_start_step=start,
        reverse_sampling_decay_steps=decay,
    )
    model = RecurrentPredictor((3, 2), 3, 3, patch_size=2)
    return ForecastObjective(model, INPUTS, OUTPUTS, "mse", training)


def stored_frames(clips=2, num_frames=INPUTS + OUTPUTS):
    generator = np.random.default_rng(0)
    shape = (clips, num_frames, *FRAME_SHAPE)
    return generator.integers(0, 256, shape, dtype=np.uint8)


@functools.cache
def variables():
    init = make_task().init
    shapes = jax.eval_shape(lambda key: init(key, FRAME_SHAPE), jax.random.key(0))
    return random_like(shapes, 0.5, seed=1)


@functools.cache
def compiled_loss(task):
    def run(frames, step, seed):
        batch = {"frames": frames}
        return task.loss_fn(variables(), batch, jax.random.key(seed), step)

    return jax.jit(run)


def loss_of(task, frames, step=0, seed=0):
    losses, auxiliary = compiled_loss(task)(jnp.asarray(frames), step, seed)
    assert auxiliary == {}
    return np.asarray(losses)


predict = jax.jit(make_task().model.apply)


def expected_loss(frames, mask, clean=None):
    """The squared error of all next frames under a mask that is given."""
    predictions = predict(variables(), np.float32(frames) / 255, mask)
    truth = np.float32(frames if clean is None else clean)[:, 1:] / 255
    return np.square(np.asarray(predictions) - truth).mean((1, 2, 3, 4))


def mask_of(num_read, clips=2):
    steps = np.arange(INPUTS + OUTPUTS - 1)
    return np.broadcast_to(steps < num_read, (clips, len(steps)))


def test_the_loss_is_over_all_next_frames():
    """Of a longer clip, too, the first five frames count."""
    frames = stored_frames(num_frames=7)
    expected = expected_loss(frames[:, :5], mask_of(INPUTS))
    np.testing.assert_allclose(loss_of(make_task(), frames), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["scheduled", "reverse_scheduled"])
def test_both_schedules_end_as_a_forecast_does(name):
    frames = stored_frames()
    task = make_task(sampling=name)
    expected = expected_loss(frames, mask_of(INPUTS))
    np.testing.assert_allclose(loss_of(task, frames, 100), expected, rtol=1e-5)
    assert (loss_of(task, frames, 60) != expected).any()


def test_scheduled_sampling_begins_with_every_frame_read():
    frames = stored_frames()
    task = make_task(sampling="scheduled")
    expected = expected_loss(frames, mask_of(INPUTS + OUTPUTS))
    np.testing.assert_allclose(loss_of(task, frames, 0), expected, rtol=1e-5)


def test_the_step_and_its_key_fix_what_is_read():
    """So a resumed run reads what the uninterrupted one would have read."""
    frames = stored_frames(clips=8)
    task = make_task(sampling="reverse_scheduled")
    first = loss_of(task, frames, 20, seed=3)
    np.testing.assert_array_equal(first, loss_of(task, frames, 20, seed=3))
    assert (first != loss_of(task, frames, 20, seed=4)).any()


def test_targets_without_noise_are_scored_but_not_read():
    frames, clean = stored_frames(), stored_frames()[::-1]
    batch = {"frames": jnp.asarray(frames), "targets": jnp.asarray(clean)}
    key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    run = jax.jit(lambda batch: make_task().loss_fn(variables(), batch, key, step)[0])
    expected = expected_loss(frames, mask_of(INPUTS), clean)
    np.testing.assert_allclose(run(batch), expected, rtol=1e-5)


def test_a_forecast_may_have_any_number_of_frames_and_is_not_clipped():
    inputs = np.float32(stored_frames()[:, :3]) / 255
    forecast = jax.jit(make_task().forecast, static_argnums=2)
    short, long = (forecast(variables(), inputs, number) for number in (2, 6))
    assert short.logits is None
    assert long.frames.shape == (2, 6, *FRAME_SHAPE)
    assert long.frames.min() < 0
    np.testing.assert_allclose(long.frames[:, :2], short.frames, atol=1e-6)
    with_truth = predict(variables(), inputs, np.ones((2, 3), bool))
    np.testing.assert_allclose(long.frames[:, 0], with_truth[:, 2], atol=1e-6)
