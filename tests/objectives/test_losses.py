import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.config import validated
from convlstm_jax.models.network import Forecast
from convlstm_jax.objectives import ForecastConfig
from convlstm_jax.objectives.losses import (
    FRAME_LOSSES,
    frame_loss,
    rain_loss,
    rain_weight,
)

SHAPE = (3, 2, 4, 5, 2)  # B, T, H, W, C
NAMES = FRAME_LOSSES


def by_numpy():
    generator = np.random.default_rng(4)
    logits = generator.normal(scale=3, size=SHAPE)
    target = generator.random(SHAPE)
    p = 1 / (1 + np.exp(-logits))
    nats = -target * np.log(p) - (1 - target) * np.log(1 - p)
    square, absolute = (p - target) ** 2, np.abs(p - target)
    expected = {
        "cross_entropy": nats.sum((1, 2, 3, 4)) / SHAPE[1],
        "mse": square.mean((1, 2, 3, 4)),
        "mae": absolute.mean((1, 2, 3, 4)),
        "mse_sum": square.sum((1, 2, 3, 4)) / SHAPE[1],
        # Of equal value and slope at an error of 0.1.
        "huber": np.where(absolute < 0.1, square / 2, 0.1 * absolute - 0.005).mean(
            (1, 2, 3, 4)
        ),
    }
    return logits, target, expected


def from_logits(logits):
    return Forecast(jax.nn.sigmoid(logits), logits)


@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_numpy(name):
    logits, target, expected = by_numpy()
    found = frame_loss(name, from_logits(jnp.float32(logits)), jnp.float32(target))
    assert found.shape == (3,)
    np.testing.assert_allclose(found, expected[name], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_losses_stay_finite_where_the_sigmoid_is_full(name):
    logits = jnp.array([200.0, -200.0]).reshape(1, 1, 1, 2, 1)
    right, wrong = (
        frame_loss(name, from_logits(logits), jnp.float32(sign * logits > 0))
        for sign in (1, -1)
    )
    assert right == 0
    expected = {"cross_entropy": 400, "mse": 1, "mae": 1, "mse_sum": 2, "huber": 0.095}
    np.testing.assert_allclose(wrong, expected[name], rtol=1e-6)


def test_a_loss_of_ones_own(tmp_path, monkeypatch):
    """As a function and by its name, for each clip and as one number."""
    (tmp_path / "edges_of_mine.py").write_text(
        "import jax.numpy as jnp\n"
        "def edges(prediction, target):\n"
        "    slopes = jnp.diff(prediction, axis=3) - jnp.diff(target, axis=3)\n"
        "    return jnp.abs(slopes).sum((1, 2, 3, 4))\n"
        "def total(prediction, target):\n"
        "    return jnp.abs(prediction - target).max()\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    logits, target, _ = by_numpy()
    forecast, target = from_logits(jnp.float32(logits)), jnp.float32(target)
    found = frame_loss("edges_of_mine:edges", forecast, target)
    slopes = np.diff(forecast.frames, axis=3) - np.diff(target, axis=3)
    np.testing.assert_allclose(found, np.abs(slopes).sum((1, 2, 3, 4)), rtol=1e-5)
    import edges_of_mine

    largest = np.abs(forecast.frames - target).max()
    for one in (edges_of_mine.total, "edges_of_mine:total"):
        np.testing.assert_allclose(frame_loss(one, forecast, target), [largest] * 3)
    for name, message in (
        ("edges_of_mine:edge", "has no attribute 'edge'"),
        ("edges_of_mine:number", "it must be a function, not 3"),
        ("nowhere:edges", "it cannot be imported (No module named 'nowhere')"),
    ):
        (problem,) = ForecastConfig(loss=name).check_code()
        assert message in problem
    assert list(ForecastConfig(loss="edges_of_mine:edges").check_code()) == []
    (problem,) = validated(ForecastConfig, {"loss": "huge"})[1]
    allowed = "must be one of cross_entropy, mse, mae, mse_sum, huber, or MODULE:FUNC"
    assert allowed in problem


def test_cross_entropy_without_logits_is_that_of_the_frames():
    logits, target, expected = by_numpy()
    frames = jnp.float32(1 / (1 + np.exp(-logits)))
    found = frame_loss("cross_entropy", Forecast(frames, None), jnp.float32(target))
    np.testing.assert_allclose(found, expected["cross_entropy"], rtol=1e-4)


def test_the_weights_of_the_paper_begin_at_their_rates():
    rain = jnp.array([0.0, 1.99, 2, 4.99, 5, 9.99, 10, 29.9, 30, 99])
    expected = [1, 1, 2, 2, 5, 5, 10, 10, 30, 30]
    rates = (2.0, 5.0, 10.0, 30.0)
    np.testing.assert_array_equal(rain_weight(rain, rates, rates), expected)
    np.testing.assert_array_equal(
        rain_weight(rain, (5.0,), (4.0,)), [1, 1, 1, 1, 4, 4, 4, 4, 4, 4]
    )


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "mae", "b_mse", "b_mae"])
def test_losses_against_numpy_over_pixels_with_data_alone(name):
    rng = np.random.default_rng(0)
    shape = (2, 3, 4, 5, 1)
    logits, target = rng.normal(size=shape), rng.random(shape)
    weight, mask = rng.integers(1, 9, shape) * 1.0, rng.random(shape) < 0.6
    p = 1 / (1 + np.exp(-logits))
    error = {
        "mse": (p - target) ** 2,
        "mae": abs(p - target),
        "cross_entropy": -target * np.log(p) - (1 - target) * np.log(1 - p),
    }[name.removeprefix("b_")]
    if name.startswith("b_"):
        error = weight * error
    expected = [error[i][mask[i]].mean() for i in range(2)]
    target[~mask] = np.nan
    loss = rain_loss(
        name,
        Forecast(jnp.asarray(p), jnp.asarray(logits)),
        jnp.asarray(target),
        jnp.asarray(mask),
        jnp.asarray(weight),
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_clip_without_data_costs_nothing():
    clip = jnp.full((1, 2, 3, 3, 1), 0.5)
    none = jnp.zeros_like(clip)
    assert rain_loss("b_mse", Forecast(clip, None), none, none, clip + 1) == 0


def test_pixel_cross_entropy_without_logits_is_that_of_the_frames():
    p = jnp.float32(np.random.default_rng(1).uniform(0.05, 0.95, (2, 2, 3, 3, 1)))
    target, ones = p[::-1], jnp.ones_like(p)
    expected = -target * np.log(p) - (1 - target) * np.log(1 - p)
    found = rain_loss("cross_entropy", Forecast(p, None), target, ones, ones)
    np.testing.assert_allclose(found, expected.mean((1, 2, 3, 4)), rtol=1e-5)
