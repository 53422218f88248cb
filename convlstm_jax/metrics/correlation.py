"""Pearson's correlation of prediction and truth over all pixels of a test set.

    r = cov(p, t) / √(var(p) var(t))

On the device `correlation_moments` gives figures of one frame, to be summed over
clips; on the host `pearson` makes one correlation of the sums. Over the frames of a
lead time, over all of them or over one condition's it is that of all those pixels
together, not a mean of correlations. By the law of total covariance

    cov(p, t) = ⟨cov in a frame⟩ + ⟨p̄ t̄⟩ − ⟨p̄⟩⟨t̄⟩

with p̄, t̄ a frame's means: only these, not the pixels, are squared before a mean is
subtracted, which float32 would not forgive where contrast is weak.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

from convlstm_jax.metrics.frames import matched_frames
from convlstm_jax.types import Video

_FRAME = (2, 3, 4)
# A variance below this share of the mean square is what rounding leaves of none.
_LEAST_VARIANCE = 1e-6


def correlation_moments(prediction: Video, target: Video) -> Float[Array, "B T 8"]:
    """The figures of each frame that a correlation follows from.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1].
        target: True frames of the same shape.

    Returns:
        `[B, T, 8]`: means of p and t, their squares and their product, and over the
        pixels of the frame var(p), var(t) and cov(p, t).

    Raises:
        ValueError: The two clips cannot be compared (see `matched_frames`).
    """
    prediction, target = matched_frames(prediction, target)
    mean_p, mean_t = (x.mean(_FRAME, keepdims=True) for x in (prediction, target))
    p, t = prediction - mean_p, target - mean_t
    inside = [x.mean(_FRAME) for x in (p * p, t * t, p * t)]
    mean_p, mean_t = (x.reshape(x.shape[:2]) for x in (mean_p, mean_t))
    means = [mean_p, mean_t, mean_p**2, mean_t**2, mean_p * mean_t]
    return jnp.stack([*means, *inside], axis=-1)


def pearson(moments: NDArray[np.float64], count: float) -> NDArray[np.float64]:
    """The correlation, NaN where prediction or truth is the same everywhere.

    Args:
        moments: `[..., 8]`, the sum of `correlation_moments` over frames of one size.
        count: How many frames that were.

    Returns:
        `[...]`, from -1 to 1.
    """
    mean_p, mean_t, pp, tt, pt, *inside = np.moveaxis(
        np.asarray(moments, np.float64) / count, -1, 0
    )
    variances = []
    for mean, square, within in ((mean_p, pp, inside[0]), (mean_t, tt, inside[1])):
        variance = within + square - mean**2
        known = variance > _LEAST_VARIANCE * (square + within)
        variances.append(np.where(known, variance, 0.0))
    deviations = np.sqrt(variances[0] * variances[1])
    return np.divide(
        inside[2] + pt - mean_p * mean_t,
        deviations,
        out=np.full(np.shape(deviations), np.nan),
        where=deviations > 0,
    )
