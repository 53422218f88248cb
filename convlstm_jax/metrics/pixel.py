"""Errors of single pixels, gathered over a frame."""

import jax.numpy as jnp

from convlstm_jax.metrics.frames import matched_frames
from convlstm_jax.types import PerFrame, Video

LEAST_MEAN_SQUARED_ERROR = 1e-10
"""Floor of the mean squared error inside `psnr_db`: 100 dB."""

_FRAME_AXES = (2, 3, 4)


def squared_error(prediction: Video, target: Video) -> PerFrame:
    """Squared error summed over the pixels and channels of each frame.

    Its mean over frames and samples is the "MSE" of the Moving MNIST literature
    (Srivastava et al. 2015, arXiv:1502.04681; OpenSTL), H·W·C times the mean over
    pixels.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1].
        target: True frames `[B, T, H, W, C]` in [0, 1].

    Returns:
        `[B, T]`, at least 0.

    Raises:
        ValueError: The two clips cannot be compared (see `matched_frames`).
    """
    prediction, target = matched_frames(prediction, target)
    return jnp.sum(jnp.square(prediction - target), axis=_FRAME_AXES)


def absolute_error(prediction: Video, target: Video) -> PerFrame:
    """Absolute error summed over the pixels and channels of each frame.

    Its mean over frames and samples is the field's "MAE", H·W·C times the mean over
    pixels.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1].
        target: True frames `[B, T, H, W, C]` in [0, 1].

    Returns:
        `[B, T]`, at least 0.

    Raises:
        ValueError: The two clips cannot be compared (see `matched_frames`).
    """
    prediction, target = matched_frames(prediction, target)
    return jnp.sum(jnp.abs(prediction - target), axis=_FRAME_AXES)


def psnr_db(prediction: Video, target: Video) -> PerFrame:
    """Peak signal-to-noise ratio of each frame, in decibels, for pixels in [0, 1].

    `-10 log10(m)` with m the mean squared error over the pixels and channels of the
    frame. m is floored at 1e-10, so that identical frames give 100 dB and an average
    over frames stays finite (OpenSTL's is infinite there).

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1].
        target: True frames `[B, T, H, W, C]` in [0, 1].

    Returns:
        `[B, T]` in dB, at most 100.

    Raises:
        ValueError: The two clips cannot be compared (see `matched_frames`).
    """
    prediction, target = matched_frames(prediction, target)
    mean_squared_error = jnp.mean(jnp.square(prediction - target), axis=_FRAME_AXES)
    return -10.0 * jnp.log10(jnp.maximum(mean_squared_error, LEAST_MEAN_SQUARED_ERROR))
