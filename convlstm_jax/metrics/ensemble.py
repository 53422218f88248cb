"""How good an ensemble of rain forecasts is: sums on the device, scores on the host.

All of an event, rain of at least a threshold, follows from how often k of M members
forecast it, and how often it was then observed. Binning and areas are those of pysteps.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    MetricSums,
    float64_sums,
    summarize_pooled,
)
from convlstm_jax.metrics.registry import (
    Metric,
    none_if_nan,
    ratio,
    register,
    score_name,
)
from convlstm_jax.rain import DRY_BELOW_MM_PER_H
from convlstm_jax.types import Video

register(
    Metric("crps", "CRPS", unit="mm/h", order=88, convention=(
        "Continuous ranked probability score of the members' distribution (Hersbach "
        "2000), averaged over the pixels with data of all frames and samples; the "
        "absolute error of a forecast without members.")),
    Metric("ensemble_spread", "Ensemble spread", unit="mm/h", direction="neither",
        order=89, convention=(
        "Root mean squared difference of two members over the pixels with data, "
        "averaged over all pairs, then over frames; null of a single member.")),
    Metric("ensemble_error", "Ensemble error", unit="mm/h", order=90, convention=(
        "Root mean squared error of a member over the pixels with data, averaged over "
        "the members, then over frames.")),
    Metric("spread_error_ratio", "Spread / error", direction="neither", order=91,
        convention=(
        "Ensemble spread over ensemble error: 1 where members differ from the "
        "observation as they do from each other, less where they are too alike.")),
    Metric("roc_area", "ROC area", direction="higher", order=92, convention=(
        "Area under the curve of POD against the probability of false detection, of "
        "rain of at least the rate in the metric's name, warned of from ten "
        "probabilities between 0 and 1 on.")),
    Metric("brier", "Brier score", order=93, convention=(
        "Squared difference between the share of members with rain of at least the "
        "rate in the metric's name and what was observed, 0 or 1, averaged over the "
        "pixels with data.")),
)  # fmt: skip

_NUM_BINS = 10  # Of forecast probabilities.


def crps(members: Array, target: Array, *, fairness: float = 0.0) -> Array:
    """Continuous ranked probability score `[..., 1]` of members `[..., M]`.

        mean |xⱼ − y| − (1 − ε) / (2 M (M − 1)) Σⱼₖ |xⱼ − xₖ|,  ε = (1 − fairness) / M

    In the unit of the target `[..., 1]`. Fairness 0 scores the members as they are
    (Hersbach 2000, 10.1175/1520-0434(2000)015<0559:DOTCRP>2.0.CO;2). 1 is the unbiased
    estimate of what infinitely many members would score (Ferro 2014, 10.1002/qj.2270),
    but does not depend on a single wrong member where all others are right; 0.95,
    almost fair, does (Lang et al. 2024, arXiv:2412.15832). A single member gets
    |x − y|. Equal values have gradient 0.
    """
    # Member by member, which on a CPU is far faster than a sort or sums over an axis;
    # the gradient of `abs` would be 1 at 0.
    x, y = jnp.moveaxis(members, -1, 0), target[..., 0]
    count = len(x)
    error, pairs = jnp.zeros_like(y), jnp.zeros_like(y)
    for j in range(count):
        error += jnp.maximum(x[j] - y, y - x[j])
        for k in range(j):
            pairs += jnp.maximum(x[j] - x[k], x[k] - x[j])
    scale = (1 - (1 - fairness) / count) / (count * max(count - 1, 1))
    return (error / count - scale * pairs)[..., None]


def ensemble_sums(
    members_mm_per_h: Video,
    target_mm_per_h: Video,
    mask: Video,
    *,
    thresholds_mm_per_h: Sequence[float],
) -> dict[str, Array]:
    """The sums over each frame that every score of an ensemble follows from.

    Of rain rates in mm/h of M members `[B, T, H, W, M]` and observed `[B, T, H, W, 1]`,
    over the pixels where the mask is 1, for N thresholds: "crps" `[B, T, 2]` (the sum,
    the pixels), "ranks" `[B, T, M + 1]` (how often so many members are below what is
    observed; see `_rank_counts`), "events" `[B, T, N, M + 1, 2]` (how often so many
    members forecast an event that was not observed, or was), and "spread" `[B, T, 3]`
    (root mean squared difference of members, and from what is observed, and 1, of a
    frame with data).
    """
    valid = mask > 0
    x = jnp.where(valid, members_mm_per_h, 0.0)
    y = jnp.where(valid, target_mm_per_h, 0.0)
    pixels = valid.sum((2, 3, 4)).astype(x.dtype)
    score = crps(x, y).sum((2, 3, 4))
    spread, error = _spread_and_error(x, y, jnp.maximum(pixels, 1))
    x, y = jnp.moveaxis(x, -1, 0), jnp.moveaxis(y, -1, 0)
    events = [_event_counts(x, y, valid[..., 0], rate) for rate in thresholds_mm_per_h]
    return {
        "crps": jnp.stack([score, pixels], axis=-1),
        "ranks": _rank_counts(x, y),
        "events": jnp.stack(events, axis=2),
        "spread": jnp.stack([spread, error, jnp.minimum(pixels, 1)], axis=-1),
    }


def _rank_counts(x: Array, y: Array) -> Array:
    """Of members `[M, B, T, H, W]`. Where some equal y, its ranks share the pixel.

    Rates that count as no rain are equal, and where there is no other there is no rank.
    """
    x, y = (jnp.where(rain < DRY_BELOW_MM_PER_H, 0.0, rain) for rain in (x, y))
    numbers = np.arange(len(x) + 1)
    first, last = (x < y).sum(axis=0), (x <= y).sum(axis=0)
    wet = ((x > 0) | (y > 0)).any(axis=0)
    counts = _histogram(first * len(numbers) + last, wet, len(numbers) ** 2)
    low, high = np.divmod(np.arange(len(numbers) ** 2)[:, None], len(numbers))
    among = (low <= numbers) & (numbers <= high)
    share = (among / np.maximum(high - low + 1, 1)).astype(counts.dtype)
    return jnp.matmul(counts, share, precision="highest")


def _event_counts(x: Array, y: Array, valid: Array, threshold: float) -> Array:
    which = 2 * (x >= threshold).sum(axis=0) + (y[0] >= threshold)
    counts = _histogram(which, valid, 2 * len(x) + 2)
    return counts.reshape(*counts.shape[:2], -1, 2)


def _histogram(values: Array, counted: Array, size: int) -> Array:
    """How often each integer below `size` is in frames `[B, T, H, W]`."""

    def of_frame(values: Array, counted: Array) -> Array:
        return jnp.zeros(size).at[values].add(counted)

    return jax.vmap(jax.vmap(of_frame))(values, counted.astype(float))


def _spread_and_error(x: Video, y: Video, pixels: Array) -> tuple[Array, Array]:
    """Root mean squared differences: mean over pairs of members, and over members."""
    anomalies = x - x.mean(-1, keepdims=True)
    pair = anomalies, anomalies
    products = jnp.einsum("bthwj,bthwk->btjk", *pair, precision="highest")
    j, k = np.triu_indices(x.shape[-1], 1)
    squares = products[..., j, j] + products[..., k, k] - 2 * products[..., j, k]
    spread = jnp.sqrt(jnp.maximum(squares, 0) / pixels[..., None])
    error = jnp.sqrt(((x - y) ** 2).sum((2, 3)) / pixels[..., None])
    return spread.sum(-1) / max(len(j), 1), error.mean(-1)


def reliability(events: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Of "events" `[..., M + 1, 2]`, see `ensemble_sums`, in ten bins `[..., 10]`.

    NaN in a bin without cases.
    """
    none, observed = np.moveaxis(events, -1, 0)
    number, probability = none + observed, _probabilities(events)
    edges = np.linspace(-1e-6, 1 + 1e-6, _NUM_BINS + 1)
    bins = np.digitize(probability, edges, right=True) - 1
    inside = (bins[:, None] == np.arange(_NUM_BINS)).astype(float)
    cases = number @ inside
    return {
        "forecast_probability": ratio((number * probability) @ inside, cases),
        "observed_frequency": ratio(observed @ inside, cases),
        "cases": cases,
    }


def roc(events: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Probabilities of false detection and of detection `[..., 11]`, from 1 to 0.

    Of "events" `[..., M + 1, 2]`, see `ensemble_sums`; NaN without both outcomes.
    """
    levels = np.append(np.linspace(0, 1, _NUM_BINS), np.inf)
    warned = (_probabilities(events)[:, None] >= levels).astype(float)
    none, observed = np.moveaxis(events, -1, 0)
    return {
        "pofd": ratio(none @ warned, none.sum(-1, keepdims=True)),
        "pod": ratio(observed @ warned, observed.sum(-1, keepdims=True)),
    }


def roc_area(events: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area under `roc`."""
    curve = roc(events)
    return -np.asarray(np.trapezoid(curve["pod"], curve["pofd"], axis=-1))


def brier(events: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Brier score of "events" `[..., M + 1, 2]`, see `ensemble_sums`."""
    probability = _probabilities(events)
    squares = np.stack([probability, 1 - probability], axis=-1) ** 2
    return ratio((squares * events).sum((-2, -1)), events.sum((-2, -1)))


def _probabilities(events: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of an event, that so many of the members forecast."""
    return np.arange(events.shape[-2]) / (events.shape[-2] - 1)


def summarize_ensemble(
    total: MetricSums, *, thresholds_mm_per_h: Sequence[float]
) -> MetricSummary:
    """Divides the sums of `ensemble_sums` into scores; None where one is undefined."""

    def scores(of: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
        spread, error, frames = np.moveaxis(of["spread"], -1, 0)
        if of["ranks"].shape[-1] == 2:
            spread = np.full_like(spread, np.nan)
        found: dict[str, Any] = {
            "crps": ratio(of["crps"][..., 0], of["crps"][..., 1]),
            "ensemble_spread": ratio(spread, frames),
            "ensemble_error": ratio(error, frames),
            "spread_error_ratio": ratio(spread, error),
        }
        for name, score in (("roc_area", roc_area), ("brier", brier)):
            values = score(of["events"])
            for index, threshold in enumerate(thresholds_mm_per_h):
                found[score_name(name, threshold)] = values[..., index]
        return found

    summary = summarize_pooled(total, scores)
    sums = {name: value.sum(axis=0) for name, value in float64_sums(total).items()}
    ranks = sums["ranks"]
    summary.diagrams["rank_histogram"] = _listed(ratio(ranks, ranks.sum()))
    events_by_rate = dict(zip(thresholds_mm_per_h, sums["events"], strict=True))
    for name, curve in (("reliability", reliability), ("roc", roc)):
        summary.diagrams[name] = [
            {"threshold_mm_per_h": rate}
            | {key: _listed(values) for key, values in curve(events).items()}
            for rate, events in events_by_rate.items()
        ]
    return summary


def _listed(values: NDArray[np.float64]) -> list[float | None]:
    return [none_if_nan(value) for value in values]
