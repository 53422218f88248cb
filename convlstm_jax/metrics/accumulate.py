"""Metrics of a whole test set: summed batch by batch, divided once.

On the device, inside one jitted step: `batch_sums(frame_metrics(...), weight)`. On the
host, `add_sums` over the batches in float64 and one `summarize` at the end. Averages of
batch averages never appear, so neither batch size nor a short last batch, padded to
full size with rows of weight 0, changes a metric.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from convlstm_jax.metrics.registry import METRICS, none_if_nan

Numbers = dict[str, float | None]
"""Metric key → value; None where it is not defined."""


class MetricSums(TypedDict):
    """Sums over samples: `sums[key]` is `[T]`, one a lead time; `count` a scalar.

    Other shapes than `[T]` are summed alike, such as confusion matrices `[K, K]`; sums
    by condition have one more axis in front of both.
    """

    sums: dict[str, ArrayLike]
    count: ArrayLike


@dataclasses.dataclass
class MetricSummary:
    """The metrics of one contender over a test set.

    Attributes:
        total: Over all samples and lead times.
        per_lead_time: Key → T values; empty where there are no lead times.
        mean_over_lead_times: For scores from pooled counts, their mean over lead times.
        per_class: For a classifier, class name → precision, recall, F1 and support.
        confusion: For a classifier, clips by true class (rows) and predicted class.
    """

    total: Numbers
    per_lead_time: dict[str, list[float | None]] = dataclasses.field(
        default_factory=dict
    )
    mean_over_lead_times: Numbers = dataclasses.field(default_factory=dict)
    per_class: dict[str, Numbers] = dataclasses.field(default_factory=dict)
    confusion: list[list[int]] = dataclasses.field(default_factory=list)


def batch_sums(metrics: Mapping[str, Array], weight: Array) -> MetricSums:
    """Sums the metrics of one batch over its samples.

    Args:
        metrics: `[B, T]` (or `[B, …]`) under each name.
        weight: `[B]` of numbers or booleans, 1 for a sample that counts and 0 for
            padding. What stands in a row of weight 0 never counts, NaN included.

    Returns:
        `{"sums": {name: [T]}, "count": scalar}`, to be added up by `add_sums`.
    """

    def weighted_sum(values: Array) -> Array:
        column = weight.astype(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))
        # A product alone would keep NaN: 0 × NaN is NaN.
        return jnp.sum(jnp.where(column > 0, values * column, 0.0), axis=0)

    return {
        "sums": {name: weighted_sum(values) for name, values in metrics.items()},
        "count": jnp.sum(weight),
    }


def sums_by_condition(
    metrics: Mapping[str, Array],
    weight: Array,
    condition: Array,
    num_conditions: int,
) -> MetricSums:
    """As `batch_sums`, for the samples of each condition apart.

    With condition `[B]` of integers from 0 to N − 1, sums are `[N, T]`, the count
    `[N]`.
    """
    one_hot = condition[None, :] == jnp.arange(num_conditions)[:, None]
    return jax.vmap(lambda w: batch_sums(metrics, w))(one_hot * weight[None, :])


def add_sums(total: MetricSums | None, batch: MetricSums) -> MetricSums:
    """Adds the sums of one more batch, on the host and in float64.

    The total is None before the first batch; the arguments are left as they are.
    """

    def add(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(a, np.float64) + np.asarray(b, np.float64)

    start: MetricSums = {"sums": dict.fromkeys(batch["sums"], 0.0), "count": 0.0}
    total = total or start
    return {
        "sums": {
            key: add(total["sums"][key], sum_) for key, sum_ in batch["sums"].items()
        },
        "count": add(total["count"], batch["count"]),
    }


def summarize(total: MetricSums, *, values_per_frame: int) -> MetricSummary:
    """Divides the sums, once, into the metrics of an evaluation.

    They are averages over samples, in total over lead times too; beside the keys of the
    sums stand those that the registry derives from them, such as "mse_per_pixel".

    Raises:
        ValueError: No sample counted.
    """
    count = num_samples(total)
    sums = {
        name: np.asarray(value, np.float64) for name, value in total["sums"].items()
    }
    pooled = {m.sums: sums.pop(m.sums) for m in METRICS.values() if m.sums in sums}
    means = {name: value / count for name, value in sums.items()}
    numbers: Numbers = {name: float(value.mean()) for name, value in means.items()}
    per_lead_time: dict[str, list[float | None]] = {
        name: value.tolist() for name, value in means.items()
    }
    for metric in METRICS.values():
        if metric.derive is not None and metric.repeats in means:
            derived = metric.derive(means[metric.repeats], values_per_frame)
            numbers[metric.key] = derived
    for metric in METRICS.values():
        if metric.pool is not None and metric.sums in pooled:
            moments = pooled[metric.sums]
            of_all = metric.pool(moments.sum(0), count * len(moments))
            numbers[metric.key] = none_if_nan(of_all)
            values = metric.pool(moments, count)
            per_lead_time[metric.key] = [none_if_nan(value) for value in values]
    return MetricSummary(numbers, per_lead_time)


def num_samples(total: MetricSums) -> float:
    """The number of samples that were summed.

    Raises:
        ValueError: There is none.
    """
    count = float(np.asarray(total["count"]))
    if not count > 0:
        raise ValueError(
            f"the number of samples evaluated is {count:g}: it must be above 0"
        )
    return count
