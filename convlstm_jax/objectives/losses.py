"""Losses: one number per clip; the caller averages over clips.

Radar losses count only pixels with data. B-MSE and B-MAE give heavy rain more
weight (Shi et al. 2017, arXiv:1706.03458, section 5.1).
"""

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

_SMALLEST_PROBABILITY = 1e-6


def cross_entropy(forecast: Forecast, target: Video) -> PerExample:
    """Cross-entropy, nats per frame: summed over pixels, averaged over frames."""
    if forecast.logits is None:
        nats = cross_entropy_from_probabilities(forecast.frames, target)
    else:
        nats = cross_entropy_from_logits(forecast.logits, target)
    return nats.mean(axis=1)


def mean_squared_error(forecast: Forecast, target: Video) -> PerExample:
    """Squared error averaged over pixels and frames."""
    return summed_squared_error(forecast, target) / _pixels(target)


def mean_absolute_error(forecast: Forecast, target: Video) -> PerExample:
    """Absolute error averaged over pixels and frames."""
    error = absolute_error(forecast.frames, target)
    return error.mean(axis=1) / _pixels(target)


def summed_squared_error(forecast: Forecast, target: Video) -> PerExample:
    """Squared error summed over the pixels of a frame, averaged over frames."""
    return squared_error(forecast.frames, target).mean(axis=1)


def _pixels(video: Video) -> int:
    _, _, height, width, channels = video.shape
    return height * width * channels


LOSSES: dict[str, Callable[[Forecast, Video], PerExample]] = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "mse_sum": summed_squared_error,
}


def rain_weight(
    rain_mm_per_h: Array, rates: Sequence[float], weights: Sequence[float]
) -> Array:
    """The weight of each pixel: that of the highest rate reached, below all rates 1."""
    weight = jnp.ones_like(rain_mm_per_h)
    for rate, value in zip(rates, weights, strict=True):
        weight = jnp.where(rain_mm_per_h >= rate, value, weight)
    return weight


def masked_mean(values: Video, mask: Video, weight: Video | float = 1.0) -> PerExample:
    """Σ weight · values / (pixels with data) of each clip; 0 if there are none.

    Values of pixels without data never count, NaN included.
    """
    axes = tuple(range(1, values.ndim))
    total = jnp.where(mask > 0, weight * values, 0.0).sum(axes)
    return total / jnp.maximum((mask > 0).sum(axes), 1)


def pixel_squared_error(forecast: Forecast, target: Video) -> Video:
    """Squared error of every pixel."""
    return jnp.square(forecast.frames - target)


def pixel_absolute_error(forecast: Forecast, target: Video) -> Video:
    """Absolute error of every pixel."""
    return jnp.abs(forecast.frames - target)


def pixel_cross_entropy(forecast: Forecast, target: Video) -> Video:
    """Cross-entropy of every pixel, nats; without logits from clipped frames."""
    logits = forecast.logits
    if logits is None:
        frames = jnp.clip(
            forecast.frames, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY
        )
        logits = jnp.log(frames) - jnp.log1p(-frames)
    return optax.sigmoid_binary_cross_entropy(logits, target)


# Name → error of a pixel, and whether it is weighted by the true rain.
RAIN_LOSSES: dict[str, tuple[Callable[[Forecast, Video], Video], bool]] = {
    "cross_entropy": (pixel_cross_entropy, False),
    "mse": (pixel_squared_error, False),
    "mae": (pixel_absolute_error, False),
    "b_mse": (pixel_squared_error, True),
    "b_mae": (pixel_absolute_error, True),
}


def rain_loss(
    name: str, forecast: Forecast, target: Video, mask: Video, weight: Video
) -> PerExample:
    """The loss of each clip.

    Args:
        name: A key of `RAIN_LOSSES`.
        forecast: Predicted pixels.
        target: True pixels `[B, T, H, W, C]`, in [0, 1].
        mask: 1 where there is data, of the same shape.
        weight: Weight of each pixel, of the same shape; only the B-losses use it.
    """
    error, weighted = RAIN_LOSSES[name]
    return masked_mean(error(forecast, target), mask, weight if weighted else 1.0)
