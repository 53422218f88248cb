"""What training minimises: one number per clip; the caller averages over clips."""

from convlstm_jax.metrics.cross_entropy import (
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
)
from convlstm_jax.metrics.pixel import absolute_error, squared_error
from convlstm_jax.models.network import Forecast
from convlstm_jax.types import PerExample, Video


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


LOSSES = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "mse_sum": summed_squared_error,
}
