import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.tasks.losses import Forecast
from convlstm_jax.tasks.rain_losses import RAIN_LOSSES, rain_loss, rain_weight


def test_the_weights_of_the_paper_begin_at_their_rates():
    rain = jnp.array([0.0, 1.99, 2, 4.99, 5, 9.99, 10, 29.9, 30, 99])
    expected = [1, 1, 2, 2, 5, 5, 10, 10, 30, 30]
    np.testing.assert_array_equal(rain_weight(rain), expected)
    np.testing.assert_array_equal(
        rain_weight(rain, ((5.0, 4.0),)), [1, 1, 1, 1, 4, 4, 4, 4, 4, 4]
    )


@pytest.mark.parametrize("name", RAIN_LOSSES)
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
    }[name.removeprefix("b_").replace("b_", "")]
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


def test_cross_entropy_needs_logits():
    clip = jnp.full((1, 2, 3, 3, 1), 0.5)
    with pytest.raises(ValueError, match="needs a forecast with logits"):
        rain_loss("cross_entropy", Forecast(clip, None), clip, clip, clip)
