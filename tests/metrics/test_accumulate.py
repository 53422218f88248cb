import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    add_sums,
    batch_sums,
    summarize,
)
from convlstm_jax.metrics.pixel import (
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
)
from convlstm_jax.metrics.registry import conventions, frame_metrics

SHAPE = (5, 2, 11, 12, 1)


def random_clips(shape=SHAPE):
    generator = np.random.default_rng(6)
    logits = jnp.asarray(generator.normal(size=shape), jnp.float32)
    target = jnp.asarray(generator.random(shape), jnp.float32)
    return jax.nn.sigmoid(logits), target, logits


def test_cross_entropy_is_from_logits_where_they_are_known():
    prediction, target, logits = random_clips((2, 1, 2, 3, 1))
    for given, expected in (
        (logits, cross_entropy_from_logits(logits, target)),
        (None, cross_entropy_from_probabilities(prediction, target)),
    ):
        found = frame_metrics(prediction, target, given)["cross_entropy_nats"]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("height", "missing"),
    [
        (22, set()),
        (21, {"ms_ssim"}),
        (10, {"ms_ssim", "ssim"}),
        (6, {"ms_ssim", "ssim", "ssim_openstl"}),
    ],
)
def test_frames_too_small_for_ssim_have_none(height, missing):
    clip = jax.ShapeDtypeStruct((1, 1, height, 23, 1), jnp.float32)
    names = set(jax.eval_shape(frame_metrics, clip, clip))
    every = {
        "mse", "mae", "ssim", "ssim_openstl", "ms_ssim", "psnr_db",
        "cross_entropy_nats", "correlation_moments",
    }  # fmt: skip
    assert names == every - missing


def test_batches_and_padding_do_not_change_a_figure():
    prediction, target, logits = random_clips()

    @jax.jit
    def step(prediction, target, logits, weight):
        return batch_sums(frame_metrics(prediction, target, logits), weight)

    whole = add_sums(None, step(prediction, target, logits, jnp.ones(5)))
    # Batches of two; the last is padded with a clip of NaN.
    padding = jnp.full((1, *SHAPE[1:]), jnp.nan)
    total = None
    for first, weight in ((0, [1.0, 1.0]), (2, [1.0, 1.0]), (4, [1.0, 0.0])):
        batch = [
            jnp.concatenate([values, padding])[first : first + 2]
            for values in (prediction, target, logits)
        ]
        total = add_sums(total, step(*batch, jnp.asarray(weight)))
    assert total["count"] == 5.0
    one = summarize(whole, values_per_frame=11 * 12)
    other = summarize(total, values_per_frame=11 * 12)
    assert set(one.total) <= set(conventions())
    for name, figure in one.total.items():
        assert other.total[name] == pytest.approx(figure, rel=1e-6, abs=2e-6), name
    for name, figures in one.per_lead_time.items():
        expected = pytest.approx(figures, rel=1e-6, abs=2e-6)
        assert other.per_lead_time[name] == expected, name


def test_hand_computed_summary():
    metrics = {
        "mse": jnp.asarray([[1.0, 2.0], [3.0, 5.0], [jnp.nan, jnp.inf]]),
        "cross_entropy_nats": jnp.asarray([[10.0, 20.0], [30.0, 60.0], [7.0, 7.0]]),
    }
    sums = batch_sums(metrics, jnp.asarray([1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(sums["sums"]["mse"], [4.0, 7.0])
    assert sums["count"] == 2.0
    assert summarize(add_sums(None, sums), values_per_frame=4) == MetricSummary(
        total={
            "mse": 2.75,
            "mse_per_pixel": 0.6875,
            "cross_entropy_nats": 30.0,
            "cross_entropy_nats_per_frame": 30.0,
            "cross_entropy_nats_per_sequence": 60.0,
        },
        per_lead_time={"mse": [2.0, 3.5], "cross_entropy_nats": [20.0, 40.0]},
    )


def test_host_sums_are_float64_and_leave_their_arguments():
    first = add_sums(None, {"sums": {"mse": jnp.asarray([2.0**24])}, "count": 1})
    second = add_sums(first, {"sums": {"mse": jnp.asarray([1.0])}, "count": 1})
    # float32 would lose the 1.
    assert second["sums"]["mse"][0] == 2.0**24 + 1
    assert second["sums"]["mse"].dtype == np.float64
    assert first["sums"]["mse"][0] == 2.0**24
    assert (first["count"], second["count"]) == (1.0, 2.0)
