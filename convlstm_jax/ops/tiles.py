"""Functions of large frames, computed window by window to save memory."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from convlstm_jax.ops.engine import Tree
from convlstm_jax.types import Array


def by_tiles(
    function: Callable[..., Tree],
    *arrays: Array,
    overlap: int | None,
    multiple: int = 1,
    side: int = 512,
) -> Tree:
    """`function` of arrays `[B, T, H, W, C]`, computed tile by tile.

    A tile is computed from a window with `overlap` more pixels at each side, but none
    beyond the edge of the frames. So where a value depends on pixels at most `overlap`
    away, it is that of the whole frames, to rounding. Height and width are cut into
    equal tiles of at most `side` pixels. Frames that fit into a window, those of
    symbolic size, and all with an overlap of `None` are computed as a whole.

    Args:
        function: From arrays to a tree of arrays, all of the same height and width.
        arrays: Whose height and width `multiple` divides.
        overlap: In pixels.
        multiple: What shall divide the sides of all windows and where they begin; it
            must divide the overlap.
        side: Of a tile at most, in pixels.
    """
    sizes = arrays[0].shape[2:4]
    if overlap is None or not all(isinstance(size, int) for size in sizes):
        return function(*arrays)
    rows, columns = (_cut(size, side, overlap, multiple) for size in sizes)
    if len(rows.tiles) == len(columns.tiles) == 1:
        return function(*arrays)
    places = jnp.array(
        [
            (tile_y, tile_x, window_y, window_x)
            for tile_y, window_y in zip(rows.tiles, rows.windows, strict=True)
            for tile_x, window_x in zip(columns.tiles, columns.windows, strict=True)
        ]
    )

    def window_of(array: Array, y: Any, x: Any, height: int, width: int) -> Array:
        size = (*array.shape[:2], height, width, array.shape[4])
        return lax.dynamic_slice(array, (0, 0, y, x, 0), size)

    def add(found: Tree, place: Array) -> tuple[Tree, None]:
        tile_y, tile_x, window_y, window_x = place
        windows = (
            window_of(array, window_y, window_x, rows.window, columns.window)
            for array in arrays
        )

        def put(whole: Array, window: Array) -> Array:
            y, x = tile_y - window_y, tile_x - window_x
            tile = window_of(window, y, x, rows.tile, columns.tile)
            return lax.dynamic_update_slice(whole, tile, (0, 0, tile_y, tile_x, 0))

        return jax.tree.map(put, found, function(*windows)), None

    shapes = jax.eval_shape(function, *arrays)
    empty = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    return lax.scan(add, empty, places)[0]


class _Cut(NamedTuple):
    """A side of frames cut into tiles, and where tiles and their windows begin."""

    tile: int
    window: int
    tiles: list[int]
    windows: list[int]


def _cut(size: int, side: int, overlap: int, multiple: int) -> _Cut:
    count = 1 if size <= side + 2 * overlap else math.ceil(size / side)
    tile = math.ceil(size / count / multiple) * multiple
    window = min(tile + 2 * overlap, size)
    tiles = [min(index * tile, size - tile) for index in range(count)]
    windows = [min(max(start - overlap, 0), size - window) for start in tiles]
    return _Cut(tile, window, tiles, windows)
