import jax
import numpy as np
import pytest

from convlstm_jax.models.recurrent_predictor import SamplingConfig


def sampling(name="none", end=50_000, start=25_000, decay=5_000):
    return SamplingConfig(
        sampling=name,
        sampling_end_step=end,
        reverse_sampling_start_step=start,
        reverse_sampling_decay_steps=decay,
    )


def test_a_schedule_that_outlasts_training_is_doubted():
    for name in ("scheduled", "reverse_scheduled"):
        assert not list(sampling(name, end=30_000).doubts(30_000))
        (text,) = sampling(name, end=30_000).doubts(29_999)
        assert text.startswith("sampling_end_step is 30000, after the last of 29999")
    assert not list(sampling("none").doubts(1))


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
    given, forecast = sampling("scheduled").probabilities(step)
    assert given == 1
    assert forecast == pytest.approx(probability, abs=1e-7)


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
    found_given, found_forecast = sampling("reverse_scheduled").probabilities(step)
    assert found_given == pytest.approx(given, abs=1e-6)
    assert found_forecast == pytest.approx(forecast, abs=1e-7)


def draw(sampling, step, seed=0, clips=4000):
    """Of clips of four given frames and three to forecast."""
    key = jax.random.key(seed)
    return np.asarray(sampling.teacher_forcing(key, step, (clips, 7), 4))


def test_without_sampling_the_given_frames_are_read_and_no_other():
    expected = np.array([[1, 1, 1, 1, 0, 0]] * 5, bool)
    np.testing.assert_array_equal(draw(sampling(), 0, clips=5), expected)


@pytest.mark.parametrize(
    ("schedule", "step", "shares"),
    [
        (sampling("scheduled", 100), 0, [1, 1, 1, 1, 1, 1]),
        (sampling("scheduled", 100), 70, [1, 1, 1, 1, 0.3, 0.3]),
        (sampling("scheduled", 100), 100, [1, 1, 1, 1, 0, 0]),
        (sampling("reverse_scheduled", 100, 50, 10), 3, [1] + [0.5] * 5),
        (
            sampling("reverse_scheduled", 100, 50, 10),
            60,
            [1] + [0.8160603] * 3 + [0.4] * 2,
        ),
        (sampling("reverse_scheduled", 100, 50, 10), 100, [1, 1, 1, 1, 0, 0]),
    ],
)
def test_shares_of_true_frames(schedule, step, shares):
    """Over 4000 clips: four standard deviations are 0.032; 0 and 1 are exact."""
    mask = draw(schedule, step)
    found = mask.mean(axis=0)
    np.testing.assert_allclose(found, shares, atol=0.032)
    for share, expected in zip(found, shares, strict=True):
        assert (share == expected) or (expected not in (0, 1))


def test_clips_and_frames_are_drawn_one_by_one_from_the_key():
    schedule = sampling("scheduled", 100)
    mask = draw(schedule, 50)
    both = mask[:, 4] & mask[:, 5]
    assert both.mean() == pytest.approx(0.25, abs=0.03)
    assert (mask[:-1, 4] & mask[1:, 4]).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(mask, draw(schedule, 50))
    np.testing.assert_array_equal(
        mask,
        jax.jit(
            lambda step: schedule.teacher_forcing(jax.random.key(0), step, (4000, 7), 4)
        )(50),
    )
    assert (mask != draw(schedule, 50, seed=1)).any()


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match="Input should be 'none', 'scheduled' or"):
        sampling("sheduled")
    with pytest.raises(ValueError, match=r"sampling_start_step is 9: it must be less"):
        sampling("reverse_scheduled", end=9, start=9)
    sampling("scheduled", end=9, start=9)
