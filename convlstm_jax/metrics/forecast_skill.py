"""How good a rain forecast is, with a mask: sums on the device, scores on the host.

Scores of the contingency table of a threshold (an event is rain of at least that rate;
h hits, m misses, f false alarms, c correct negatives, n their sum):

    CSI   h / (h + m + f)        FAR   f / (h + f), the false-alarm ratio
    POD   h / (h + m)            bias  (h + f) / (h + m)
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

from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    MetricSums,
    summarize_pooled,
)
from convlstm_jax.metrics.registry import Metric, ratio, register, score_name
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
    window_sizes: Sequence[int],
) -> dict[str, Array]:
    """The sums over each frame that every score of a forecast follows from.

    Of rain rates `[B, T, H, W, C]` in mm/h, over the pixels where the mask is 1, for N
    thresholds and M odd sides of the FSS's windows, pixels: "table" `[B, T, N, 4]`
    (hits, misses, false alarms, correct negatives), "moments" `[B, T, 7]` (the pixels,
    then the sums of p, t, p², t², p t and (p − t)²), and "fractions" `[B, T, N, M, 2]`
    (the sums of (p − o)² and p² + o²).
    """
    valid = mask > 0
    p = jnp.where(valid, prediction_mm_per_h, 0.0)
    t = jnp.where(valid, target_mm_per_h, 0.0)
    tables, fractions = [], []
    for threshold in thresholds_mm_per_h:
        predicted, true = ((rate >= threshold) & valid for rate in (p, t))
        cells = (predicted & true, ~predicted & true, predicted & ~true)
        hits, misses, alarms = (cell.sum(_FRAME) for cell in cells)
        negatives = valid.sum(_FRAME) - hits - misses - alarms
        tables.append(jnp.stack([hits, misses, alarms, negatives], axis=-1))
        of_windows = []
        for size in window_sizes:
            shares = [_shares(x.astype(jnp.float32), size) for x in (predicted, true)]
            terms = (shares[0] - shares[1]) ** 2, shares[0] ** 2 + shares[1] ** 2
            sums = [jnp.where(valid, term, 0.0).sum(_FRAME) for term in terms]
            of_windows.append(jnp.stack(sums, axis=-1))
        fractions.append(jnp.stack(of_windows, axis=2))
    sums = [x.sum(_FRAME) for x in (p, t, p * p, t * t, p * t, (p - t) ** 2)]
    pixels = valid.sum(_FRAME).astype(jnp.float32)
    return {
        "table": jnp.stack(tables, axis=2).astype(jnp.float32),
        "moments": jnp.stack([pixels, *sums], axis=-1),
        "fractions": jnp.stack(fractions, axis=2),
    }


def _shares(events: Video, size: int) -> Video:
    """The mean over a window about each pixel; beyond the edge there is nothing."""
    window = (1, 1, size, size, 1)
    sums: Array = lax.reduce_window(events, 0.0, lax.add, window, (1,) * 5, "SAME")
    return sums / size**2


def table_scores(table: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The scores of tables `[..., 4]`, see `skill_sums`; NaN where one is undefined."""
    hits, misses, alarms, negatives = np.moveaxis(np.asarray(table, np.float64), -1, 0)
    observed, forecast = hits + misses, hits + alarms
    total = hits + misses + alarms + negatives
    chance = observed * forecast + (negatives + misses) * (negatives + alarms)
    by_chance = ratio(chance, total)
    return {
        "csi": ratio(hits, hits + misses + alarms),
        "pod": ratio(hits, observed),
        "far": ratio(alarms, forecast),
        "bias": ratio(forecast, observed),
        "hss": ratio(hits + negatives - by_chance, total - by_chance),
    }


def moment_scores(moments: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Error, (mm/h)², and correlations of rain rates from moments `[..., 7]`."""
    n, p, t, pp, tt, pt, error = np.moveaxis(np.asarray(moments, np.float64), -1, 0)
    variance_p, variance_t = n * pp - p * p, n * tt - t * t
    # What float32 sums leave of the variance of a constant is none.
    variance_p = np.where(variance_p > 1e-6 * n * pp, variance_p, 0.0)
    variance_t = np.where(variance_t > 1e-6 * n * tt, variance_t, 0.0)
    return {
        "rainfall_mse": ratio(error, n),
        "correlation": ratio(n * pt - p * t, np.sqrt(variance_p * variance_t)),
        "correlation_uncentred": ratio(pt, np.sqrt(pp * tt)),
    }


def fractions_skill(fractions: NDArray[Any]) -> NDArray[np.float64]:
    """FSS of `[..., 2]` sums, see `skill_sums`; NaN without any event."""
    difference, both = np.moveaxis(np.asarray(fractions, np.float64), -1, 0)
    return 1.0 - ratio(difference, both)


def summarize_skill(
    total: MetricSums,
    *,
    thresholds_mm_per_h: Sequence[float],
    window_sizes: Sequence[int],
) -> MetricSummary:
    """Divides the sums of `skill_sums` into scores; None where one is undefined."""

    def scores(of: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
        found: dict[str, Any] = moment_scores(of["moments"])
        families: list[tuple[str, int, Any]] = [
            (name, 0, values) for name, values in table_scores(of["table"]).items()
        ]
        for column, size in enumerate(window_sizes):
            values = fractions_skill(of["fractions"][..., column, :])
            families.append(("fss", size, values))
        for name, size, values in families:
            for index, threshold in enumerate(thresholds_mm_per_h):
                found[score_name(name, threshold, size)] = values[..., index]
        return found

    return summarize_pooled(total, scores)
