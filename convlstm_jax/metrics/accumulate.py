"""Metrics of a whole test set: summed batch by batch, divided once.

On the device, inside one jitted step: `batch_sums(frame_metrics(...), weight)`. On the
host, `add_sums` over the batches in float64 and one `summarize` at the end. Averages of
batch averages never appear, so neither batch size nor a short last batch, padded to
full size with rows of weight 0, changes a figure.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from convlstm_jax.metrics import ms_ssim as multi_scale_similarity
from convlstm_jax.metrics import ssim as similarity
from convlstm_jax.metrics.correlation import correlation_moments, pearson
from convlstm_jax.metrics.cross_entropy import (
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
)
from convlstm_jax.metrics.pixel import absolute_error, psnr_db, squared_error
from convlstm_jax.types import Video


class MetricSums(TypedDict):
    """Sums over samples: `sums[name]` is `[T]`, one a lead time; `count` a scalar.

    Other shapes than `[T]` are summed alike, such as confusion matrices `[K, K]`; sums
    by condition have one more axis in front of both.
    """

    sums: dict[str, ArrayLike]
    count: ArrayLike


class MetricSummary(TypedDict):
    """Averages: `total[name]` over frames too, `per_lead_time[name]` a list of T."""

    total: dict[str, Any]
    per_lead_time: dict[str, list[float | None]]


def frame_metrics(
    prediction: Video, target: Video, logits: Video | None = None
) -> dict[str, Array]:
    """Every pixel metric of every frame.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1].
        target: True frames `[B, T, H, W, C]` in [0, 1].
        logits: Logits of the prediction (`prediction = sigmoid(logits)`), from which
            the cross-entropy is exact; without them it comes from the prediction
            clipped to [1e-6, 1 − 1e-6].

    Returns:
        `[B, T]` under "mse", "mae" (both summed over the frame), "ssim",
        "ssim_openstl", "ms_ssim", "psnr_db" and "cross_entropy_nats", and `[B, T, 8]`
        under "correlation_moments". Frames too small for an SSIM window (11×11 and 7×7
        pixels; MS-SSIM: twice the first) have no such figure: its name is left out.

    Raises:
        ValueError: The clips cannot be compared (see `matched_frames`).
    """
    metrics = {
        "mse": squared_error(prediction, target),
        "mae": absolute_error(prediction, target),
        "psnr_db": psnr_db(prediction, target),
        "cross_entropy_nats": (
            cross_entropy_from_probabilities(prediction, target)
            if logits is None
            else cross_entropy_from_logits(logits, target)
        ),
        "correlation_moments": correlation_moments(prediction, target),
    }
    smaller_side = min(target.shape[2:4])
    if smaller_side >= similarity.GAUSSIAN_WINDOW_SIZE:
        metrics["ssim"] = similarity.ssim(prediction, target)
    if smaller_side >= similarity.UNIFORM_WINDOW_SIZE:
        metrics["ssim_openstl"] = similarity.ssim_openstl(prediction, target)
    if smaller_side >= multi_scale_similarity.SMALLEST_SIDE:
        metrics["ms_ssim"] = multi_scale_similarity.ms_ssim(prediction, target)
    return metrics


def batch_sums(metrics: Mapping[str, Array], weight: Array) -> MetricSums:
    """Sums the metrics of one batch over its samples.

    Args:
        metrics: `[B, T]` (or `[B, …]`) under each name.
        weight: `[B]` of numbers or booleans, 1 for a sample that counts and 0 for
            padding. What stands in a row of weight 0 never counts, NaN included.

    Returns:
        `{"sums": {name: [T]}, "count": scalar}`, to be added up by `add_sums`.

    Raises:
        ValueError: A metric is not `[B, …]` or weight is not `[B]`.
    """
    if weight.ndim != 1:
        raise ValueError(f"weight has shape {weight.shape}; it must be [B]")
    for name, values in metrics.items():
        if values.ndim < 2 or values.shape[0] != weight.shape[0]:
            raise ValueError(
                f"metric {name!r} has shape {values.shape}; with a weight of shape "
                f"{weight.shape} it must be [{weight.shape[0]}, T]"
            )

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

    Args:
        metrics: `[B, T]` (or `[B, …]`) under each name.
        weight: `[B]`, see `batch_sums`.
        condition: `[B]`, integers from 0 to N − 1.
        num_conditions: N.

    Returns:
        `{"sums": {name: [N, T]}, "count": [N]}`, to be added up by `add_sums`.
    """
    one_hot = condition[None, :] == jnp.arange(num_conditions)[:, None]
    return jax.vmap(lambda w: batch_sums(metrics, w))(one_hot * weight[None, :])


def add_sums(total: MetricSums | None, batch: MetricSums) -> MetricSums:
    """Adds the sums of one more batch, on the host and in float64.

    Args:
        total: What was added so far; None before the first batch.
        batch: Sums of the next batch, from `batch_sums` or from `add_sums`.

    Returns:
        The new total, in NumPy float64; the arguments are left as they are.

    Raises:
        ValueError: The two hold different metrics or different lead times.
    """
    sums = {
        name: np.asarray(value, np.float64) for name, value in batch["sums"].items()
    }
    count = np.asarray(batch["count"], np.float64)
    if total is None:
        return {"sums": dict(sums), "count": count}
    if set(total["sums"]) != set(sums):
        raise ValueError(
            f"a batch holds the metrics {sorted(sums)} and the total "
            f"{sorted(total['sums'])}; both must hold the same"
        )
    for name, value in sums.items():
        if np.shape(total["sums"][name]) != value.shape:
            raise ValueError(
                f"metric {name!r} has shape {value.shape} in a batch and "
                f"{np.shape(total['sums'][name])} in the total; both must be one [T]"
            )
    return {
        "sums": {
            name: np.asarray(total["sums"][name], np.float64) + value
            for name, value in sums.items()
        },
        "count": np.asarray(total["count"], np.float64) + count,
    }


def summarize(total: MetricSums, *, values_per_frame: int) -> MetricSummary:
    """Divides the sums, once, into the figures of an evaluation.

    Args:
        total: Sums over all batches, from `add_sums`.
        values_per_frame: H·W·C, for the averages per pixel.

    Returns:
        `{"total": {name: float}, "per_lead_time": {name: [float] * T}}`. The total
        averages over samples and lead times. Beside the names of the sums it holds,
        where their base is there, "mse_per_pixel" and "mae_per_pixel" (the frame's
        sum over values_per_frame), "cross_entropy_nats_per_frame" and
        "cross_entropy_nats_per_sequence" (summed over lead times). Each is
        described in `conventions.CONVENTIONS`.

    Raises:
        ValueError: No sample counted, or values_per_frame is below 1.
    """
    count = float(np.asarray(total["count"]))
    if not count > 0:
        raise ValueError(
            f"the number of samples evaluated is {count:g}; it must be above 0"
        )
    if values_per_frame < 1:
        raise ValueError(
            f"values_per_frame is {values_per_frame}; it must be at least 1 "
            "(height × width × channels)"
        )
    sums = {
        name: np.asarray(value, np.float64) for name, value in total["sums"].items()
    }
    moments = sums.pop("correlation_moments", None)
    means = {name: value / count for name, value in sums.items()}
    figures: dict[str, float | None] = {
        name: float(value.mean()) for name, value in means.items()
    }
    for name in ("mse", "mae"):
        if name in means:
            figures[f"{name}_per_pixel"] = float(means[name].mean()) / values_per_frame
    if "cross_entropy_nats" in means:
        nats = means["cross_entropy_nats"]
        figures["cross_entropy_nats_per_frame"] = float(nats.mean())
        figures["cross_entropy_nats_per_sequence"] = float(nats.sum())
    per_lead_time: dict[str, list[float | None]] = {
        name: value.tolist() for name, value in means.items()
    }
    if moments is not None:
        pooled = pearson(moments.sum(0), count * len(moments))
        figures["correlation"] = _none_if_nan(pooled)
        per_lead_time["correlation"] = [
            _none_if_nan(value) for value in pearson(moments, count)
        ]
    return {"total": figures, "per_lead_time": per_lead_time}


def _none_if_nan(value: Any) -> float | None:
    """A number; None, which JSON has, in place of NaN, which it has not."""
    return None if np.isnan(value) else float(value)
