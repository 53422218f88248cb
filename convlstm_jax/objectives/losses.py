"""Losses: one number per clip; the caller averages over clips.

Radar losses count only pixels with data. B-MSE and B-MAE give heavy rain more
weight (Shi et al. 2017, arXiv:1706.03458, section 5.1).
"""

import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax
from jax import Array

from convlstm_jax.errors import UserError
from convlstm_jax.metrics.pixel import (
    absolute_error,
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
    squared_error,
)
from convlstm_jax.models.network import Forecast
from convlstm_jax.types import PerExample, Video

FRAME_LOSSES = ("cross_entropy", "mse", "mae", "mse_sum", "huber")

# Where the Huber loss turns from squared to absolute errors, of pixels in [0, 1].
HUBER_DELTA = 0.1

OwnLoss = Callable[[Video, Video], Array]
"""(prediction, target), `[B, T, H, W, C]` each, to one number or one for each clip."""


def frame_loss(loss: str | OwnLoss, forecast: Forecast, target: Video) -> PerExample:
    """The average over frames of cross-entropy, nats, or of errors; or a loss of yours.

    "cross_entropy" and "mse_sum" are summed over the pixels of a frame, "mse", "mae"
    and "huber" are means over them.

    Args:
        loss: One of `FRAME_LOSSES`, `MODULE:FUNCTION` or a function, see `OwnLoss`.
        forecast: What the network predicts.
        target: What was to be predicted.

    Raises:
        UserError: There is no such function.
    """
    if callable(loss) or ":" in loss:
        own = loss if callable(loss) else own_loss(loss)
        return jnp.broadcast_to(own(forecast.frames, target), target.shape[:1])
    if loss == "cross_entropy" and forecast.logits is not None:
        return cross_entropy_from_logits(forecast.logits, target).mean(axis=1)
    if loss == "cross_entropy":
        return cross_entropy_from_probabilities(forecast.frames, target).mean(axis=1)
    if loss == "huber":
        error = optax.huber_loss(forecast.frames, target, delta=HUBER_DELTA)
        return error.mean(axis=tuple(range(1, error.ndim)))
    error_of = absolute_error if loss == "mae" else squared_error
    summed = error_of(forecast.frames, target).mean(axis=1)
    return summed if loss == "mse_sum" else summed / math.prod(target.shape[2:])


def own_loss(name: str) -> OwnLoss:
    """The function `MODULE:FUNCTION`; modules of the current folder are found too."""
    module, _, function = name.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"it cannot be imported ({error})") from error
    if not callable(found):
        raise UserError(f"it must be a function, not {found!r}")
    return found


def rain_weight(
    rain_mm_per_h: Array, rates: Sequence[float], weights: Sequence[float]
) -> Array:
    """The weight of each pixel: that of the highest rate reached, below all rates 1."""
    weight = jnp.ones_like(rain_mm_per_h)
    for rate, value in zip(rates, weights, strict=True):
        weight = jnp.where(rain_mm_per_h >= rate, value, weight)
    return weight


def _pixel_cross_entropy(forecast: Forecast, target: Video) -> Video:
    logits = forecast.logits
    if logits is None:
        frames = jnp.clip(forecast.frames, 1e-6, 1 - 1e-6)
        logits = jnp.log(frames) - jnp.log1p(-frames)
    return optax.sigmoid_binary_cross_entropy(logits, target)


_PIXEL_ERRORS: dict[str, Callable[[Forecast, Video], Video]] = {
    "cross_entropy": _pixel_cross_entropy,
    "mse": lambda forecast, target: jnp.square(forecast.frames - target),
    "mae": lambda forecast, target: jnp.abs(forecast.frames - target),
}


def rain_loss(
    name: str, forecast: Forecast, target: Video, mask: Video, weight: Video
) -> PerExample:
    """Σ weight · error / (pixels with data) of each clip; 0 if there are none.

    Pixels count where the mask is 1; only the B-losses use the weight.
    """
    error = _PIXEL_ERRORS[name.removeprefix("b_")](forecast, target)
    if name.startswith("b_"):
        error = weight * error
    return masked_mean(error, mask)


def masked_mean(error: Video, mask: Video) -> PerExample:
    """The mean of a clip over the pixels where the mask is 1; 0 if there are none."""
    axes = tuple(range(1, error.ndim))
    total = jnp.where(mask > 0, error, 0.0).sum(axes)
    return total / jnp.maximum((mask > 0).sum(axes), 1)
