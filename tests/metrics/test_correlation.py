import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import add_sums, batch_sums, summarize
from convlstm_jax.metrics.correlation import correlation_moments, pearson

SHAPE = (6, 3, 5, 4, 2)


def clips():
    """Predictions that know less the later a frame is."""
    generator = np.random.default_rng(3)
    target = generator.random(SHAPE)
    share = np.array([0.9, 0.5, 0.1])[None, :, None, None, None]
    prediction = share * target + (1 - share) * generator.random(SHAPE)
    return np.float32(prediction), np.float32(target)


def test_is_the_correlation_of_all_pixels_together():
    prediction, target = clips()
    weight = np.float32([1, 1, 0, 1, 1, 1])
    # What stands in a row that does not count has no influence.
    spoiled = prediction.copy()
    spoiled[2] = np.nan
    total = None
    for rows in (slice(0, 3), slice(3, 6)):
        moments = correlation_moments(
            jnp.asarray(spoiled[rows]), jnp.asarray(target[rows])
        )
        figures = {"correlation_moments": moments}
        total = add_sums(total, batch_sums(figures, jnp.asarray(weight[rows])))
    found = summarize(total, values_per_frame=40)
    chosen = np.float64(prediction[weight > 0]), np.float64(target[weight > 0])
    expected = [
        np.corrcoef(*(clip[:, t].ravel() for clip in chosen))[0, 1] for t in range(3)
    ]
    assert expected[0] > 0.9 > expected[1] > 0.5 > expected[2]
    np.testing.assert_allclose(found.per_lead_time["correlation"], expected, rtol=1e-5)
    pooled = np.corrcoef(*(clip.ravel() for clip in chosen))[0, 1]
    assert found.total["correlation"] == pytest.approx(pooled, rel=1e-5)
    assert set(found.total) == {"correlation"}


@pytest.mark.parametrize(("level", "error"), [(0.02, 1e-5), (0.95, 3e-3)])
def test_frames_of_little_contrast_keep_their_digits(level, error):
    generator = np.random.default_rng(4)
    target = np.float32(level + 0.01 * generator.random((4, 1, 16, 16, 1)))
    prediction = np.float32(target + 0.005 * generator.random(target.shape))
    moments = np.asarray(
        correlation_moments(jnp.asarray(prediction), jnp.asarray(target)), np.float64
    ).sum((0, 1))
    expected = np.corrcoef(np.float64(prediction).ravel(), np.float64(target).ravel())
    assert float(pearson(moments, 4)) == pytest.approx(expected[0, 1], abs=error)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 1.0])
def test_a_constant_has_no_correlation(value):
    _, target = clips()
    constant = jnp.full(SHAPE, value)
    figures = {
        "correlation_moments": correlation_moments(constant, jnp.asarray(target))
    }
    sums = add_sums(None, batch_sums(figures, jnp.ones(6)))
    found = summarize(sums, values_per_frame=40)
    assert found.total["correlation"] is None
    assert found.per_lead_time["correlation"] == [None] * 3


def test_equal_and_opposite():
    _, target = clips()
    with jax.enable_x64(True):
        for sign in (1, -1):
            other = 0.5 + 0.3 * sign * (np.float64(target) - 0.5)
            moments = correlation_moments(jnp.asarray(other), jnp.float64(target))
            found = pearson(np.asarray(moments).sum(0), len(target))
            np.testing.assert_allclose(found, [sign] * 3, rtol=1e-12)
