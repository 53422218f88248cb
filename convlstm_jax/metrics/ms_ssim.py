"""Structural similarity of frames at several scales at once.

Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality
assessment. Asilomar Conference on Signals, Systems and Computers, 2003, eq. 7:

    MS-SSIM = l_M^α_M ∏ (c_j s_j)^β_j,  j = 1 … M

l is the luminance factor of SSIM and c s its contrast and structure factor (the two
that `metrics.ssim` has), each averaged over the windows inside the frame; scale j + 1
is scale j averaged over squares of 2×2 pixels; α_M = β_M, and the weights β_j of M = 5
scales are the paper's. As every implementation does, the last scale takes the mean of
the product of both factors, and channels are averaged at the end.

Three things the paper leaves open. The window must fit into each scale, which at five
scales asks for frames of 176 pixels: of smaller frames as many scales are taken as it
fits into (two from 22 pixels on, three from 44, four from 88), and their weights raised
alike to the sum that all five have. A mean of c s below 0, which has no root, counts as
0. A last row or column that has no partner is left out of the next scale.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from convlstm_jax.metrics.frames import matched_frames
from convlstm_jax.metrics.ssim import (
    GAUSSIAN_SIGMA,
    GAUSSIAN_WINDOW_SIZE,
    gaussian_weights,
    map_mean,
    similarity_factors,
)
from convlstm_jax.types import PerFrame, Video

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first, as the paper has them: their sum is 1.0001."""

SMALLEST_SIDE = 2 * GAUSSIAN_WINDOW_SIZE
"""Pixels from which on there are two scales; with one it would be SSIM."""


def scale_weights(smaller_side: int) -> tuple[float, ...]:
    """The weights of the scales of frames whose smaller side has so many pixels.

    Raises:
        ValueError: There is room for one scale at most.
    """
    if smaller_side < SMALLEST_SIDE:
        raise ValueError(
            f"the smaller side of the frames has {smaller_side} pixels; MS-SSIM needs "
            f"at least {SMALLEST_SIDE}"
        )
    weights = [
        weight
        for scale, weight in enumerate(SCALE_WEIGHTS)
        if smaller_side >> scale >= GAUSSIAN_WINDOW_SIZE
    ]
    factor = sum(SCALE_WEIGHTS) / sum(weights)
    return tuple(weight * factor for weight in weights)


def ms_ssim(prediction: Video, target: Video) -> PerFrame:
    """MS-SSIM of each frame.

    Gaussian window of 11×11 pixels and σ = 1.5, data range 1, population covariance,
    at every scale.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1], H and W at least 22.
        target: True frames of the same shape.

    Returns:
        `[B, T]`, from 0 to 1; identical frames give exactly 1.

    Raises:
        ValueError: A frame is too small for two scales, or the two clips cannot be
            compared (see `matched_frames`).
    """
    prediction, target = matched_frames(prediction, target)
    return _ms_ssim(prediction, target, scale_weights(min(prediction.shape[2:4])))


# Compiled on its own, as SSIM is.
@functools.partial(jax.jit, static_argnames="weights")
def _ms_ssim(prediction: Array, target: Array, weights: tuple[float, ...]) -> PerFrame:
    x, y = (jnp.moveaxis(clip, -1, -3) for clip in (prediction, target))
    window = gaussian_weights(GAUSSIAN_WINDOW_SIZE, GAUSSIAN_SIGMA)
    product = jnp.ones(())
    for scale, weight in enumerate(weights):
        if scale:
            x, y = _halved(x), _halved(y)
        luminance, structure = similarity_factors(x, y, window, 1.0, 1.0)
        last = scale == len(weights) - 1
        mean = map_mean(luminance * structure if last else structure)
        product = product * jnp.maximum(mean, 0.0) ** weight
    return product.mean(-1)


def _halved(images: Array) -> Array:
    """Means of squares of 2×2 pixels, `[..., H, W]` → `[..., H // 2, W // 2]`."""
    *rest, height, width = images.shape
    even = images[..., : height // 2 * 2, : width // 2 * 2]
    return even.reshape(*rest, height // 2, 2, width // 2, 2).mean((-3, -1))
