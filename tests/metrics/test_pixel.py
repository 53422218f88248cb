import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit

from convlstm_jax.metrics.accumulate import add_sums, batch_sums, summarize
from convlstm_jax.metrics.pixel import (
    absolute_error,
    correlation_moments,
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
    pearson,
    psnr_db,
    squared_error,
)

SHAPE = (2, 3, 5, 4, 2)


def random_clips(shape=(2, 3, 5, 7, 2), seed=0):
    generator = np.random.default_rng(seed)
    return generator.random(shape), generator.random(shape)


@pytest.mark.parametrize("metric", [squared_error, absolute_error, psnr_db])
def test_random_clips_agree_with_numpy(metric):
    prediction, target = random_clips()
    expected = np.empty((2, 3))
    for b in range(2):
        for t in range(3):
            error = prediction[b, t] - target[b, t]
            expected[b, t] = {
                squared_error: np.sum(error**2),
                absolute_error: np.sum(np.abs(error)),
                psnr_db: 20 * np.log10(1 / np.sqrt(np.mean(error**2))),
            }[metric]
    found = jax.jit(metric)(jnp.float32(prediction), jnp.float32(target))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with jax.enable_x64(True):
        found = metric(jnp.asarray(prediction), jnp.asarray(target))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_predictions_beyond_0_and_1_are_scored_as_openstl_scores_them():
    """Its formulas: clipped for PSNR alone."""
    generator = np.random.default_rng(4)
    target = generator.random(SHAPE)
    prediction = target + generator.normal(0, 0.5, SHAPE)
    clipped = np.minimum(np.maximum(prediction, 0), 1)
    psnr = [
        20 * np.log10(1 / np.sqrt(np.mean((x - y) ** 2)))
        for x, y in zip(clipped.reshape(6, -1), target.reshape(6, -1), strict=True)
    ]
    error = prediction - target
    with jax.enable_x64(True):
        mse, mae, found = (
            np.asarray(metric(jnp.asarray(prediction), jnp.asarray(target)))
            for metric in (squared_error, absolute_error, psnr_db)
        )
    np.testing.assert_allclose(mse.mean(), np.mean(error**2, axis=(0, 1)).sum(), 1e-12)
    np.testing.assert_allclose(
        mae.mean(), np.mean(np.abs(error), axis=(0, 1)).sum(), 1e-12
    )
    np.testing.assert_allclose(found.ravel(), psnr, 1e-12)


def test_psnr_is_at_most_100_db():
    target = jnp.asarray([[[0.0, 1.0]], [[0.5, 0.5]]])[None, ..., None]
    found = psnr_db(target.at[:, 1].set(1.0), target)
    np.testing.assert_allclose(found, [[100, 6.0206]], rtol=1e-5)


def test_clips_that_cannot_be_compared():
    clip = jnp.ones((1, 2, 3, 4, 1))
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 1, 3, 4, 1\)"):
        squared_error(clip[:, :1], clip)
    with pytest.raises(ValueError, match=r"target \(2, 3, 4, 1\): they must"):
        squared_error(clip[0], clip[0])
    with pytest.raises(ValueError, match="target has dtype uint8"):
        squared_error(clip, jnp.asarray(clip, jnp.uint8))
    with pytest.raises(ValueError, match=r"logits has shape \(1, 1, 3, 4, 1\)"):
        cross_entropy_from_logits(clip[:, :1], clip)


def random_logits_and_targets():
    generator = np.random.default_rng(3)
    return generator.normal(scale=4, size=SHAPE), generator.random(SHAPE)


def test_logits_agree_with_numpy():
    logits, target = random_logits_and_targets()
    expected = -(target * log_expit(logits) + (1 - target) * log_expit(-logits))
    expected = expected.sum(axis=(2, 3, 4))
    found = jax.jit(cross_entropy_from_logits)(jnp.float32(logits), jnp.float32(target))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    with jax.enable_x64(True):
        found = cross_entropy_from_logits(jnp.asarray(logits), jnp.asarray(target))
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_hand_computed_cross_entropy():
    # Frames of one pixel: sure and right, sure and wrong, undecided, grey target.
    logits = jnp.asarray([200.0, 200.0, 0.0, 0.0]).reshape(1, 4, 1, 1, 1)
    target = jnp.asarray([1.0, 0.0, 1.0, 0.5]).reshape(1, 4, 1, 1, 1)
    np.testing.assert_allclose(
        cross_entropy_from_logits(logits, target),
        [[0.0, 200.0, np.log(2), np.log(2)]],
        rtol=1e-6,
    )
    probabilities = jnp.asarray([1.0, 1.0, 0.5, 0.5]).reshape(1, 4, 1, 1, 1)
    np.testing.assert_allclose(
        cross_entropy_from_probabilities(probabilities, target, epsilon=1e-3),
        [[1.0005e-3, -np.log(1e-3), np.log(2), np.log(2)]],
        rtol=1e-4,
    )


def test_gradient_of_extreme_logits_is_finite():
    logits = jnp.asarray([-1e4, 1e4]).reshape(1, 1, 1, 2, 1)
    gradient = jax.grad(
        lambda values: cross_entropy_from_logits(values, jnp.ones_like(values)).sum()
    )(logits)
    np.testing.assert_allclose(gradient.ravel(), [-1.0, 0.0], atol=1e-6)


FADING_SHAPE = (6, 3, 5, 4, 2)


def fading_clips():
    """Predictions that know less the later a frame is."""
    generator = np.random.default_rng(3)
    target = generator.random(FADING_SHAPE)
    share = np.array([0.9, 0.5, 0.1])[None, :, None, None, None]
    prediction = share * target + (1 - share) * generator.random(FADING_SHAPE)
    return np.float32(prediction), np.float32(target)


def test_is_the_correlation_of_all_pixels_together():
    prediction, target = fading_clips()
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


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_constant_has_no_correlation(value):
    _, target = fading_clips()
    constant = jnp.full(FADING_SHAPE, value)
    figures = {
        "correlation_moments": correlation_moments(constant, jnp.asarray(target))
    }
    sums = add_sums(None, batch_sums(figures, jnp.ones(6)))
    found = summarize(sums, values_per_frame=40)
    assert found.total["correlation"] is None
    assert found.per_lead_time["correlation"] == [None] * 3
