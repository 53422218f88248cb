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
from convlstm_jax.metrics.correlation import correlation_moments
from convlstm_jax.metrics.pixel import (
    absolute_error,
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
    psnr_db,
    squared_error,
)
from convlstm_jax.metrics.registry import conventions, frame_metrics
from convlstm_jax.metrics.ssim import ms_ssim, ssim, ssim_openstl

SHAPE = (5, 2, 22, 23, 1)


def random_clips(shape=SHAPE):
    generator = np.random.default_rng(6)
    logits = jnp.asarray(generator.normal(size=shape), jnp.float32)
    target = jnp.asarray(generator.random(shape), jnp.float32)
    return jax.nn.sigmoid(logits), target, logits


def test_frame_metrics_are_the_single_functions():
    prediction, target, logits = random_clips()
    found = frame_metrics(prediction, target, logits)
    expected = {
        "mse": squared_error(prediction, target),
        "mae": absolute_error(prediction, target),
        "ssim": ssim(prediction, target),
        "ssim_openstl": ssim_openstl(prediction, target),
        "ms_ssim": ms_ssim(prediction, target),
        "correlation_moments": correlation_moments(prediction, target),
        "psnr_db": psnr_db(prediction, target),
        "cross_entropy_nats": cross_entropy_from_logits(logits, target),
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    without_logits = frame_metrics(prediction, target)
    np.testing.assert_array_equal(
        without_logits["cross_entropy_nats"],
        cross_entropy_from_probabilities(prediction, target),
    )


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
    assert names == {
        "mse",
        "mae",
        "ssim",
        "ssim_openstl",
        "ms_ssim",
        "psnr_db",
        "cross_entropy_nats",
        "correlation_moments",
    } - missing  # fmt: skip


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
    one = summarize(whole, values_per_frame=22 * 23)
    other = summarize(total, values_per_frame=22 * 23)
    assert set(one.total) <= set(conventions())
    for name, figure in one.total.items():
        assert other.total[name] == pytest.approx(figure, rel=1e-6, abs=2e-6), name
    for name, figures in one.per_lead_time.items():
        expected = pytest.approx(figures, rel=1e-6, abs=2e-6)
        assert other.per_lead_time[name] == expected, name

    error = np.float64(prediction) - np.float64(target)
    nats = np.float64(cross_entropy_from_logits(logits, target))
    assert one.total["mse"] == pytest.approx((error**2).sum() / 10, rel=1e-6)
    assert one.total["mse_per_pixel"] == pytest.approx((error**2).mean(), rel=1e-6)
    assert one.total["mae_per_pixel"] == pytest.approx(abs(error).mean(), rel=1e-6)
    sequence = one.total["cross_entropy_nats_per_sequence"]
    assert sequence == pytest.approx(nats.sum(axis=1).mean(), rel=1e-6)


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


def test_boolean_weights_count_like_numbers():
    sums = batch_sums({"mse": jnp.asarray([[1.0], [4.0]])}, jnp.asarray([False, True]))
    assert (sums["sums"]["mse"][0], sums["count"]) == (4.0, 1)


def test_what_cannot_be_summarized():
    empty = add_sums(None, batch_sums({"mse": jnp.ones((2, 3))}, jnp.zeros(2)))
    with pytest.raises(ValueError, match="samples evaluated is 0"):
        summarize(empty, values_per_frame=4)
