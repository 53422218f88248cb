"""Structural similarity of frames: SSIM in two conventions, and MS-SSIM.

Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, from error visibility to
structural similarity. IEEE Transactions on Image Processing 13(4), 2004, eq. 13:

    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))

with C1 = (0.01 L)², C2 = (0.03 L)² and L the data range, averaged over the windows
inside the frame, then over channels, as scikit-image does.

Numerics. With d = x − y, the two factors are computed in the equal form

    1 − μd² / (μx² + μy² + C1)    and    1 − σd² / (σx² + σy² + C2)

which is exactly 1 for identical frames. `E[x²] − E[x]²` would lose every digit next to
C2 in a bright, flat region: each one-dimensional pass subtracts the pixel at the
window's centre first. The largest difference from scikit-image in float64 was 4e-7 in
float32 (the plain form: 2e-5) and 1e-13 in float64.

MS-SSIM: Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality
assessment. Asilomar Conference on Signals, Systems and Computers, 2003, eq. 7:

    MS-SSIM = l_M^α_M ∏ (c_j s_j)^β_j,  j = 1 … M

with l and c s the two factors, each averaged over the windows; scale j + 1 is scale j
averaged over squares of 2×2 pixels; α_M = β_M. As every implementation does, the last
scale takes the mean of the product of both, and channels are averaged at the end.
Frames of less than 176 pixels have as many scales as the window fits into, with weights
scaled to the same sum. A mean of c s below 0, which has no root, counts as 0; a last
row or column without a partner is left out of the next scale.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from convlstm_jax.metrics.registry import Metric, frame_metric, matched_frames
from convlstm_jax.types import PerFrame, Video

GAUSSIAN_WINDOW_SIZE = 11
GAUSSIAN_SIGMA = 1.5
UNIFORM_WINDOW_SIZE = 7
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, finest first; their sum is 1.0001."""

_K1 = 0.01
_K2 = 0.03


def gaussian_weights(size: int, sigma: float) -> tuple[float, ...]:
    """`size` samples of a Gaussian about their middle, with sum 1."""
    middle = size // 2
    samples = [math.exp(-0.5 * ((i - middle) / sigma) ** 2) for i in range(size)]
    total = math.fsum(samples)
    return tuple(sample / total for sample in samples)


class _Window(NamedTuple):
    """The window `weights` ⊗ `weights`, and what goes with it in a convention."""

    weights: tuple[float, ...]
    data_range: float
    covariance_factor: float


_GAUSSIAN = _Window(gaussian_weights(GAUSSIAN_WINDOW_SIZE, GAUSSIAN_SIGMA), 1.0, 1.0)
_UNIFORM = _Window((1 / UNIFORM_WINDOW_SIZE,) * UNIFORM_WINDOW_SIZE, 2.0, 49 / 48)


@frame_metric(Metric("ssim", "SSIM", direction="higher", order=20,
    min_side=GAUSSIAN_WINDOW_SIZE, convention=(
    "SSIM of Wang et al. 2004: Gaussian window 11×11 with sigma 1.5, data range 1, "
    "population covariance, K1 0.01, K2 0.03, averaged over the pixels whose "
    "window lies inside the frame, channels, frames and samples.")))  # fmt: skip
def ssim(prediction: Video, target: Video) -> PerFrame:
    """SSIM of each frame, `[B, T]`, at most 1; ValueError for frames below the window.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, channel_axis=-1)` to 1e-6 in float32.
    """
    return _mean_similarity(prediction, target, _GAUSSIAN)


@frame_metric(Metric("ssim_openstl", "SSIM, OpenSTL", direction="higher", order=21,
    min_side=UNIFORM_WINDOW_SIZE, convention=(
    "SSIM as in OpenSTL's tables: uniform window 7×7, data range 2, sample "
    "covariance, K1 0.01, K2 0.03, averaged over the pixels whose window lies "
    "inside the frame, channels, frames and samples.")))  # fmt: skip
def ssim_openstl(prediction: Video, target: Video) -> PerFrame:
    """SSIM of each frame as in OpenSTL's tables, `[B, T]`, comparable only with those.

    OpenSTL calls scikit-image 0.19 with its defaults: a uniform window of 7×7 pixels,
    sample covariance, and data range 2, which quadruples C1 and C2. Equal to
    `structural_similarity(data_range=2, channel_axis=-1)` to 1e-6 in float32.
    """
    return _mean_similarity(prediction, target, _UNIFORM)


def _mean_similarity(prediction: Video, target: Video, window: _Window) -> PerFrame:
    prediction, target = matched_frames(prediction, target)
    height, width = prediction.shape[2:4]
    if min(height, width) < len(window.weights):
        raise ValueError(
            f"frames are of {height}×{width} pixels (height×width): for this SSIM "
            f"height and width must be at least {len(window.weights)}"
        )
    found: PerFrame = _similarity(prediction, target, window)
    return found


# Compiled on its own, so that a call outside of `jax.jit` is one program, not hundreds.
@functools.partial(jax.jit, static_argnames="window")
def _similarity(prediction: Array, target: Array, window: _Window) -> PerFrame:
    x, y = (jnp.moveaxis(clip, -1, -3) for clip in (prediction, target))
    luminance, structure = _similarity_factors(x, y, window)
    return _map_mean(luminance * structure).mean(-1)


def _similarity_factors(x: Array, y: Array, window: _Window) -> tuple[Array, Array]:
    """The two factors of eq. 13 for every window inside images `[..., H, W]`."""
    # One stack of three through the filters: a third of the operations to compile.
    means, variances = _window_moments(jnp.stack([x, y, x - y]), window.weights)
    mean_x, mean_y, mean_difference = means
    variance_x, variance_y, variance_difference = variances * window.covariance_factor
    c1 = (_K1 * window.data_range) ** 2
    c2 = (_K2 * window.data_range) ** 2
    luminance = 1.0 - mean_difference**2 / (mean_x**2 + mean_y**2 + c1)
    structure = 1.0 - variance_difference / (variance_x + variance_y + c2)
    return luminance, structure


def _map_mean(values: Array) -> Array:
    """The mean over the last two axes."""
    # Axis by axis: one float32 sum over thousands of values near 1 rounds too much.
    return values.mean(-1).mean(-1)


def _window_moments(images: Array, weights: tuple[float, ...]) -> tuple[Array, Array]:
    """Mean and variance over the windows inside images `[..., H, W]`.

    By the law of total variance, that of a separable window is the mean of the
    variances within its columns plus the variance of the columns' means.
    """
    column_mean, column_variance = _axis_moments(images, weights, axis=-2)
    mean, variance_between = _axis_moments(column_mean, weights, axis=-1)
    size = images.shape[-1] - len(weights) + 1
    variance_within = sum(
        weight * lax.slice_in_dim(column_variance, offset, offset + size, axis=-1)
        for offset, weight in enumerate(weights)
    )
    return mean, variance_between + variance_within


def _axis_moments(
    images: Array, weights: tuple[float, ...], axis: int
) -> tuple[Array, Array]:
    """Weighted mean and variance along one axis, about the centre of each window."""
    size = images.shape[axis] - len(weights) + 1
    middle = len(weights) // 2
    centre = lax.slice_in_dim(images, middle, middle + size, axis=axis)
    first, second = jnp.zeros_like(centre), jnp.zeros_like(centre)
    for offset, weight in enumerate(weights):
        if offset == middle:
            continue  # its distance from itself is 0
        distance = lax.slice_in_dim(images, offset, offset + size, axis=axis) - centre
        first += weight * distance
        second += weight * distance * distance
    return centre + first, second - first * first


def scale_weights(smaller_side: int) -> tuple[float, ...]:
    """The weights of the scales of frames whose smaller side has so many pixels.

    Raises:
        ValueError: Fewer than two scales fit; with one it would be SSIM.
    """
    if smaller_side < 2 * GAUSSIAN_WINDOW_SIZE:
        raise ValueError(
            f"the smaller side of the frames has {smaller_side} pixels: for MS-SSIM it "
            f"must have at least {2 * GAUSSIAN_WINDOW_SIZE}"
        )
    weights = [
        weight
        for scale, weight in enumerate(SCALE_WEIGHTS)
        if smaller_side >> scale >= GAUSSIAN_WINDOW_SIZE
    ]
    factor = sum(SCALE_WEIGHTS) / sum(weights)
    return tuple(weight * factor for weight in weights)


@frame_metric(Metric("ms_ssim", "MS-SSIM", direction="higher", order=22,
    min_side=2 * GAUSSIAN_WINDOW_SIZE, convention=(
    "MS-SSIM of Wang, Simoncelli and Bovik 2003: the window of ssim at each scale, "
    "scales halved by means of 2×2 pixels, exponents 0.0448, 0.2856, 0.3001, "
    "0.2363, 0.1333; frames of less than 176 pixels have as many of the scales as "
    "the window fits into (two from 22, three from 44, four from 88 pixels), their "
    "exponents raised to the same sum: comparable among frames of one number of "
    "scales alone. A mean below 0 counts as 0; averaged over channels, frames and "
    "samples.")))  # fmt: skip
def ms_ssim(prediction: Video, target: Video) -> PerFrame:
    """MS-SSIM of each frame, `[B, T]`, from 0 to 1; identical frames give exactly 1."""
    prediction, target = matched_frames(prediction, target)
    weights = scale_weights(min(prediction.shape[2:4]))
    found: PerFrame = _ms_ssim(prediction, target, weights)
    return found


# Compiled on its own, as SSIM is.
@functools.partial(jax.jit, static_argnames="weights")
def _ms_ssim(prediction: Array, target: Array, weights: tuple[float, ...]) -> PerFrame:
    x, y = (jnp.moveaxis(clip, -1, -3) for clip in (prediction, target))
    product: Array = jnp.ones(())
    for scale, weight in enumerate(weights):
        if scale:
            x, y = _halved(x), _halved(y)
        luminance, structure = _similarity_factors(x, y, _GAUSSIAN)
        last = scale == len(weights) - 1
        mean = _map_mean(luminance * structure if last else structure)
        product = product * jnp.maximum(mean, 0.0) ** weight
    return product.mean(-1)


def _halved(images: Array) -> Array:
    """Means of squares of 2×2 pixels, `[..., H, W]` → `[..., H // 2, W // 2]`."""
    *rest, height, width = images.shape
    even = images[..., : height // 2 * 2, : width // 2 * 2]
    return even.reshape(*rest, height // 2, 2, width // 2, 2).mean((-3, -1))
