import jax
import numpy as np
import pytest

from convlstm_jax.tasks.sampling import (
    Sampling,
    forecast_takes_truth,
    reverse_forecast_probability,
    reverse_input_probability,
    scheduled_probability,
)


@pytest.mark.parametrize(
    ("step", "probability"),
    # OpenSTL's changing rate of 0.00002, stopped at 50,000.
    [
        (0, 1),
        (1, 0.99998),
        (12_500, 0.75),
        (25_000, 0.5),
        (49_999, 0.00002),
        (50_000, 0),
        (125_000, 0),
    ],
)
def test_scheduled_probability(step, probability):
    assert scheduled_probability(step, 50_000) == pytest.approx(probability, abs=1e-7)


@pytest.mark.parametrize(
    ("step", "given", "forecast"),
    [
        (0, 0.5, 0.5),
        (24_999, 0.5, 0.5),
        (25_000, 0.5, 0.5),
        (30_000, 0.8160603, 0.4),  # 1 − 0.5/e
        (37_500, 0.9589575, 0.25),  # 1 − 0.5/e^2.5
        (49_999, 0.9966303, 0.00002),
        (50_000, 1, 0),
        (100_000, 1, 0),
    ],
)
def test_reverse_probabilities(step, given, forecast):
    found = reverse_input_probability(step, 25_000, 50_000, 5_000)
    assert found == pytest.approx(given, abs=1e-6)
    found = reverse_forecast_probability(step, 25_000, 50_000)
    assert found == pytest.approx(forecast, abs=1e-7)
    sampling = Sampling("reverse_scheduled", 50_000, 25_000, 5_000)
    assert sampling.probabilities(step) == pytest.approx((given, forecast), abs=1e-6)


def draw(sampling, step, seed=0, clips=4000, inputs=4, outputs=3):
    key = jax.random.key(seed)
    return np.asarray(sampling.takes_truth(key, step, clips, inputs, outputs))


def test_without_sampling_the_given_frames_are_read_and_no_other():
    expected = np.array([[1, 1, 1, 1, 0, 0]] * 5, bool)
    np.testing.assert_array_equal(draw(Sampling(), 0, clips=5), expected)
    np.testing.assert_array_equal(forecast_takes_truth(5, 4, 3), expected)
    np.testing.assert_array_equal(forecast_takes_truth(2, 1, 1), [[True]] * 2)


@pytest.mark.parametrize(
    ("sampling", "step", "shares"),
    [
        (Sampling("scheduled", 100), 0, [1, 1, 1, 1, 1, 1]),
        (Sampling("scheduled", 100), 70, [1, 1, 1, 1, 0.3, 0.3]),
        (Sampling("scheduled", 100), 100, [1, 1, 1, 1, 0, 0]),
        (Sampling("reverse_scheduled", 100, 50, 10), 3, [1] + [0.5] * 5),
        (
            Sampling("reverse_scheduled", 100, 50, 10),
            60,
            [1] + [0.8160603] * 3 + [0.4] * 2,
        ),
        (Sampling("reverse_scheduled", 100, 50, 10), 100, [1, 1, 1, 1, 0, 0]),
    ],
)
def test_shares_of_true_frames(sampling, step, shares):
    """Over 4000 clips: four standard deviations are 0.032; 0 and 1 are exact."""
    mask = draw(sampling, step)
    found = mask.mean(axis=0)
    np.testing.assert_allclose(found, shares, atol=0.032)
    for share, expected in zip(found, shares, strict=True):
        assert (share == expected) or (expected not in (0, 1))


def test_clips_and_frames_are_drawn_one_by_one_from_the_key():
    sampling = Sampling("scheduled", 100)
    mask = draw(sampling, 50)
    both = mask[:, 4] & mask[:, 5]
    assert both.mean() == pytest.approx(0.25, abs=0.03)
    assert (mask[:-1, 4] & mask[1:, 4]).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(mask, draw(sampling, 50))
    np.testing.assert_array_equal(
        mask,
        jax.jit(lambda step: sampling.takes_truth(jax.random.key(0), step, 4000, 4, 3))(
            50
        ),
    )
    assert (mask != draw(sampling, 50, seed=1)).any()


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match=r"name is 'sheduled': it must be one of"):
        Sampling("sheduled")
    with pytest.raises(ValueError, match=r"reverse_start_step is 9: it must be less"):
        Sampling("reverse_scheduled", end_step=9, reverse_start_step=9)
    Sampling("scheduled", end_step=9, reverse_start_step=9)
