import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.tasks.losses import LOSSES, Forecast

SHAPE = (3, 2, 4, 5, 2)  # B, T, H, W, C
PIXELS = 4 * 5 * 2


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
    }
    return logits, target, expected


def from_logits(logits):
    return Forecast(jax.nn.sigmoid(logits), logits)


def test_every_loss_is_named():
    assert set(LOSSES) == set(by_numpy()[2])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_numpy(name):
    logits, target, expected = by_numpy()
    found = LOSSES[name](from_logits(jnp.float32(logits)), jnp.float32(target))
    assert found.shape == (3,)
    np.testing.assert_allclose(found, expected[name], rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_where_the_sigmoid_is_full(name):
    logits = jnp.array([200.0, -200.0]).reshape(1, 1, 1, 2, 1)
    right, wrong = (
        LOSSES[name](from_logits(logits), jnp.float32(sign * logits > 0))
        for sign in (1, -1)
    )
    assert right == 0
    assert wrong == {"cross_entropy": 400, "mse": 1, "mae": 1, "mse_sum": 2}[name]


def test_cross_entropy_without_logits_is_that_of_the_frames():
    logits, target, expected = by_numpy()
    frames = jnp.float32(1 / (1 + np.exp(-logits)))
    found = LOSSES["cross_entropy"](Forecast(frames, None), jnp.float32(target))
    np.testing.assert_allclose(found, expected["cross_entropy"], rtol=1e-4)
