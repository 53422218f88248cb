"""Structural similarity of frames: SSIM in two conventions, and MS-SSIM.

SSIM, Wang et al. 2004 (IEEE Transactions on Image Processing 13(4), eq. 13), averaged
over the windows inside the frame, then over channels, as scikit-image does:

    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))
         = (1 − μd² / (μx² + μy² + C1)) (1 − σd² / (σx² + σy² + C2)),    d = x − y

with C1 = (0.01 L)², C2 = (0.03 L)² and L the data range. The second form, which is
computed, is exactly 1 for identical frames. `E[x²] − E[x]²` would lose every digit next
to C2 in a bright, flat region: each one-dimensional pass subtracts the pixel at the
window's centre first.

MS-SSIM, Wang, Simoncelli and Bovik 2003 (Asilomar, eq. 7), with l and c s the means of
the two factors at each of M scales, each scale of half the size of the one before:

    MS-SSIM = l_M^α_M ∏ (c_j s_j)^β_j,  j = 1 … M,  α_M = β_M

As every implementation does, the last scale takes the mean of the product of both, and
channels are averaged at the end. A mean of c s below 0, which has no root, counts as 0.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from convlstm_jax.metrics.registry import Metric, frame_metric, matched_frames
from convlstm_jax.types import PerFrame, Video

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, finest first; their sum is 1.0001."""

_K1 = 0.01
_K2 = 0.03
_MIN_SIDE = 22  # of the frames of MS-SSIM; with one scale it would be SSIM


class _Window(NamedTuple):
    """The window `weights` ⊗ `weights`, and what goes with it in a convention."""

    weights: tuple[float, ...]
    data_range: float
    covariance_factor: float


_SAMPLES = [math.exp(-0.5 * (i / 1.5) ** 2) for i in range(-5, 6)]
_WEIGHTS = tuple(sample / math.fsum(_SAMPLES) for sample in _SAMPLES)
_GAUSSIAN = _Window(_WEIGHTS, 1.0, 1.0)
_UNIFORM = _Window((1 / 7,) * 7, 2.0, 49 / 48)


@frame_metric(Metric("ssim", "SSIM", direction="higher", order=20,
    min_side=11, convention=(
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
    min_side=7, convention=(
    "SSIM as in OpenSTL's tables: predictions clipped to [0, 1], uniform window "
    "7×7, data range 2, sample covariance, K1 0.01, K2 0.03, averaged over the "
    "pixels whose window lies inside the frame, channels, frames and "
    "samples.")))  # fmt: skip
def ssim_openstl(prediction: Video, target: Video) -> PerFrame:
    """SSIM of each frame as in OpenSTL's tables, `[B, T]`, comparable only with those.

    The defaults of scikit-image 0.19: a uniform window of 7×7 pixels, sample
    covariance, data range 2. Equal to `structural_similarity(data_range=2,
    channel_axis=-1)` of a prediction clipped to [0, 1], to 1e-6 in float32.
    """
    return _mean_similarity(jnp.clip(prediction, 0, 1), target, _UNIFORM)


def _mean_similarity(prediction: Video, target: Video, window: _Window) -> PerFrame:
    prediction, target = matched_frames(prediction, target)
    height, width = prediction.shape[2:4]
    if min(height, width) < len(window.weights):
        raise ValueError(
            f"frames are of {height}×{width} pixels (height×width): for this SSIM "
            f"height and width must be at least {len(window.weights)}"
        )
    return _similarity(prediction, target, window)


# Compiled on its own, so that a call outside of `jax.jit` is one program, not hundreds.
@partial(jax.jit, static_argnames="window")
def _similarity(prediction: Array, target: Array, window: _Window) -> Any:
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

    As many as the window fits into, scaled to the sum of all: five from 176 pixels on.
    """
    if smaller_side < _MIN_SIDE:
        raise ValueError(
            f"the smaller side of the frames has {smaller_side} pixels: for MS-SSIM it "
            f"must have at least {_MIN_SIDE}"
        )
    weights = [
        weight
        for scale, weight in enumerate(SCALE_WEIGHTS)
        if smaller_side >> scale >= len(_WEIGHTS)
    ]
    factor = sum(SCALE_WEIGHTS) / sum(weights)
    return tuple(weight * factor for weight in weights)


@frame_metric(Metric("ms_ssim", "MS-SSIM", direction="higher", order=22,
    min_side=_MIN_SIDE, convention=(
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
    return _ms_ssim(prediction, target, scale_weights(min(prediction.shape[2:4])))


# Compiled on its own, as SSIM is.
@partial(jax.jit, static_argnames="weights")
def _ms_ssim(prediction: Array, target: Array, weights: tuple[float, ...]) -> Any:
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
