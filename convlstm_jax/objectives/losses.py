"""Losses: one number per clip; the caller averages over clips.

Radar losses count only pixels with data. B-MSE and B-MAE give heavy rain more
weight (Shi et al. 2017, arXiv:1706.03458, section 5.1).
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax
from jax import Array

from convlstm_jax.metrics.pixel import (
    absolute_error,
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
    squared_error,
)
from convlstm_jax.models.network import Forecast
from convlstm_jax.types import PerExample, Video


def frame_loss(name: str, forecast: Forecast, target: Video) -> PerExample:
    """The average over frames of cross-entropy, nats, or of errors.

    "cross_entropy" and "mse_sum" are summed over the pixels of a frame, "mse" and "mae"
    are means over them.
    """
    if name == "cross_entropy" and forecast.logits is not None:
        return cross_entropy_from_logits(forecast.logits, target).mean(axis=1)
    if name == "cross_entropy":
        return cross_entropy_from_probabilities(forecast.frames, target).mean(axis=1)
    error = absolute_error if name == "mae" else squared_error
    summed = error(forecast.frames, target).mean(axis=1)
    return summed if name == "mse_sum" else summed / math.prod(target.shape[2:])


def rain_weight(
    rain_mm_per_h: Array, rates: Sequence[float], weights: Sequence[float]
) -> Array:
    """The weight of each pixel: that of the highest rate reached, below all rates 1."""
    weight = jnp.ones_like(rain_mm_per_h)
    for rate, value in zip(rates, weights, strict=True):
        weight = jnp.where(rain_mm_per_h >= rate, value, weight)
    return weight


def _pixel_cross_entropy(forecast: Forecast, target: Video) -> Video:
    logits = forecast.logits
    if logits is None:
        frames = jnp.clip(forecast.frames, 1e-6, 1 - 1e-6)
        logits = jnp.log(frames) - jnp.log1p(-frames)
    return optax.sigmoid_binary_cross_entropy(logits, target)


_PIXEL_ERRORS: dict[str, Callable[[Forecast, Video], Video]] = {
    "cross_entropy": _pixel_cross_entropy,
    "mse": lambda forecast, target: jnp.square(forecast.frames - target),
    "mae": lambda forecast, target: jnp.abs(forecast.frames - target),
}


def rain_loss(
    name: str, forecast: Forecast, target: Video, mask: Video, weight: Video
) -> PerExample:
    """Σ weight · error / (pixels with data) of each clip; 0 if there are none.

    Pixels count where the mask is 1; only the B-losses use the weight.
    """
    error = _PIXEL_ERRORS[name.removeprefix("b_")](forecast, target)
    if name.startswith("b_"):
        error = weight * error
    axes = tuple(range(1, error.ndim))
    total = jnp.where(mask > 0, error, 0.0).sum(axes)
    return total / jnp.maximum((mask > 0).sum(axes), 1)
