"""Forecast skill: tables counted by hand, NumPy oracles, pysteps where installed."""

import contextlib
import dataclasses
import io
import json

import jax
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import add_sums, batch_sums
from convlstm_jax.metrics.forecast_skill import (
    fractions_skill,
    moment_scores,
    skill_sums,
    summarize_skill,
    table_scores,
)


def video(values):
    """[H][W] numbers as one clip of one frame."""
    return np.asarray(values, np.float32)[None, None, :, :, None]


STATIC = ("thresholds_mm_per_h", "window_sizes")
compiled = jax.jit(
    skill_sums,
    static_argnames=STATIC,
    compiler_options={"xla_backend_optimization_level": 0},
)


def sums_of(prediction, target, mask, thresholds=(0.5, 2.0, 5.0, 10.0), windows=(1, 3)):
    return compiled(
        prediction, target, mask, thresholds_mm_per_h=thresholds, window_sizes=windows
    )


def random_rain(shape=(3, 2, 12, 10, 1), seed=0):
    """Two related rain fields, mm/h, and a mask with holes."""
    rng = np.random.default_rng(seed)
    target = rng.gamma(0.5, 3, shape).astype(np.float32)
    prediction = (0.6 * target + rng.gamma(0.5, 2, shape)).astype(np.float32)
    return prediction, target, (rng.random(shape) < 0.7).astype(np.float32)


def test_the_cells_of_a_table_counted_by_hand_without_masked_pixels():
    prediction = video([[1, 1, 0, 0], [0.5, 3, 0, 9]])
    target = video([[2, 0, 1, 0], [0.5, 3, 0.4, 9]])
    mask = video([[1, 1, 1, 1], [1, 1, 1, 0]])
    table = sums_of(prediction, target, mask, (0.5, 2.0))["table"]
    # Hits, misses, false alarms, correct negatives; the rate itself is an event.
    assert table.shape == (1, 1, 2, 4)
    np.testing.assert_array_equal(table[0, 0], [[3, 1, 1, 2], [1, 1, 0, 5]])


def test_the_scores_of_a_table_worked_out_by_hand():
    scores = table_scores(np.array([6, 2, 4, 8]))
    # e = (8·10 + 10·12) / 20 = 10; HSS = (14 − 10) / (20 − 10).
    expected = {"csi": 0.5, "pod": 0.75, "far": 0.4, "bias": 1.25, "hss": 0.4}
    assert {name: float(value) for name, value in scores.items()} == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("table", "undefined"),
    [
        ([0, 0, 0, 9], {"csi", "pod", "far", "bias", "hss"}),
        ([0, 0, 3, 6], {"pod", "bias"}),
        ([0, 3, 0, 6], {"far"}),
        ([0, 0, 0, 0], {"csi", "pod", "far", "bias", "hss"}),
    ],
)
def test_empty_cells_leave_no_score_rather_than_0_or_1(table, undefined):
    scores = table_scores(np.array(table))
    assert {name for name, value in scores.items() if np.isnan(value)} == undefined


def test_masked_pixels_count_nowhere_whatever_they_hold():
    prediction, target, mask = random_rain()
    clean = sums_of(prediction, target, mask)
    hidden = mask == 0
    prediction[hidden], target[hidden] = np.nan, 1e9
    for name, values in sums_of(prediction, target, mask).items():
        np.testing.assert_array_equal(values, clean[name])


def test_errors_and_correlations_against_numpy():
    prediction, target, mask = random_rain()
    moments = np.asarray(sums_of(prediction, target, mask)["moments"])
    scores = moment_scores(moments.astype(np.float64).sum((0, 1)))
    p, t = (x[mask > 0].astype(np.float64) for x in (prediction, target))
    assert scores["rainfall_mse"] == pytest.approx(((p - t) ** 2).mean(), rel=1e-5)
    assert scores["correlation"] == pytest.approx(np.corrcoef(p, t)[0, 1], rel=1e-5)
    paper = (p * t).sum() / np.sqrt((p**2).sum() * (t**2).sum())
    assert scores["correlation_uncentred"] == pytest.approx(paper, rel=1e-5)


def test_a_constant_has_no_correlation():
    _, target, mask = random_rain((1, 1, 8, 9, 1))
    optimized = jax.jit(skill_sums, static_argnames=STATIC)
    thresholds = {"thresholds_mm_per_h": (1.0,), "window_sizes": (1,)}
    sums = optimized(np.full_like(target, 0.3), target, mask, **thresholds)
    assert np.isnan(moment_scores(sums["moments"][0, 0])["correlation"])
    nothing = moment_scores(np.zeros(7))
    assert all(np.isnan(value) for value in nothing.values())


def test_fss_worked_out_by_hand():
    prediction = video([[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    target = video([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    sums = sums_of(prediction, target, np.ones_like(target), (1.0,), (1, 3))
    fss = fractions_skill(np.asarray(sums["fractions"][0, 0, 0]))
    # Window 3: the target's share is 1/9 in all 9 pixels, the prediction's in 4.
    assert fss.tolist() == pytest.approx([0, 1 - 5 / (9 + 4)])
    assert np.isnan(fractions_skill(np.zeros(2)))


def test_pooled_scores_come_from_summed_tables_and_the_mean_stands_beside():
    prediction, target, mask = random_rain()
    target[:, 1] *= 0.05  # Little rain at the second lead time, and none above 10.
    prediction[:, 1] = 0
    thresholds = (0.5, 10.0)
    total = None
    for rows, weight in ((slice(0, 2), [1, 1]), (slice(1, 3), [0, 1])):
        figures = sums_of(prediction[rows], target[rows], mask[rows], thresholds, (3,))
        total = add_sums(total, batch_sums(figures, np.array(weight, np.float32)))
    summary = summarize_skill(total, thresholds_mm_per_h=thresholds, window_sizes=(3,))

    def csi(p, t, m, threshold):
        p, t = (p >= threshold)[m > 0], (t >= threshold)[m > 0]
        return (p & t).sum() / (p | t).sum()

    by_lead_time = [
        csi(prediction[:, t], target[:, t], mask[:, t], 0.5) for t in (0, 1)
    ]
    pooled = csi(prediction, target, mask, 0.5)
    name = "csi_0.5_mm_per_h"
    assert summary.per_lead_time[name] == pytest.approx(by_lead_time)
    assert summary.total[name] == pytest.approx(pooled)
    means = summary.mean_over_lead_times
    assert means[name] == pytest.approx(np.mean(by_lead_time))
    assert abs(means[name] - pooled) > 0.01
    first, second = summary.per_lead_time["csi_10_mm_per_h"]
    assert second is None
    assert means["csi_10_mm_per_h"] == first
    assert summary.per_lead_time["fss_10_mm_per_h_3_px"][1] is None
    fields = dataclasses.asdict(summary)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_agrees_with_the_verification_functions_of_pysteps():
    with contextlib.redirect_stdout(io.StringIO()):  # Where its configuration lies.
        verification = pytest.importorskip(
            "pysteps.verification",
            reason="pysteps is not installed (requirements-radar.txt)",
        )
    prediction, target, mask = random_rain((1, 1, 24, 20, 1))
    # Only what holds data: pysteps takes NaN for correct negatives.
    p, t = (x[mask > 0] for x in (prediction, target))
    thresholds, sizes = (0.5, 2.0, 5.0), (1, 3, 7)
    sums = sums_of(prediction, target, mask, thresholds, sizes)
    for index, threshold in enumerate(thresholds):
        ours = table_scores(np.asarray(sums["table"][0, 0, index]))
        theirs = verification.det_cat_fct(p, t, threshold, [n.upper() for n in ours])
        for name, value in ours.items():
            assert float(value) == pytest.approx(float(theirs[name.upper()])), name
    ours = moment_scores(np.asarray(sums["moments"][0, 0], np.float64))
    theirs = verification.det_cont_fct(p, t, ["MSE", "corr_p"])
    for name, other in (("rainfall_mse", "MSE"), ("correlation", "corr_p")):
        assert float(ours[name]) == pytest.approx(float(theirs[other]), rel=1e-5)
    # Pixels without data: pysteps takes them for dry ones, we leave them out.
    sums = sums_of(prediction, target, np.ones_like(mask), thresholds, sizes)
    ours = fractions_skill(np.asarray(sums["fractions"][0, 0, 1]))
    for size, value in zip(sizes, ours, strict=True):
        frames = prediction[0, 0, ..., 0], target[0, 0, ..., 0]
        theirs = verification.fss(*frames, 2.0, size)
        assert float(value) == pytest.approx(float(theirs), rel=1e-4)
