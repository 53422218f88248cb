"""Metrics of a whole test set: summed batch by batch, divided once.

`batch_sums` on the device, `add_sums` on the host in float64, one `summarize` at the
end: neither the batch size nor the padding of the last batch changes a metric.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from convlstm_jax.metrics.registry import METRICS, none_if_nan

Numbers = dict[str, float | None]  # metric key → value; None where it is not defined


class MetricSums(TypedDict):
    """Sums over samples; of several conditions, both have one more axis in front."""

    sums: dict[str, ArrayLike]  # [T], one a lead time, or of another shape
    count: ArrayLike


@dataclass
class MetricSummary:
    """The metrics of one contender over a test set."""

    total: Numbers  # over all samples and lead times
    per_lead_time: dict[str, list[float | None]] = field(default_factory=dict)
    # Of scores from pooled counts.
    mean_over_lead_times: Numbers = field(default_factory=dict)
    # Of a classifier; the rows of the confusion matrix are true classes.
    per_class: dict[str, Numbers] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    # Of an ensemble: curves that are no single numbers, see `metrics.ensemble`.
    diagrams: dict[str, Any] = field(default_factory=dict)
    # Condition → metrics over its clips, lead times aside.
    per_condition: dict[str, "MetricSummary"] = field(default_factory=dict)


def batch_sums(metrics: Mapping[str, Array], weight: Array) -> MetricSums:
    """Sums the metrics `[B, …]` of one batch; samples of weight 0 never count."""

    def weighted_sum(values: Array) -> Array:
        column = weight.astype(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))
        # A product alone would keep NaN: 0 × NaN is NaN.
        return jnp.sum(jnp.where(column > 0, values * column, 0.0), axis=0)

    return {
        "sums": {name: weighted_sum(values) for name, values in metrics.items()},
        "count": jnp.sum(weight),
    }


def sums_by_condition(
    metrics: Mapping[str, Array], weight: Array, condition: Array, num_conditions: int
) -> MetricSums:
    """As `batch_sums`, for each of N conditions apart: sums `[N, T]`, count `[N]`."""
    one_hot = condition[None, :] == jnp.arange(num_conditions)[:, None]
    return jax.vmap(lambda w: batch_sums(metrics, w))(one_hot * weight[None, :])


def add_sums(total: MetricSums | None, batch: MetricSums) -> MetricSums:
    """Adds one more batch to the total, on the host in float64; neither is changed."""
    batch = jax.tree.map(lambda value: np.asarray(value, np.float64), batch)
    return batch if total is None else jax.tree.map(np.add, total, batch)


def summarize(total: MetricSums, *, values_per_frame: int) -> MetricSummary:
    """Divides the sums into averages, and adds what the registry derives from them."""
    count, sums = num_samples(total), float64_sums(total)
    pooled = {m.sums: sums.pop(m.sums) for m in METRICS.values() if m.sums in sums}
    means = {name: value / count for name, value in sums.items()}
    numbers: Numbers = {name: float(value.mean()) for name, value in means.items()}
    per_lead_time: dict[str, list[float | None]] = {
        name: value.tolist() for name, value in means.items()
    }
    for metric in METRICS.values():
        if metric.derive is not None and metric.repeats in means:
            numbers[metric.key] = metric.derive(means[metric.repeats], values_per_frame)
    for metric in METRICS.values():
        if metric.pool is not None and metric.sums in pooled:
            moments = pooled[metric.sums]
            of_all = metric.pool(moments.sum(0), count * len(moments))
            numbers[metric.key] = none_if_nan(of_all)
            by_lead_time = metric.pool(moments, count)
            per_lead_time[metric.key] = [none_if_nan(value) for value in by_lead_time]
    return MetricSummary(numbers, per_lead_time)


def summarize_pooled(
    total: MetricSums,
    scores: Callable[[dict[str, NDArray[np.float64]]], dict[str, Any]],
) -> MetricSummary:
    """Scores of sums `[T, …]` over all lead times, at each, and the means of these.

    `scores` divides sums with a lead time's axis in front, or without any.
    """
    sums = float64_sums(total)
    by_lead_time = scores(sums)
    pooled = scores({name: value.sum(axis=0) for name, value in sums.items()})
    known = {name: of[~np.isnan(of)] for name, of in by_lead_time.items()}
    return MetricSummary(
        {name: none_if_nan(value) for name, value in pooled.items()},
        {name: [none_if_nan(v) for v in of] for name, of in by_lead_time.items()},
        {name: float(of.mean()) if len(of) else None for name, of in known.items()},
    )


def float64_sums(total: MetricSums) -> dict[str, NDArray[np.float64]]:
    """The sums as NumPy arrays."""
    return {name: np.asarray(x, np.float64) for name, x in total["sums"].items()}


def num_samples(total: MetricSums) -> float:
    """The number of samples that were summed; raises ValueError where it is 0."""
    count = float(np.asarray(total["count"]))
    if not count > 0:
        raise ValueError(
            f"the number of samples evaluated is {count:g}: it must be above 0"
        )
    return count
