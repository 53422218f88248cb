"""Frames read at other positions, by bilinear interpolation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from convlstm_jax.types import Array, Frame

# How many channels are summed up side by side, as many as fit wide registers.
_LANES = 16


def warp(frames: Frame, flow: Float[Array, "B H W *L 2"]) -> Float[Array, "B H W *L C"]:
    """Reads each pixel at another position: out[y, x] = frames[y + v, x + u].

    Between pixels it interpolates bilinearly; outside of a frame all is zero. This is
    PyTorch's `grid_sample` with zero padding and `align_corners=True`. To move what a
    frame shows along a flow, give −flow: a pixel reads where its content comes from.

    Args:
        frames: `[B, H, W, C]`.
        flow: (u, v) of every pixel, in pixels to the right and down, `[B, H, W, 2]`;
            or L of them, `[B, H, W, L, 2]`. Positions are float32 at least.

    Returns:
        `[B, H, W, C]` or `[B, H, W, L, C]` in the dtype of the frames, NaN where the
        flow is. It is differentiable by both arguments; where a position is a whole
        number, by the flow from the right or from below.
    """
    batch, height = flow.shape[:2]
    flow = flow.astype(jnp.promote_types(flow.dtype, jnp.float32))
    rows, columns = (
        lax.broadcasted_iota(flow.dtype, flow.shape[:-1], axis) for axis in (1, 2)
    )
    positions = flow + jnp.stack([columns, rows], axis=-1)
    # Row by row, which is how the backward pass on a CPU goes through them.
    read = jax.vmap(_read)(frames, positions.reshape(batch, height, -1, 2))
    return read.reshape(*flow.shape[:-1], frames.shape[-1])


@jax.custom_vjp
def _read(
    frame: Float[Array, "H W C"], positions: Float[Array, "R N 2"]
) -> Float[Array, "R N C"]:
    """One frame at positions (x, y)."""
    pixels, (indices, x, y, _) = _with_border(frame), _around(frame, positions)
    x, y = x.astype(frame.dtype), y.astype(frame.dtype)
    a, b, c, d = (_at(pixels, index) for index in indices)
    return a * ((1 - y) * (1 - x)) + b * ((1 - y) * x) + c * (y * (1 - x)) + d * (y * x)


def _read_forward(frame: Array, positions: Array) -> Any:
    return _read(frame, positions), (frame, positions)


def _read_backward(saved: Any, gradient: Array) -> Any:
    return lax.platform_dependent(
        *saved, gradient, cpu=_gradients_by_rows, default=_gradients
    )


_read.defvjp(_read_forward, _read_backward)


def _gradients(frame: Array, positions: Array, gradient: Array) -> tuple[Array, Array]:
    """The gradients of frame and positions."""
    total, found = _add_gradients(
        frame, jnp.zeros_like(_with_border(frame)), positions, gradient
    )
    return _without_border(total, frame), found


def _gradients_by_rows(
    frame: Array, positions: Array, gradient: Array
) -> tuple[Array, Array]:
    """`_gradients`, of which a row at a time fits into a processor's cache."""

    def add_row(total: Array, row: Array) -> tuple[Array, Array]:
        take = partial(lax.dynamic_index_in_dim, index=row, keepdims=False)
        return _add_gradients(frame, total, take(positions), take(gradient))

    total, found = lax.scan(
        add_row, jnp.zeros_like(_with_border(frame)), jnp.arange(positions.shape[0])
    )
    return _without_border(total, frame), found


def _add_gradients(
    frame: Array, total: Array, positions: Array, gradient: Array
) -> tuple[Array, Array]:
    """Adds to the gradient of the pixels; returns it and the positions' gradient."""
    dtype = positions.dtype
    pixels, (indices, x, y, inside) = _with_border(frame), _around(frame, positions)
    weights = (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x
    products = []
    for index, weight in zip(indices, weights, strict=True):
        share = gradient * weight.astype(gradient.dtype)
        total = total.at[index].add(share, mode="promise_in_bounds")
        products.append(
            _lanes(_at(pixels, index).astype(dtype) * gradient.astype(dtype))
        )
    a, b, c, d = products
    by_x = ((1 - y) * (b - a) + y * (d - c)).sum(-1)
    by_y = ((1 - x) * (c - a) + x * (d - b)).sum(-1)
    return total, jnp.stack([by_x, by_y], axis=-1) * inside


def _around(frame: Array, positions: Array) -> tuple[list[Array], Array, Array, Array]:
    """The four pixels around each position, and where between them it is.

    Returns their indices among those of `_with_border`, from left to right and from top
    to bottom; the distances x and y from the first, `[..., 1]`; and which coordinates
    are within the border, `[..., 2]`.
    """
    height, width, _ = frame.shape
    x, y = (positions[..., axis] for axis in (0, 1))
    column, row = jnp.floor(x), jnp.floor(y)
    inside = jnp.stack(
        [(column >= -1) & (column < width), (row >= -1) & (row < height)], axis=-1
    )
    column, row = jnp.clip(column, -1, width - 1), jnp.clip(row, -1, height - 1)
    x, y = (jnp.clip(d, 0, 1)[..., None] for d in (x - column, y - row))
    first = (row.astype(int) + 1) * (width + 2) + column.astype(int) + 1
    return [first + offset for offset in (0, 1, width + 2, width + 3)], x, y, inside


def _with_border(frame: Array) -> Array:
    """All pixels, and one of zeros around them, `[P, C]`."""
    padded = jnp.pad(frame, ((1, 1), (1, 1), (0, 0)))
    return padded.reshape(-1, frame.shape[-1])


def _without_border(pixels: Array, frame: Array) -> Array:
    height, width, channels = frame.shape
    return pixels.reshape(height + 2, width + 2, channels)[1:-1, 1:-1]


def _at(pixels: Array, index: Array) -> Array:
    return pixels.at[index].get(mode="promise_in_bounds")


def _lanes(products: Array) -> Array:
    """Sums over channels as far as registers are wide: XLA:CPU sums one by one."""
    channels = products.shape[-1]
    if channels % _LANES:
        return products
    starts = range(0, channels, _LANES)
    return sum(products[..., start : start + _LANES] for start in starts)
