"""How good a rain forecast is: contingency tables, errors and scales, with a mask.

On the device `skill_sums` gives, for each clip and lead time, sums alone: counts,
products, squares. On the host `summarize_skill` divides them, once. A cell of a table
that no pixel fell into therefore leaves a score without a value (None), never 0 or 1.

Scores of the contingency table of a threshold (an event is rain of at least that rate;
h hits, m misses, f false alarms, c correct negatives, n their sum):

    CSI   h / (h + m + f)
    POD   h / (h + m)
    FAR   f / (h + f), the false-alarm ratio
    bias  (h + f) / (h + m)
    HSS   (h + c − e) / (n − e), e = ((h + m)(h + f) + (c + m)(c + f)) / n

FSS, the fractions skill score of Roberts and Lean 2008 (10.1175/2007MWR2123.1): with
the shares of events p and o in a window about each pixel, 1 − Σ(p − o)² / (Σp² + Σo²).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums
from convlstm_jax.metrics.registry import Metric, none_if_nan, register, score_name
from convlstm_jax.types import Video

register(
    Metric("rainfall_mse", "Rainfall-MSE", unit="(mm/h)²", order=70, convention=(
        "Squared error of the rain rate in (mm/h)², averaged over the pixels with data "
        "of all frames and samples. Where there is no data nothing counts, here and in "
        "mse and mae of radar frames, which are summed over the pixels with data; per "
        "pixel they are averages over those.")),
    Metric("correlation_uncentred", "Correlation, uncentred", direction="higher",
        order=72, convention=(
        "Sum of P*T over the square root of sum P² times sum T², P and T the predicted "
        "and the true rain rate, as in Shi et al. 2015; null where a sum is 0.")),
    Metric("csi", "CSI", direction="higher", order=80, convention=(
        "Critical success index, hits / (hits + misses + false alarms), of rain of at "
        "least the rate in the metric's name. This and the scores below come from the "
        "contingency table summed over all samples and lead times (per lead time: over "
        "all samples), and are null where a denominator is 0.")),
    Metric("pod", "POD", direction="higher", order=81, convention=(
        "Probability of detection, hits / (hits + misses).")),
    Metric("far", "FAR", unit="false-alarm ratio", order=82, convention=(
        "False-alarm ratio, false alarms / (hits + false alarms).")),
    Metric("bias", "Bias", unit="forecast / observed", direction="neither", order=83,
        convention=(
        "Frequency bias, (hits + false alarms) / (hits + misses).")),
    Metric("hss", "HSS", direction="higher", order=84, convention=(
        "Heidke skill score, the share of right pixels beyond what chance gives, of "
        "the share that is possible.")),
    Metric("fss", "FSS", direction="higher", order=85, convention=(
        "Fractions skill score of Roberts and Lean 2008 over square windows of the "
        "side in the metric's name, pixels: 1 - sum (p - o)² / (sum p² + sum o²), "
        "summed over pixels with data; pixels outside the frame and without data count "
        "as dry in the windows.")),
    Metric("mean_over_lead_times", "Mean over lead times", order=86, convention=(
        "The other way to pool: each score averaged over the lead times at which it is "
        "not null.")),
)  # fmt: skip

_FRAME = (2, 3, 4)


def skill_sums(
    prediction_mm_per_h: Video,
    target_mm_per_h: Video,
    mask: Video,
    *,
    thresholds_mm_per_h: Sequence[float],
    window_sizes: Sequence[int] = (),
) -> dict[str, Array]:
    """The sums that every score of a forecast follows from.

    Args:
        prediction_mm_per_h: Predicted rain rate `[B, T, H, W, C]`, mm/h.
        target_mm_per_h: True rain rate of the same shape.
        mask: 1 where there is data, else 0; of the same shape. What is predicted or
            stands in the target elsewhere counts nowhere.
        thresholds_mm_per_h: Rates from which on there is an event, N of them.
        window_sizes: Sides of the windows of the FSS, odd, pixels, M of them.

    Returns:
        "table" `[B, T, N, 4]`: pixels that are hits, misses, false alarms and correct
        negatives. "moments" `[B, T, 7]`: pixels, then the sums of p, t, p², t², p t
        and (p − t)². "fractions" `[B, T, N, M, 2]`, if there are windows: the sums of
        (p − o)² and of p² + o² over the pixels with data, in the windows' shares of
        pixels (those outside the frame or without data are no event). Float32, each
        the sum over one frame.
    """
    valid = mask > 0
    prediction = jnp.where(valid, prediction_mm_per_h, 0.0)
    target = jnp.where(valid, target_mm_per_h, 0.0)
    tables, fractions = [], []
    for threshold in thresholds_mm_per_h:
        predicted = (prediction >= threshold) & valid
        true = (target >= threshold) & valid
        cells = (predicted & true, ~predicted & true, predicted & ~true)
        hits, misses, alarms = (cell.sum(_FRAME) for cell in cells)
        negatives = valid.sum(_FRAME) - hits - misses - alarms
        tables.append(jnp.stack([hits, misses, alarms, negatives], axis=-1))
        of_windows = []
        for size in window_sizes:
            p = _shares(predicted.astype(jnp.float32), size)
            o = _shares(true.astype(jnp.float32), size)
            difference = jnp.where(valid, (p - o) ** 2, 0.0).sum(_FRAME)
            both = jnp.where(valid, p**2 + o**2, 0.0).sum(_FRAME)
            of_windows.append(jnp.stack([difference, both], axis=-1))
        if of_windows:
            fractions.append(jnp.stack(of_windows, axis=2))
    p, t = prediction, target
    sums = [x.sum(_FRAME) for x in (p, t, p * p, t * t, p * t, (p - t) ** 2)]
    pixels = valid.sum(_FRAME).astype(jnp.float32)
    values = {
        "table": jnp.stack(tables, axis=2).astype(jnp.float32),
        "moments": jnp.stack([pixels, *sums], axis=-1),
    }
    if fractions:
        values["fractions"] = jnp.stack(fractions, axis=2)
    return values


def _shares(events: Video, size: int) -> Video:
    """The mean over a window about each pixel; beyond the edge there is nothing."""
    window = (1, 1, size, size, 1)
    sums: Array = lax.reduce_window(events, 0.0, lax.add, window, (1,) * 5, "SAME")
    return sums / size**2


def table_scores(table: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The scores of contingency tables, NaN where a denominator is 0.

    Args:
        table: `[..., 4]`: hits, misses, false alarms, correct negatives.
    """
    hits, misses, alarms, negatives = np.moveaxis(np.asarray(table, np.float64), -1, 0)
    total = hits + misses + alarms + negatives
    by_chance = _ratio(
        (hits + misses) * (hits + alarms) + (negatives + misses) * (negatives + alarms),
        total,
    )
    return {
        "csi": _ratio(hits, hits + misses + alarms),
        "pod": _ratio(hits, hits + misses),
        "far": _ratio(alarms, hits + alarms),
        "bias": _ratio(hits + alarms, hits + misses),
        "hss": _ratio(hits + negatives - by_chance, total - by_chance),
    }


def moment_scores(moments: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Error and correlations of rain rates, NaN where they are not defined.

    Of moments `[..., 7]`, see `skill_sums`: "rainfall_mse", (mm/h)², the mean over
    pixels; "correlation", Pearson's over all the pixels summed;
    "correlation_uncentred", Σpt / √(Σp² Σt²), as in Shi et al. 2015 (arXiv:1506.04214,
    section 4.2).
    """
    n, p, t, pp, tt, pt, error = np.moveaxis(np.asarray(moments, np.float64), -1, 0)
    variance_p, variance_t = n * pp - p * p, n * tt - t * t
    # What float32 sums leave of the variance of a constant is none.
    variance_p = np.where(variance_p > 1e-6 * n * pp, variance_p, 0.0)
    variance_t = np.where(variance_t > 1e-6 * n * tt, variance_t, 0.0)
    return {
        "rainfall_mse": _ratio(error, n),
        "correlation": _ratio(n * pt - p * t, np.sqrt(variance_p * variance_t)),
        "correlation_uncentred": _ratio(pt, np.sqrt(pp * tt)),
    }


def fractions_skill(fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    """FSS of `[..., 2]` sums, see `skill_sums`; NaN without any event."""
    difference, both = np.moveaxis(np.asarray(fractions, np.float64), -1, 0)
    return 1.0 - _ratio(difference, both)


def summarize_skill(
    total: MetricSums,
    *,
    thresholds_mm_per_h: Sequence[float],
    window_sizes: Sequence[int] = (),
) -> MetricSummary:
    """Divides the sums over all clips into scores.

    Thresholds and windows are those of `skill_sums`. The scores are
    "csi_0.5_mm_per_h" and so on, "fss_0.5_mm_per_h_5_px", and those of `moment_scores`.
    The total is that of the sums over all lead times; the other convention, the mean
    over the lead times that have a value, is `mean_over_lead_times`. None stands for a
    score without a value.
    """
    sums = {
        name: np.asarray(value, np.float64) for name, value in total["sums"].items()
    }

    def scores(of: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
        found: dict[str, Any] = moment_scores(of["moments"])
        # `[..., N]` → the threshold in front, then `[...]`.
        for name, values in table_scores(of["table"]).items():
            for index, threshold in enumerate(thresholds_mm_per_h):
                found[score_name(name, threshold)] = values[..., index]
        for column, size in enumerate(window_sizes):
            values = fractions_skill(of["fractions"][..., column, :])
            for index, threshold in enumerate(thresholds_mm_per_h):
                found[score_name("fss", threshold, size)] = values[..., index]
        return found

    per_lead_time = {
        name: [none_if_nan(value) for value in values]
        for name, values in scores(sums).items()
    }
    pooled = scores({name: value.sum(axis=0) for name, value in sums.items()})
    return MetricSummary(
        {name: none_if_nan(value) for name, value in pooled.items()},
        per_lead_time,
        {name: _mean(values) for name, values in per_lead_time.items()},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _ratio(above: Any, below: Any) -> NDArray[np.float64]:
    """A quotient, NaN where the divisor is 0."""
    above, below = np.broadcast_arrays(
        np.asarray(above, np.float64), np.asarray(below, np.float64)
    )
    found = np.full(below.shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found
