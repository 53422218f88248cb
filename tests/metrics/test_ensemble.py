"""Ensemble scores: worked out by hand, NumPy oracles, pysteps where installed."""

import contextlib
import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import add_sums, batch_sums
from convlstm_jax.metrics.baselines import missing_packages
from convlstm_jax.metrics.ensemble import (
    brier,
    crps,
    ensemble_sums,
    reliability,
    roc,
    roc_area,
    summarize_ensemble,
)
from convlstm_jax.metrics.registry import conventions, find_metric, in_order

THRESHOLDS = (0.5, 2.0, 5.0)
compiled = jax.jit(ensemble_sums, static_argnames="thresholds_mm_per_h")
needs_pysteps = pytest.mark.skipif(
    bool(missing_packages()), reason="pysteps is missing: requirements-radar.txt"
)


def random_rain(members=5, shape=(2, 3, 11, 9), dry=False):
    """Members and what is observed, mm/h in float64, and a mask with holes.

    If dry, no rain falls in whole parts, nor, where it was observed, in all members.
    """
    rng = np.random.default_rng(0)
    rain = 0.1 + rng.gamma(0.5, 8, (*shape, members + 1)) * rng.random((*shape, 1))
    if dry:
        rain[..., :-1] *= rng.random(rain[..., :-1].shape) < 0.6
        rain[rng.random(shape) < 0.3] *= 1e-3
    mask = (rng.random((*shape, 1)) < 0.7).astype(np.float32)
    return rain[..., :-1], rain[..., -1:], mask


def sums_of(*rain_and_mask):
    with jax.enable_x64(True):
        sums = compiled(*rain_and_mask, thresholds_mm_per_h=THRESHOLDS)
    return {name: np.asarray(values) for name, values in sums.items()}


def summarized(members, target, mask, batches=((0, 2),)):
    total = None
    for first, last in batches:
        part = (x[first:last] for x in (members, target, mask))
        with jax.enable_x64(True):
            sums = batch_sums(sums_of(*part), jnp.ones(last - first))
        total = add_sums(total, sums)
    return summarize_ensemble(total, thresholds_mm_per_h=THRESHOLDS)


def pysteps_verification():
    with contextlib.redirect_stdout(io.StringIO()):  # Where its configuration lies.
        from pysteps.verification import ensscores, probscores
    return ensscores, probscores


def double_sum(members, target, fairness):
    """The definition, α fair + (1 − α) plain, with all pairs at once."""
    count = members.shape[-1]
    error = np.abs(members - target).mean(-1)
    pairs = np.abs(members[..., :, None] - members[..., None, :]).sum((-1, -2))
    plain, fair = (error - pairs / (2 * n) for n in (count**2, count * (count - 1)))
    return fairness * fair + (1 - fairness) * plain


def test_crps_worked_out_by_hand():
    # pysteps' CRPS_accum leaves terms out where an observation equals a member. By the
    # definition: the mean error is 1/3, and Σ |xⱼ − xₖ| / (2 · 9) = 4/18.
    members, target = np.array([0.0, 0.0, 1.0]), np.array([0.0])
    assert crps(members, target) == pytest.approx([1 / 9])
    assert crps(members, target, fairness=1.0) == pytest.approx([0], abs=1e-7)
    for fairness in (0.0, 0.95, 1.0):
        one = crps(np.array([3.0]), np.array([5.0]), fairness=fairness)
        assert one == pytest.approx([2])


@pytest.mark.parametrize("fairness", [0.0, 0.95, 1.0])
def test_crps_is_the_double_sum_with_ties_and_zeros_too(fairness):
    members, target, _ = random_rain(6)
    members, target = (np.round(x) * (x > 1) for x in (members, target))
    with jax.enable_x64(True):
        found = crps(members, target, fairness=fairness)
    expected = double_sum(members, target, fairness)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_crps_are_finite_at_ties():
    members, target = jnp.array([0.0, 0.0, 1.0]), jnp.zeros(1)
    slope = jax.grad(lambda x: crps(x, target)[0])(members)
    # Of the last: 1/3 of its error, less 1/9 of each of its two pairs.
    np.testing.assert_allclose(slope, [1 / 9, 1 / 9, 1 / 9], rtol=1e-6)


@needs_pysteps
@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("count", [2, 9, 12])
def test_agrees_with_pysteps_over_the_pixels_with_data(count, dry):
    ensscores, probscores = pysteps_verification()
    members, target, mask = random_rain(count, dry=dry)
    summary = summarized(members, target, mask)
    x, y = members[mask[..., 0] > 0].T, target[mask > 0]
    assert summary.total["crps"] == pytest.approx(probscores.CRPS(x, y), rel=1e-6)
    ranks = summary.diagrams["rank_histogram"]
    assert ranks == pytest.approx(ensscores.rankhist(x, y, 0.1), rel=1e-6)
    for index, rate in enumerate(THRESHOLDS):
        chance = (x >= rate).mean(0)
        *expected, area = probscores.ROC_curve(chance, y, rate, compute_area=True)
        name = f"{rate:g}_mm_per_h"
        assert summary.total[f"roc_area_{name}"] == pytest.approx(area, rel=1e-6)
        curve = summary.diagrams["roc"][index]
        assert curve["threshold_mm_per_h"] == rate
        assert curve["pofd"] == pytest.approx([*expected[0], 0])
        assert curve["pod"] == pytest.approx([*expected[1], 0])
        diagram = summary.diagrams["reliability"][index]
        with np.errstate(invalid="ignore"):  # Bins without cases.
            expected = probscores.reldiag(chance, y, rate, min_count=0)
        found = [diagram["forecast_probability"], diagram["observed_frequency"]]
        np.testing.assert_allclose(np.array(found, float), expected, rtol=1e-6)
        assert sum(diagram["cases"]) == mask.sum()
        score = np.square(chance - (y >= rate)).mean()
        assert summary.total[f"brier_{name}"] == pytest.approx(score)


@needs_pysteps
def test_spread_and_error_agree_with_pysteps_averaged_over_frames_with_data():
    ensscores, _ = pysteps_verification()
    members, target, mask = random_rain()
    mask[0, 0], mask[:, 2] = 0, 0
    spread, error = np.full((2, 2, 3), np.nan)
    for frame in ((0, 1), (1, 0), (1, 1)):
        x, y = (
            np.where(mask[frame] > 0, of[frame], np.nan) for of in (members, target)
        )
        x = np.moveaxis(x, -1, 0)
        spread[frame] = ensscores.ensemble_spread(x, "RMSE")
        error[frame] = ensscores.ensemble_skill(x, y[..., 0], "RMSE")
    summary = summarized(members, target, mask)
    for name, expected in (("ensemble_spread", spread), ("ensemble_error", error)):
        *found, nothing = summary.per_lead_time[name]
        by_lead_time = [expected[1, 0], expected[:, 1].mean()]
        assert nothing is None and found == pytest.approx(by_lead_time, rel=1e-6)
        assert summary.total[name] == pytest.approx(np.nanmean(expected), rel=1e-6)
    quotient = np.nansum(spread) / np.nansum(error)
    assert summary.total["spread_error_ratio"] == pytest.approx(quotient)


def test_ties_share_their_ranks_and_dry_pixels_have_none():
    members = np.array([[0.0, 0.05, 3], [0.0, 0.0, 0.09], [2, 2, 5], [0, 1, 2]])
    target = np.array([0.02, 0.08, 2, 7])
    frame = members[None, None, None], target[None, None, None, :, None]
    ranks = sums_of(*frame, np.ones_like(frame[1]))["ranks"]
    # Of the first ranks 0 to 2, of the third as well, of the last rank 3.
    np.testing.assert_allclose(ranks, [[[2 / 3, 2 / 3, 2 / 3, 1]]], rtol=1e-12)


def test_how_often_events_are_forecast_and_observed_counted_by_hand():
    members = np.array([[0.5, 1], [0, 3], [0, 0], [0, 0.6]])
    target = np.array([0.5, 0, 9, 9])
    frame = members[None, None, None], target[None, None, None, :, None]
    mask = np.array([1, 1, 1, 0.0]).reshape(frame[1].shape)
    events = sums_of(*frame, mask)["events"]
    # By rate, then by the number of members: not observed, observed.
    expected = [[[0, 1], [1, 0], [0, 1]], [[1, 1], [1, 0], [0, 0]]]
    np.testing.assert_array_equal(events[0, 0, :2], expected)
    first = events[0, 0, 0]
    assert brier(first) == pytest.approx((1 + 0.25 + 0) / 3)
    curve = roc(first)  # Warned of from probabilities 0, 1/9, 2/9, …, 1 on, and never.
    assert curve["pofd"].tolist() == [1] * 5 + [0] * 6
    assert curve["pod"].tolist() == [1] + [0.5] * 9 + [0]
    assert roc_area(first) == pytest.approx(0.5)
    probability, frequency, cases = reliability(first).values()
    assert cases[cases > 0].tolist() == [1, 1, 1]
    assert probability[cases > 0].tolist() == [0, 0.5, 1]
    assert frequency[cases > 0].tolist() == [1, 0, 1]


def test_a_forecast_without_members():
    members, target, mask = random_rain(1)
    summary = summarized(members, target, mask)
    error = np.abs(members - target)[mask > 0].mean()
    assert summary.total["crps"] == pytest.approx(error)
    assert summary.total["ensemble_error"] > error
    assert summary.total["ensemble_spread"] is None
    assert summary.total["spread_error_ratio"] is None
    assert len(summary.diagrams["rank_histogram"]) == 2


def test_masked_pixels_count_nowhere_whatever_they_hold():
    members, target, mask = random_rain()
    clean = sums_of(members, target, mask)
    members[mask[..., 0] == 0], target[mask == 0] = np.nan, 1e9
    for name, values in sums_of(members, target, mask).items():
        np.testing.assert_array_equal(values, clean[name])


def test_batches_do_not_change_a_score_and_all_of_it_is_json():
    members, target, mask = random_rain()
    members[:, 2], target[:, 2] = 0, 0
    mask[1, 1] = 0
    one = dataclasses.asdict(summarized(members, target, mask))
    other = dataclasses.asdict(summarized(members, target, mask, ((0, 1), (1, 2))))
    (leaves, structure), (others, same) = map(jax.tree.flatten, (one, other))
    assert structure == same and others == pytest.approx(leaves, rel=1e-12)
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    by_lead_time = one["per_lead_time"]
    assert by_lead_time["roc_area_2_mm_per_h"][2] is None
    assert by_lead_time["crps"][2] == by_lead_time["brier_2_mm_per_h"][2] == 0
    assert one["mean_over_lead_times"]["crps"] < max(by_lead_time["crps"])


def test_every_score_is_registered_in_this_order():
    names = summarized(*random_rain()).total
    assert in_order(names) == [
        "crps", "ensemble_spread", "ensemble_error", "spread_error_ratio",
        *(f"{of}_{r:g}_mm_per_h" for of in ("roc_area", "brier") for r in THRESHOLDS),
    ]  # fmt: skip
    assert find_metric("roc_area_0.5_mm_per_h").label == "ROC area at 0.5 mm/h"
    assert {"crps", "spread_error_ratio", "roc_area", "brier"} <= conventions().keys()
