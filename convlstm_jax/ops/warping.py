"""Frames read at other positions, by bilinear interpolation."""

from collections.abc import Callable
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
    batch, height = flow.shape[:2]
    flow = flow.astype(jnp.promote_types(flow.dtype, jnp.float32))
    rows, columns = (
        lax.broadcasted_iota(flow.dtype, flow.shape[:-1], axis) for axis in (1, 2)
    )
    positions = flow + jnp.stack([columns, rows], axis=-1)
    read = jax.vmap(_read)(frames, positions.reshape(batch, height, -1, 2))
    return read.reshape(*flow.shape[:-1], frames.shape[-1])


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
def _read(
    frame: Float[Array, "H W C"], positions: Float[Array, "R N 2"]
) -> Float[Array, "R N C"]:
    """One frame at positions (x, y)."""
    pixels, stride = _with_border(frame)

    def read(_: None, places: _Places) -> tuple[None, Array]:
        corners = _corners(pixels, stride, places)
        a, b, c, d = (pixel * weight.astype(frame.dtype) for _, weight, pixel in corners)
        return None, a + b + c + d

    return _by_rows(read, None, _places(frame, positions))[1]


def _read_forward(frame: Array, positions: Array) -> Any:
    return _read(frame, positions), (frame, positions)


def _read_backward(saved: Any, gradient: Array) -> Any:
    frame, positions = saved
    height, width, channels = frame.shape
    pixels, stride = _with_border(frame)

    def pull_back(total: Array, row: Any) -> tuple[Array, Array]:
        places, gradient = row
        products = []
        for index, weight, pixel in _corners(pixels, stride, places):
            share = gradient * weight.astype(gradient.dtype)
            total = total.at[index].add(share, mode="promise_in_bounds")
            products.append(_lanes(pixel, gradient).astype(positions.dtype))
        a, b, c, d = products
        _, x, y, inside = places
        by_x = ((1 - y) * (b - a) + y * (d - c)).sum(-1)
        by_y = ((1 - x) * (c - a) + x * (d - b)).sum(-1)
        return total, jnp.stack([by_x, by_y], axis=-1) * inside

    rows = _places(frame, positions), gradient
    total, by_position = _by_rows(pull_back, jnp.zeros_like(pixels), rows)
    total = total.reshape(height + 2, width + 2, channels)[1:-1, 1:-1]
    return total, by_position


_read.defvjp(_read_forward, _read_backward)


def _by_rows(function: Callable[..., Any], total: Any, rows: Any) -> Any:
    """A function's total and results over positions; on a CPU over a row at a time.

    A row's work fits into a processor's cache; and XLA:CPU would compute places anew
    for each channel that is read there, did they not come from outside of a loop.
    """

    def in_loop(total: Any, rows: Any) -> Any:
        def step(index: Any, state: Any) -> Any:
            total, results = state
            row = jax.tree.map(
                lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), rows
            )
            total, result = function(total, row)
            return total, lax.dynamic_update_index_in_dim(results, result, index, 0)

        num_rows = jax.tree.leaves(rows)[0].shape[0]
        one_row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
        _, result = jax.eval_shape(function, total, one_row)
        results = jnp.zeros((num_rows, *result.shape), result.dtype)
        return lax.fori_loop(0, num_rows, step, (total, results))

    return lax.platform_dependent(total, rows, cpu=in_loop, default=function)


def _places(frame: Array, positions: Array) -> _Places:
    height, width, _ = frame.shape
    x, y = (positions[..., axis] for axis in (0, 1))
    column, row = jnp.floor(x), jnp.floor(y)
    inside = jnp.stack(
        [(column >= -1) & (column < width), (row >= -1) & (row < height)], axis=-1
    )
    column, row = jnp.clip(column, -1, width - 1), jnp.clip(row, -1, height - 1)
    x, y = (jnp.clip(d, 0, 1)[..., None] for d in (x - column, y - row))
    first = (row.astype(int) + 1) * (width + 2) + column.astype(int) + 1
    return _Places(first, x, y, inside)


def _with_border(frame: Array) -> tuple[Array, Any]:
    """All pixels and a border of zeros, `[P, C]`; how far apart those of a column are."""
    padded = jnp.pad(frame, ((1, 1), (1, 1), (0, 0)))
    return padded.reshape(-1, frame.shape[-1]), frame.shape[1] + 2


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
        pixel = pixels.at[index].get(mode="promise_in_bounds")
        found.append((index, weight, pixel))
    return found


def _lanes(pixel: Array, gradient: Array) -> Array:
    """Products summed over channels as far as registers are wide.

    XLA:CPU adds up the rest, one after another.
    """
    channels = pixel.shape[-1]
    width = channels if channels % _LANES else _LANES
    parts = [slice(start, start + width) for start in range(0, channels, width)]
    products = [pixel[..., part] * gradient[..., part] for part in parts]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return total
