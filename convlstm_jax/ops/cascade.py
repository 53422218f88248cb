"""How fields of rain go on in the moving frame: an autoregression of each scale.

This is the cascade of S-PROG (Seed 2003,
10.1175/1520-0450(2003)042<0381:ADASAF>2.0.CO;2) with the bands of length scales of
pysteps (Pulkkinen et al. 2019, 10.5194/gmd-12-4185-2019), here of the cosine transform,
which does not wrap around at the edges.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from convlstm_jax.types import Array, ForecastVideo, Video

WAVELENGTHS = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 192.0)
"""Of the middle of each band, in pixels; the first and the last band are open."""

_RATIO = 2.0  # Of the wavelengths of neighbouring bands.
_WIDTH = 0.5  # Standard deviation of a band, in steps of that ratio.
_LARGEST_CORRELATION = 0.9999

Bands = Float[Array, "N H W"]


def continued(frames: Video, num_frames: int) -> ForecastVideo:
    """What follows the last three frames, each band by its own autoregression.

    Each band of length scales has the correlations of a process of order 2 with itself
    one and two frames before, and goes on as that process does without noise: small
    scales fade soon, and the mean stays. Pixels without data must be 0, and count as
    dry.

    Args:
        frames: Pixels in the moving frame `[B, T, H, W, 1]`, of which three are used.
        num_frames: S.

    Returns:
        `[B, S, H, W, 1]`.
    """
    rows, columns = (_cosines(size) for size in frames.shape[2:4])
    weights = _bands(*frames.shape[2:4])
    spectrum = _transformed(frames[:, -3:, ..., 0], rows, columns)
    earlier, before, now = jnp.moveaxis(spectrum, 1, 0)
    first = _correlations(before, now, weights)
    second = _correlations(earlier, now, weights)
    of_now, of_before = (
        jnp.einsum("btn,nyx->btyx", share, weights)
        for share in autoregression(first, second, num_frames)
    )
    found = of_now * now[:, None] + of_before * before[:, None]
    found = found.at[..., 0, 0].set(now[:, None, 0, 0])
    return _transformed(found, rows.T, columns.T)[..., None]


def autoregression(
    first: Float[Array, "B M"], second: Float[Array, "B M"], num_steps: int
) -> tuple[Float[Array, "B T M"], Float[Array, "B T M"]]:
    """How a process of order 2 goes on: by the shares of its last two values.

    The process has these correlations with what it was one and two steps before (the
    equations of Yule and Walker). Where it would not be stationary, the second one is
    raised as in pysteps. Without noise, the value t steps ahead is the sum of the first
    result at t times the last value and of the second times the value before it.
    """
    square = first**2
    bound = (3 * square - 2 + 2 * (1 - square) ** 1.5) / jnp.maximum(square, 1e-6)
    bound = jnp.where(square > 0, bound, -1.0)
    second = jnp.maximum(second, jnp.maximum(2 * square - 1, bound))
    one = first * (1 - second) / (1 - square)
    two = (second - square) / (1 - square)

    def step(state: Any, _: None) -> tuple[Any, Any]:
        last, before = state
        following = jax.tree.map(lambda x, y: one * x + two * y, last, before)
        return (following, last), following

    zero, unit = jnp.zeros_like(one), jnp.ones_like(one)
    start = (unit, zero), (zero, unit)
    of_last, of_before = lax.scan(step, start, length=num_steps)[1]
    return jnp.moveaxis(of_last, 0, 1), jnp.moveaxis(of_before, 0, 1)


def _cosines(size: Any) -> Float[Array, "N N"]:
    """The matrix of the orthonormal cosine transform of a length (DCT-II)."""
    index = jnp.arange(size, dtype=jnp.float32)
    waves = jnp.cos(jnp.pi / size * index[:, None] * (index[None] + 0.5))
    return waves * jnp.sqrt(jnp.where(index[:, None] > 0, 2.0, 1.0) / size)


def _transformed(
    fields: Float[Array, "B T H W"],
    rows: Float[Array, "Y H"],
    columns: Float[Array, "X W"],
) -> Float[Array, "B T Y X"]:
    # One after the other: sizes may be symbolic, which no order could be found for.
    # In full precision on accelerators too, as correlations are close to 1.
    along = jnp.einsum("yh,bthw->btyw", rows, fields, precision="highest")
    return jnp.einsum("xw,btyw->btyx", columns, along, precision="highest")


def _bands(height: Any, width: Any) -> Bands:
    """The share of each coefficient of the transform in each band; they add up to 1."""
    y, x = (jnp.arange(n, dtype=jnp.float32) / (2 * n) for n in (height, width))
    per_pixel = jnp.hypot(y[:, None], x[None])[None]
    middles = jnp.asarray(WAVELENGTHS)[:, None, None]
    away = jnp.log(jnp.maximum(per_pixel, 1e-6) * middles) / jnp.log(_RATIO)
    away = away.at[0].min(0.0).at[-1].max(0.0)
    shares = jnp.exp(-((away / _WIDTH) ** 2) / 2)
    return shares / shares.sum(0, keepdims=True)


def _correlations(
    before: Float[Array, "B H W"], now: Float[Array, "B H W"], weights: Bands
) -> Float[Array, "B N"]:
    """Of each band of two spectra; where one is constant, 0."""
    squares = (weights**2).at[:, 0, 0].set(0.0)

    def product(a: Array, b: Array) -> Array:
        return jnp.einsum("nyx,byx->bn", squares, a * b, precision="highest")

    both = jnp.sqrt(product(before, before) * product(now, now))
    found = product(before, now) / jnp.maximum(both, 1e-9)
    return jnp.clip(found, 0.0, _LARGEST_CORRELATION)
