"""Errors of single pixels, gathered over a frame, and pixels as probabilities."""

from typing import Any

import jax.numpy as jnp

from convlstm_jax.metrics.registry import (
    Metric,
    frame_metric,
    matched_frames,
    register,
)
from convlstm_jax.types import PerFrame, Video

MIN_MEAN_SQUARED_ERROR = 1e-10
"""Floor of the mean squared error inside `psnr_db`: 100 dB."""

_FRAME = (2, 3, 4)


@frame_metric(Metric("mse", "MSE", unit="summed over a frame", order=10, convention=(
    "Squared error summed over the pixels and channels of a frame, averaged over "
    "frames and samples; pixels in [0, 1].")))  # fmt: skip
def squared_error(prediction: Video, target: Video) -> PerFrame:
    """Squared error summed over the pixels and channels of each frame, `[B, T]`.

    Its mean over frames and samples is the "MSE" of the Moving MNIST literature
    (Srivastava et al. 2015, arXiv:1502.04681; OpenSTL), H·W·C times the mean over
    pixels. Clips are `[B, T, H, W, C]` in [0, 1], here and below; `matched_frames`
    refuses those that cannot be compared.
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
    "Peak signal-to-noise ratio in dB of each frame for data range 1, at most 100 "
    "dB (identical frames), averaged over frames and samples.")))  # fmt: skip
def psnr_db(prediction: Video, target: Video) -> PerFrame:
    """Peak signal-to-noise ratio of each frame, dB, for pixels in [0, 1], `[B, T]`.

    `-10 log10(m)` with m the mean squared error over the pixels and channels of the
    frame. m is floored at 1e-10, so that identical frames give 100 dB and an average
    over frames stays finite (OpenSTL's is infinite there).
    """
    prediction, target = matched_frames(prediction, target)
    mean_squared_error = jnp.mean(jnp.square(prediction - target), axis=_FRAME)
    return -10.0 * jnp.log10(jnp.maximum(mean_squared_error, MIN_MEAN_SQUARED_ERROR))


def cross_entropy_from_logits(logits: Video, target: Video) -> PerFrame:
    """Cross-entropy of each frame from logits, nats, exact at any magnitude, `[B, T]`.

    With p = sigmoid(l), the term of a pixel is max(l, 0) − l t + log(1 + exp(−|l|)),
    which neither overflows nor takes the logarithm of a rounded 0.
    """
    logits, target = matched_frames(logits, target, name="logits")
    nats = (
        jnp.maximum(logits, 0.0)
        - logits * target
        + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    )
    return jnp.sum(nats, axis=_FRAME)


@frame_metric(Metric("cross_entropy_nats", "Cross-entropy", unit="nats per frame",
    order=50, from_logits=cross_entropy_from_logits, convention=(
    "Cross-entropy in nats summed over the pixels and channels of a frame, "
    "averaged over frames and samples; from logits where the model has them, else "
    "from pixels clipped to [1e-6, 1 - 1e-6].")))  # fmt: skip
def cross_entropy_from_probabilities(
    prediction: Video, target: Video, epsilon: float = 1e-6
) -> PerFrame:
    """Cross-entropy of each frame from pixels, for predictions without logits.

    −Σ t log p + (1 − t) log(1 − p) over the pixels of a frame, as in Shi et al. 2015
    (arXiv:1506.04214, section 4.1) and Srivastava et al. 2015 (arXiv:1502.04681,
    section 3.2). Targets are grey values and need not be 0 or 1; then the smallest
    possible value is the target's own entropy, not 0.

    The prediction is clipped to [epsilon, 1 − epsilon] first: a baseline such as the
    copied last frame holds exact zeros and ones, whose cross-entropy would be
    infinite. The metric therefore depends on epsilon: a pixel that is wrong for certain
    costs −log(epsilon), 13.8 nats at 1e-6.
    """
    prediction, target = matched_frames(prediction, target)
    probability = jnp.clip(prediction, epsilon, 1.0 - epsilon)
    nats = -target * jnp.log(probability) - (1.0 - target) * jnp.log1p(-probability)
    return jnp.sum(nats, axis=_FRAME)


def _mean_over_pixels(means: Any, values_per_frame: int) -> float:
    return float(means.mean()) / values_per_frame


register(
    Metric("mse_per_pixel", "MSE", unit="mean over pixels", order=60, repeats="mse",
        derive=_mean_over_pixels, convention=(
        "Squared error averaged over pixels, channels, frames and samples; pixels in "
        "[0, 1].")),
    Metric("mae_per_pixel", "MAE", unit="mean over pixels", order=61, repeats="mae",
        derive=_mean_over_pixels, convention=(
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
