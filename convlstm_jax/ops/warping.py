"""Frames read at other positions, by bilinear interpolation."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

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
    flow = flow.astype(jnp.promote_types(flow.dtype, jnp.float32))
    return read_at(frames, flow + pixel_positions(flow))


def pixel_positions(like: Float[Array, "B H W *L 2"]) -> Float[Array, "B H W *L 2"]:
    """The position (x, y) of every pixel, in the shape and dtype of an array."""
    axes = (2, 1)
    iotas = [lax.broadcasted_iota(like.dtype, like.shape[:-1], axis) for axis in axes]
    return jnp.stack(iotas, axis=-1)


def read_at(
    frames: Frame, positions: Float[Array, "B R S *L 2"]
) -> Float[Array, "B R S *L C"]:
    """Frames `[B, H, W, C]` at positions (x, y) in pixels, see `warp`."""
    batch, rows = positions.shape[:2]
    read = _read(frames, positions.reshape(batch, rows, -1, 2))
    return read.reshape(*positions.shape[:-1], frames.shape[-1])


_Rows = tuple[Any, ...]
"""Trees of arrays `[B, R, N, …]` for R rows of N positions."""


class _Places(NamedTuple):
    """Where positions are among the pixels.

    Attributes:
        first: Index of the pixel above and to the left, see `_with_border`.
        x: Distance to the right of it, `[..., 1]`.
        y: Distance below it, `[..., 1]`.
        inside: Whether x, y are not cut off at the border, `[..., 2]`.
    """

    first: Array
    x: Array
    y: Array
    inside: Array


@jax.custom_vjp
def _read(frames: Frame, positions: Float[Array, "B R N 2"]) -> Float[Array, "B R N C"]:
    """Frames at positions (x, y)."""
    pixels, stride = _with_border(frames)

    def read(_: None, rows: _Rows) -> tuple[None, Array]:
        (places,) = rows
        corners = _corners(pixels, stride, places)
        a, b, c, d = (
            pixel * weight.astype(pixel.dtype) for _, weight, pixel in corners
        )
        return None, a + b + c + d

    return _by_rows(read, None, (_places(frames, positions),))[1]


def _read_forward(frames: Array, positions: Array) -> Any:
    return _read(frames, positions), (frames, positions)


def _read_backward(saved: Any, gradient: Array) -> Any:
    frames, positions = saved
    batch, height, width, channels = frames.shape
    pixels, stride = _with_border(frames)

    def pull_back(total: Array, rows: _Rows) -> tuple[Array, Array]:
        (_, x, y, inside), gradient = rows
        products = []
        for index, weight, pixel in _corners(pixels, stride, rows[0]):
            total = _add_at(total, index, gradient * weight.astype(gradient.dtype))
            products.append(_lanes(pixel.astype(x.dtype), gradient.astype(x.dtype)))
        a, b, c, d = products
        by_x = ((1 - y) * (b - a) + y * (d - c)).sum(-1)
        by_y = ((1 - x) * (c - a) + x * (d - b)).sum(-1)
        return total, jnp.stack([by_x, by_y], axis=-1) * inside.astype(by_x.dtype)

    rows = _places(frames, positions), gradient
    total, by_position = _by_rows(pull_back, jnp.zeros_like(pixels), rows)
    total = total.reshape(batch, height + 2, width + 2, channels)
    return total[:, 1:-1, 1:-1], by_position


_read.defvjp(_read_forward, _read_backward)


def _by_rows(function: Callable[..., Any], total: Any, rows: _Rows) -> Any:
    """A function's total and results of all rows; on a CPU it gets one at a time.

    A row's work fits into a processor's cache; and XLA:CPU would compute places anew
    for each channel that is read there, did they not come from outside of a loop.
    """

    def in_loop(total: Any, rows: _Rows) -> Any:
        def step(index: Any, state: Any) -> Any:
            total, results = state
            row = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index, 1, 1), rows)
            total, result = function(total, row)
            return total, lax.dynamic_update_slice_in_dim(results, result, index, 1)

        like = jax.eval_shape(function, total, rows)[1]
        results = jnp.zeros(like.shape, like.dtype)
        return lax.fori_loop(0, like.shape[1], step, (total, results))

    return lax.platform_dependent(total, rows, cpu=in_loop, default=function)


def _places(frames: Array, positions: Array) -> _Places:
    """Cut off at the border, where pixels are zero."""
    _, height, width, _ = frames.shape
    x, y = (positions[..., axis] for axis in (0, 1))
    column, row = jnp.floor(x), jnp.floor(y)
    inside = jnp.stack(
        [(column >= -1) & (column < width), (row >= -1) & (row < height)], axis=-1
    )
    column, row = jnp.clip(column, -1, width - 1), jnp.clip(row, -1, height - 1)
    x, y = (jnp.clip(d, 0, 1)[..., None] for d in (x - column, y - row))
    first = (row.astype(int) + 1) * (width + 2) + column.astype(int) + 1
    return _Places(first, x, y, inside)


def _with_border(frames: Array) -> tuple[Array, Any]:
    """Pixels and a border of zeros, `[B, P, C]`; and how many there are in a row."""
    padded = jnp.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)))
    batch, _, stride, channels = padded.shape
    return padded.reshape(batch, -1, channels), stride


@jax.vmap
def _at(pixels: Array, index: Array) -> Array:
    return pixels.at[index].get(mode="promise_in_bounds")


@jax.vmap
def _add_at(pixels: Array, index: Array, more: Array) -> Array:
    return pixels.at[index].add(more, mode="promise_in_bounds")


def _corners(pixels: Array, stride: Any, places: _Places) -> list[Any]:
    """(index, weight, pixel) around each position, from left to right, then down."""
    first, x, y, _ = places
    found = []
    for offset, weight in (
        (0, (1 - y) * (1 - x)),
        (1, (1 - y) * x),
        (stride, y * (1 - x)),
        (stride + 1, y * x),
    ):
        index = first + offset
        found.append((index, weight, _at(pixels, index)))
    return found


def _lanes(pixel: Array, gradient: Array) -> Array:
    """Products, summed over channels as far as registers are wide.

    XLA:CPU adds up one after another, which is slow, what is left for it to sum.
    """
    channels = pixel.shape[-1]
    width = channels if channels % _LANES else _LANES
    parts = [slice(start, start + width) for start in range(0, channels, width)]
    return reduce(operator.add, (pixel[..., p] * gradient[..., p] for p in parts))
