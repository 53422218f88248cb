import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import add_sums, batch_sums
from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives.base import DataFacts
from convlstm_jax.objectives.nowcast import NowcastConfig, NowcastObjective
from convlstm_jax.rain import RainScale

SCALE = RainScale(0.0, 60.0, 223.0, 1.53)
MODEL = EncoderForecaster(
    features=(2,), input_kernel_size=1, recurrent_kernel_size=1, patch_size=2
)


FACTS = DataFacts(rain_scale=SCALE, rain_thresholds=(0.5, 5.0), fss_window_sizes=(3,))


def make(loss="b_mse", **fields):
    config = NowcastConfig(num_input_frames=3, num_output_frames=2, loss=loss, **fields)
    return NowcastObjective(MODEL, 3, 2, loss, config=config, facts=FACTS)


@functools.cache
def compiled(task, name, **options):
    """A method, compiled at once rather than operation by operation."""
    method = functools.partial(getattr(task, name), **options)
    return jax.jit(method)


def loss_of(task, variables, batch):
    return compiled(task, "loss_fn")(variables, batch, None, None)[0]


def measure(task, variables, batch, with_baselines=True):
    run = compiled(task, "measure", with_baselines=with_baselines)
    return run(variables, batch)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 200, (2, 5, 8, 6, 1), np.uint8)
    mask = (rng.random(frames.shape) < 0.7).astype(np.uint8)
    return {"frames": jnp.asarray(frames * mask), "mask": jnp.asarray(mask)}


@pytest.fixture(scope="module")
def variables():
    init = functools.partial(make().init, frame_shape=(8, 6, 1))
    return jax.jit(init)(jax.random.key(0))


def test_figures_of_persistence_against_numpy(batch, variables):
    task = make()
    contenders = measure(task, variables, batch)
    assert set(contenders) == {"model", "persistence"}
    total = add_sums(None, batch_sums(contenders["persistence"], jnp.ones(2)))
    summary = task.summarize(total, (8, 6, 1))
    frames, mask = np.asarray(batch["frames"]) / 255, np.asarray(batch["mask"]) > 0
    error = np.where(mask[:, 3:], frames[:, 2:3] - frames[:, 3:], 0) ** 2
    mse = error.sum((2, 3, 4)).mean(0)
    np.testing.assert_allclose(summary.per_lead_time["mse"], mse, rtol=1e-5)
    assert summary.total["mse"] == pytest.approx(mse.mean(), rel=1e-5)
    per_pixel = error.sum() / mask[:, 3:].sum()
    assert summary.total["mse_per_pixel"] == pytest.approx(per_pixel, rel=1e-5)
    true, predicted = (
        SCALE.rain_mm_per_h(pixels)[mask[:, 3:]] >= 0.5
        for pixels in (frames[:, 3:], frames[:, [2, 2]])
    )
    csi = (true & predicted).sum() / (true | predicted).sum()
    assert summary.total["csi_0.5_mm_per_h"] == pytest.approx(csi)
    assert {"fss_5_mm_per_h_3_px", "rainfall_mse", "correlation"} <= set(
        summary.per_lead_time
    )
    with pytest.raises(ValueError, match="number of samples evaluated is 0"):
        task.summarize({**total, "count": 0}, (8, 6, 1))


def test_an_extrapolation_of_the_batch_is_a_contender(batch, variables):
    truth = batch["frames"][:, 3:].astype(jnp.float32) / 255
    contenders = measure(make(), variables, {**batch, "optical_flow": truth})
    assert not contenders["optical_flow"]["mse"].any()
    validation = measure(make(), variables, batch, with_baselines=False)
    assert set(validation) == {"model"} and "loss" in validation["model"]


def test_the_weights_of_rain_reach_the_loss(batch, variables):
    plain = make(loss="b_mse", rain_weight_rates=(1e9,), rain_weights=(2.0,))
    doubled = make(loss="b_mse", rain_weight_rates=(1e-9,), rain_weights=(2.0,))
    mse = loss_of(make(loss="mse"), variables, batch)
    np.testing.assert_allclose(loss_of(plain, variables, batch), mse, rtol=1e-6)
    rainy = {**batch, "frames": jnp.maximum(batch["frames"], 1)}
    one, two = (loss_of(task, variables, rainy) for task in (plain, doubled))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_from_the_last_frame_an_idle_model_is_persistence(batch, variables):
    inputs = jnp.linspace(0, 1, 2 * 3 * 8 * 6).reshape(2, 3, 8, 6, 1)
    idle = jax.tree.map(jnp.zeros_like, variables)
    forecast = make(from_last_frame=True).forecast(idle, inputs, 4)
    expected = jnp.repeat(jnp.clip(inputs[:, -1:], 0.02, 0.98), 4, axis=1)
    np.testing.assert_allclose(forecast.frames, expected, atol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(forecast.logits), forecast.frames)
    plain = make().forecast(idle, inputs, 4)
    np.testing.assert_array_equal(plain.frames, jnp.full_like(expected, 0.5))
