"""What training minimises: one number per clip; the caller averages over clips."""

import jax

from convlstm_jax.array_types import PerExample, Video
from convlstm_jax.metrics.cross_entropy import cross_entropy_from_logits
from convlstm_jax.metrics.pixel import absolute_error, squared_error


def cross_entropy(logits: Video, target: Video) -> PerExample:
    """Cross-entropy, nats per frame: summed over pixels, averaged over frames."""
    return cross_entropy_from_logits(logits, target).mean(axis=1)


def mean_squared_error(logits: Video, target: Video) -> PerExample:
    """Squared error of sigmoid(logits), averaged over pixels and frames."""
    return summed_squared_error(logits, target) / _pixels(target)


def mean_absolute_error(logits: Video, target: Video) -> PerExample:
    """Absolute error of sigmoid(logits), averaged over pixels and frames."""
    error = absolute_error(jax.nn.sigmoid(logits), target)
    return error.mean(axis=1) / _pixels(target)


def summed_squared_error(logits: Video, target: Video) -> PerExample:
    """Squared error summed over the pixels of a frame, averaged over frames."""
    return squared_error(jax.nn.sigmoid(logits), target).mean(axis=1)


def _pixels(video: Video) -> int:
    _, _, height, width, channels = video.shape
    return height * width * channels


LOSSES = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "mse_sum": summed_squared_error,
}
