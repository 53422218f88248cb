r"""Structural similarity of frames, in the two conventions that the field reports.

Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, from error visibility to
structural similarity. IEEE Transactions on Image Processing 13(4), 2004, eq. 13:

    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))

with C1 = (0.01 L)², C2 = (0.03 L)² and L the data range. Means, variances and the
covariance are those of a window around a pixel, weighted; the map is averaged over the
pixels whose window lies inside the frame, then over channels, as scikit-image does.

Numerics. With d = x − y, the two factors are computed in the equal form

    1 − μd² / (μx² + μy² + C1)    and    1 − σd² / (σx² + σy² + C2)

which is exactly 1 for identical frames and needs no covariance. The variances are not
`E[x²] − E[x]²`: in float32 that loses every digit next to C2 in a bright, flat
region. Each of the two one-dimensional passes subtracts the pixel at the
window's centre first, which makes a flat region's variance exactly 0. In float32 the
greatest difference from scikit-image in float64 was 4e-7 over random clips, digits on
black, flat bright frames with weak noise, constant frames and smooth fields (the plain
form: 2e-5); in float64 it is below 1e-13. 640 frames of 64×64 take about 0.2 s on two
CPU cores, and about one second to compile.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from convlstm_jax.metrics.frames import matched_frames
from convlstm_jax.types import PerFrame, Video

GAUSSIAN_WINDOW_SIZE = 11
GAUSSIAN_SIGMA = 1.5
UNIFORM_WINDOW_SIZE = 7

_K1 = 0.01
_K2 = 0.03


def ssim(prediction: Video, target: Video) -> PerFrame:
    """SSIM of each frame as Wang et al. 2004 define it.

    Gaussian window of 11×11 pixels and σ = 1.5, data range 1, population covariance;
    equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, channel_axis=-1)` to 1e-6 in float32.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1], H and W at least 11.
        target: True frames of the same shape.

    Returns:
        `[B, T]`, at most 1; identical frames give exactly 1.

    Raises:
        ValueError: A frame is smaller than the window, or the two clips cannot be
            compared (see `matched_frames`).
    """
    return _mean_similarity(
        prediction,
        target,
        weights=gaussian_weights(GAUSSIAN_WINDOW_SIZE, GAUSSIAN_SIGMA),
        data_range=1.0,
        covariance_factor=1.0,
    )


def ssim_openstl(prediction: Video, target: Video) -> PerFrame:
    """SSIM of each frame as the tables of OpenSTL hold it.

    OpenSTL calls scikit-image (0.19 or older, by its requirements) with its defaults
    and no data range: a uniform window of 7×7 pixels, sample covariance (normalised by
    48 instead of 49), and the data range 2 that scikit-image up to 0.19 took
    for floating-point images, [-1, 1] being its float range. The doubled range
    quadruples C1 and C2, so these figures compare only with one another, not with
    `ssim`'s. OpenSTL hands each frame over transposed, which changes nothing, as the
    window is square. Equal to `structural_similarity(data_range=2, channel_axis=-1)`
    to 1e-6 in float32.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1], H and W at least 7.
        target: True frames of the same shape.

    Returns:
        `[B, T]`, at most 1; identical frames give exactly 1.

    Raises:
        ValueError: A frame is smaller than the window, or the two clips cannot be
            compared (see `matched_frames`).
    """
    pixels = UNIFORM_WINDOW_SIZE**2
    return _mean_similarity(
        prediction,
        target,
        weights=(1.0 / UNIFORM_WINDOW_SIZE,) * UNIFORM_WINDOW_SIZE,
        data_range=2.0,
        covariance_factor=pixels / (pixels - 1),
    )


def _mean_similarity(
    prediction: Video,
    target: Video,
    *,
    weights: tuple[float, ...],
    data_range: float,
    covariance_factor: float,
) -> PerFrame:
    """Mean SSIM of each frame with the separable window `weights` ⊗ `weights`."""
    prediction, target = matched_frames(prediction, target)
    height, width = prediction.shape[2:4]
    if min(height, width) < len(weights):
        raise ValueError(
            f"frames of {height}×{width} pixels (height×width) are smaller than the "
            f"SSIM window; height and width must be at least {len(weights)}"
        )
    return _similarity(prediction, target, weights, data_range, covariance_factor)


# Compiled on its own, so that a call outside of `jax.jit` is one program, not hundreds.
@functools.partial(
    jax.jit, static_argnames=("weights", "data_range", "covariance_factor")
)
def _similarity(
    prediction: Array,
    target: Array,
    weights: tuple[float, ...],
    data_range: float,
    covariance_factor: float,
) -> PerFrame:
    """The mean of the map of eq. 13 over each frame."""
    luminance, structure = similarity_factors(
        jnp.moveaxis(prediction, -1, -3),
        jnp.moveaxis(target, -1, -3),
        weights,
        data_range,
        covariance_factor,
    )
    return map_mean(luminance * structure).mean(-1)


def similarity_factors(
    prediction: Array,
    target: Array,
    weights: tuple[float, ...],
    data_range: float,
    covariance_factor: float,
) -> tuple[Array, Array]:
    """The two factors of eq. 13 for every window inside images `[..., H, W]`."""
    # One stack of three through the filters: a third of the operations to compile.
    images = jnp.stack([prediction, target, prediction - target])
    means, variances = _window_moments(images, weights)
    mean_x, mean_y, mean_difference = means
    variance_x, variance_y, variance_difference = variances * covariance_factor
    c1 = (_K1 * data_range) ** 2
    c2 = (_K2 * data_range) ** 2
    luminance = 1.0 - mean_difference**2 / (mean_x**2 + mean_y**2 + c1)
    structure = 1.0 - variance_difference / (variance_x + variance_y + c2)
    return luminance, structure


def map_mean(values: Array) -> Array:
    """The mean over the last two axes."""
    # Axis by axis: one float32 sum over thousands of values near 1 rounds too much.
    return values.mean(-1).mean(-1)


def _window_moments(images: Array, weights: tuple[float, ...]) -> tuple[Array, Array]:
    """Mean and variance over the windows inside images `[..., H, W]`.

    The variance of a separable window splits, by the law of total variance, into
    the mean over columns of the variances within a column and the variance of the
    columns' means.
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
    first = jnp.zeros_like(centre)
    second = jnp.zeros_like(centre)
    for offset, weight in enumerate(weights):
        if offset == middle:
            continue  # its distance from itself is 0
        distance = lax.slice_in_dim(images, offset, offset + size, axis=axis) - centre
        first += weight * distance
        second += weight * distance * distance
    return centre + first, second - first * first


def gaussian_weights(size: int, sigma: float) -> tuple[float, ...]:
    """`size` samples of a Gaussian about their middle, with sum 1."""
    middle = size // 2
    samples = [math.exp(-0.5 * ((i - middle) / sigma) ** 2) for i in range(size)]
    total = math.fsum(samples)
    return tuple(sample / total for sample in samples)
