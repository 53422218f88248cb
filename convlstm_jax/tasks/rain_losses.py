"""What training on rain minimises: only over pixels with data, heavy rain counts more.

@inproceedings{shi2017deep,
  title={Deep Learning for Precipitation Nowcasting: A Benchmark and A New Model},
  author={Shi, Xingjian and Gao, Zhihan and Lausen, Leonard and Wang, Hao and Yeung,
          Dit-Yan and Wong, Wai-kin and Woo, Wang-chun},
  booktitle={Advances in Neural Information Processing Systems},
  year={2017}
}
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax
from jax import Array

from convlstm_jax.tasks.losses import Forecast
from convlstm_jax.types import PerExample, Video

# From a rain rate on, mm/h, a pixel counts as much (arXiv:1706.03458, section 5.1).
HKO_WEIGHTS = ((2.0, 2.0), (5.0, 5.0), (10.0, 10.0), (30.0, 30.0))


def rain_weight(
    rain_mm_per_h: Array, weights: Sequence[tuple[float, float]] = HKO_WEIGHTS
) -> Array:
    """How much each pixel counts: 1, and from each rate on what goes with it."""
    weight = jnp.ones_like(rain_mm_per_h)
    for rate, value in weights:
        weight = jnp.where(rain_mm_per_h >= rate, value, weight)
    return weight


def masked_mean(values: Video, mask: Video, weight: Video | float = 1.0) -> PerExample:
    """Σ weight · values / pixels with data, of each clip; 0 where there are none.

    What stands in a pixel without data never counts, NaN included.
    """
    axes = tuple(range(1, values.ndim))
    total = jnp.where(mask > 0, weight * values, 0.0).sum(axes)
    return total / jnp.maximum((mask > 0).sum(axes), 1)


def squared(forecast: Forecast, target: Video) -> Video:
    """Squared error of every pixel."""
    return jnp.square(forecast.frames - target)


def absolute(forecast: Forecast, target: Video) -> Video:
    """Absolute error of every pixel."""
    return jnp.abs(forecast.frames - target)


def nats(forecast: Forecast, target: Video) -> Video:
    """Cross-entropy of every pixel, nats."""
    if forecast.logits is None:
        raise ValueError("cross-entropy of pixels needs a forecast with logits")
    return optax.sigmoid_binary_cross_entropy(forecast.logits, target)


# Name → error of a pixel, and whether it is weighted by the true rain. All are means
# over the pixels with data; B-MSE and B-MAE are those of Shi et al. 2017 but for that.
RAIN_LOSSES: dict[str, tuple[Callable[[Forecast, Video], Video], bool]] = {
    "cross_entropy": (nats, False),
    "mse": (squared, False),
    "mae": (absolute, False),
    "b_mse": (squared, True),
    "b_mae": (absolute, True),
}


def rain_loss(
    name: str, forecast: Forecast, target: Video, mask: Video, weight: Video
) -> PerExample:
    """The loss of each clip.

    Args:
      name: a key of `RAIN_LOSSES`.
      forecast: predicted pixels.
      target: true pixels `[B, T, H, W, C]`, in [0, 1].
      mask: 1 where there is data, of the same shape.
      weight: how much each pixel counts, of the same shape; the losses that are not
        weighted take no notice.
    """
    error, weighted = RAIN_LOSSES[name]
    return masked_mean(error(forecast, target), mask, weight if weighted else 1.0)
