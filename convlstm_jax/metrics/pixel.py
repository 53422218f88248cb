"""Errors of single pixels summed over a frame, pixels as probabilities, correlation."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

from convlstm_jax.metrics.registry import (
    Metric,
    frame_metric,
    matched_frames,
    ratio,
    register,
)
from convlstm_jax.types import PerFrame, Video

_FRAME = (2, 3, 4)


@frame_metric(Metric("mse", "MSE", unit="summed over a frame", order=10, convention=(
    "Squared error summed over the pixels and channels of a frame, averaged over "
    "frames and samples; pixels in [0, 1].")))  # fmt: skip
def squared_error(prediction: Video, target: Video) -> PerFrame:
    """Squared error summed over the pixels and channels of each frame, `[B, T]`.

    Its mean is the "MSE" of the Moving MNIST literature. Clips are `[B, T, H, W, C]` in
    [0, 1], here and below.
    """
    prediction, target = matched_frames(prediction, target)
    return jnp.sum(jnp.square(prediction - target), axis=_FRAME)


@frame_metric(Metric("mae", "MAE", unit="summed over a frame", order=11, convention=(
    "Absolute error summed over the pixels and channels of a frame, averaged over "
    "frames and samples; pixels in [0, 1].")))  # fmt: skip
def absolute_error(prediction: Video, target: Video) -> PerFrame:
    """Absolute error summed over the pixels and channels of each frame, `[B, T]`."""
    prediction, target = matched_frames(prediction, target)
    return jnp.sum(jnp.abs(prediction - target), axis=_FRAME)


@frame_metric(Metric("psnr_db", "PSNR", unit="dB", direction="higher", order=30,
    convention=(
    "Peak signal-to-noise ratio in dB of each frame for data range 1, predictions "
    "clipped to [0, 1] as in OpenSTL, at most 100 dB (identical frames), averaged "
    "over frames and samples.")))  # fmt: skip
def psnr_db(prediction: Video, target: Video) -> PerFrame:
    """Peak signal-to-noise ratio of each frame, dB, `[B, T]`: −10 log10(m).

    m is the mean squared error over pixels and channels, of a prediction clipped to
    [0, 1], at least 1e-10: identical frames give 100 dB (in OpenSTL, infinity).
    """
    prediction, target = matched_frames(prediction, target)
    error = jnp.clip(prediction, 0, 1) - target
    mean_squared_error = jnp.mean(jnp.square(error), axis=_FRAME)
    return -10.0 * jnp.log10(jnp.maximum(mean_squared_error, 1e-10))


def cross_entropy_from_logits(logits: Video, target: Video) -> PerFrame:
    """Cross-entropy of each frame from logits, nats, `[B, T]`; it never overflows."""
    logits, target = matched_frames(logits, target, name="logits")
    rest = jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return jnp.sum(jnp.maximum(logits, 0.0) - logits * target + rest, axis=_FRAME)


@frame_metric(Metric("cross_entropy_nats", "Cross-entropy", unit="nats per frame",
    order=50, from_logits=cross_entropy_from_logits, convention=(
    "Cross-entropy in nats summed over the pixels and channels of a frame, "
    "averaged over frames and samples; from logits where the model has them, else "
    "from pixels clipped to [1e-6, 1 - 1e-6].")))  # fmt: skip
def cross_entropy_from_probabilities(
    prediction: Video, target: Video, epsilon: float = 1e-6
) -> PerFrame:
    """Cross-entropy of each frame from pixels, for predictions without logits, nats.

    −Σ t log p + (1 − t) log(1 − p) as in Shi et al. 2015 (arXiv:1506.04214, section
    4.1), with p clipped to [epsilon, 1 − epsilon].
    """
    prediction, target = matched_frames(prediction, target)
    probability = jnp.clip(prediction, epsilon, 1.0 - epsilon)
    nats = -target * jnp.log(probability) - (1.0 - target) * jnp.log1p(-probability)
    return jnp.sum(nats, axis=_FRAME)


def pearson(moments: NDArray[np.float64], count: float) -> NDArray[np.float64]:
    """Pearson's correlation r = cov(p, t) / √(var(p) var(t)) of many frames together.

    Of moments `[..., 8]`, see `correlation_moments`, summed over `count` frames; NaN
    where prediction or truth is constant. By the law of total covariance cov(p, t) =
    ⟨cov in a frame⟩ + ⟨p̄ t̄⟩ − ⟨p̄⟩⟨t̄⟩ with p̄, t̄ the means of a frame, which keeps
    the digits of weak contrast.
    """
    mean_p, mean_t, pp, tt, pt, *inside = np.moveaxis(
        np.asarray(moments, np.float64) / count, -1, 0
    )
    variances = []
    for mean, square, within in ((mean_p, pp, inside[0]), (mean_t, tt, inside[1])):
        variance = within + square - mean**2
        # Below this share of the mean square it is rounding noise of none.
        known = variance > 1e-6 * (square + within)
        variances.append(np.where(known, variance, 0.0))
    covariance = inside[2] + pt - mean_p * mean_t
    return ratio(covariance, np.sqrt(variances[0] * variances[1]))


@frame_metric(Metric("correlation", "Correlation", direction="higher", order=71,
    sums="correlation_moments", pool=pearson, convention=(
    "Pearson's correlation of prediction and truth over all pixels of a lead time "
    "(or of all lead times, or of a condition) together; of radar that of the rain "
    "rate, over the pixels with data; null where either is constant.")))  # fmt: skip
def correlation_moments(prediction: Video, target: Video) -> Float[Array, "B T 8"]:
    """Means of p and t, their squares and product; var(p), var(t), cov(p, t) inside."""
    prediction, target = matched_frames(prediction, target)
    mean_p, mean_t = (x.mean(_FRAME, keepdims=True) for x in (prediction, target))
    p, t = prediction - mean_p, target - mean_t
    inside = [x.mean(_FRAME) for x in (p * p, t * t, p * t)]
    mean_p, mean_t = (x.reshape(x.shape[:2]) for x in (mean_p, mean_t))
    means = [mean_p, mean_t, mean_p**2, mean_t**2, mean_p * mean_t]
    return jnp.stack([*means, *inside], axis=-1)


register(
    Metric("mse_per_pixel", "MSE", unit="mean over pixels", order=60, repeats="mse",
        derive=lambda means, pixels: float(means.mean()) / pixels, convention=(
        "Squared error averaged over pixels, channels, frames and samples; pixels in "
        "[0, 1].")),
    Metric("mae_per_pixel", "MAE", unit="mean over pixels", order=61, repeats="mae",
        derive=lambda means, pixels: float(means.mean()) / pixels, convention=(
        "Absolute error averaged over pixels, channels, frames and samples; pixels in "
        "[0, 1].")),
    Metric("cross_entropy_nats_per_frame", "Cross-entropy", unit="nats per frame",
        order=51, repeats="cross_entropy_nats",
        derive=lambda means, _: float(means.mean()), convention=(
        "The same metric as cross_entropy_nats, under the name that gives its unit.")),
    Metric("cross_entropy_nats_per_sequence", "Cross-entropy",
        unit="nats per sequence", order=52, repeats="cross_entropy_nats",
        derive=lambda means, _: float(means.sum()), convention=(
        "Cross-entropy in nats summed over the pixels, channels and predicted frames "
        "of a sequence, averaged over samples.")),
)  # fmt: skip
