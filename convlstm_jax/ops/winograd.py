"""Convolutions as products of few, larger matrices, by Winograd's algorithm.

A. Lavin and S. Gray, 2015, arXiv:1509.09308, after Toom and Cook. A frame is cut into
tiles of m×m output pixels; each reads (m+K−1)² input pixels. With n = m+K−1 and
matrices A (m×n), G (n×K) and B (n×n) that depend on m and K alone, a tile d of one
channel and a kernel g give

    y = A [(G g Gᵀ) ∘ (B d Bᵀ)] Aᵀ,

so that each of the n² elements in brackets is one matrix product over all tiles: n²
multiplications for m² outputs instead of m²·K² (36 instead of 144 for K = 3, m = 4).

Every transform has its adjoint here, so that a backward pass stays among the tiles.
One of the n rows of products is computed at a time, to fit into a processor's cache.

In float32 results differ from the exact ones by about 2e-6 of their norm (a direct
convolution's by 2e-7), in float64 by 1e-14.
"""

import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from convlstm_jax.types import Array, Frame, OutputFrame

# Where the polynomials behind the algorithm are evaluated, besides at infinity. Of the
# sets of small numbers these give the least rounding error.
_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, -0.5)}

TileKernels = Float[Array, "N N C D"]

# One row of n elements of all tiles, R rows and S columns of them.
_Tiles = Float[Array, "N B R S C"]
_Products = Float[Array, "N B R S D"]


class Winograd(NamedTuple):
    """The algorithm for frames of one size, odd kernels and tiles of m×m pixels."""

    tile_size: int
    kernel_size: int
    height: int
    width: int

    @property
    def num_points(self) -> int:
        """n, elements of a transformed tile along each axis."""
        return self.tile_size + self.kernel_size - 1

    @property
    def rows(self) -> int:
        """Tiles from top to bottom; the last may hang over."""
        return -(-self.height // self.tile_size)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // self.tile_size)

    @property
    def num_tiles(self) -> int:
        """Tiles of one frame."""
        return self.rows * self.columns

    @property
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A `[m, n]` (to outputs), G `[n, K]` (of weights), B `[n, n]` (of inputs)."""
        return _cook_toom(self.tile_size, self.kernel_size)


def winograd_for(
    kernel_shape: Sequence[int], frame_shape: Sequence[Any], dtype: Any
) -> Winograd | None:
    """The algorithm that is faster on a CPU than the direct convolution, if one is.

    Shapes are `(K, K, C, D)` and `(B, H, W, ...)`; a symbolic B (exported programs)
    counts as 1. `None` for kernels other than 3×3 and 5×5 (larger rounding errors or
    little gain), fewer than 16 channels or 64 tiles (the matrices are too small),
    dtypes of less than 32 bits, and symbolic H and W.
    """
    kernel_height, kernel_width, channels, outputs = kernel_shape
    batch, height, width = frame_shape[:3]
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    if kernel_height != kernel_width or kernel_height not in (3, 5):
        return None
    if jnp.dtype(dtype).itemsize < 4 or min(channels, outputs) < 16:
        return None
    batch = batch if isinstance(batch, int) else 1
    small, large = (Winograd(size, kernel_height, height, width) for size in (2, 4))
    if batch * small.num_tiles < 64:
        return None
    return large if kernel_height == 3 and batch * large.num_tiles >= 256 else small


def transform_kernel(
    algorithm: Winograd, kernel: Float[Array, "K K C D"]
) -> TileKernels:
    """G g Gᵀ."""
    return _transform_both(algorithm.matrices[1], kernel)


def transform_kernel_adjoint(
    algorithm: Winograd, gradients: TileKernels
) -> Float[Array, "K K C D"]:
    """The kernel's gradient from that of its transform."""
    return _transform_both(algorithm.matrices[1].T, gradients)


def convolve(algorithm: Winograd, frames: Frame, kernels: TileKernels) -> OutputFrame:
    """`same_convolution` with a kernel that is transformed already."""
    m, (a, _, b) = algorithm.tile_size, algorithm.matrices
    lines = _lines(algorithm, frames, algorithm.kernel_size // 2, algorithm.num_points)

    def add_row(pixels: Any, row: Any) -> Any:
        a_p, b_p, kernels_p = row
        products = _multiply(_transform_row(algorithm, lines, b_p, b), kernels_p)
        # Where a coefficient is multiplied along an axis of its own, XLA:CPU makes one
        # pass of it all; pixels that are stacked would be another.
        by_column = _sum(
            jnp.asarray(a[:, q], frames.dtype).reshape(1, 1, 1, 1, m, 1)
            * product[:, :, None, :, None]
            for q, product in enumerate(products)
        )
        return pixels + a_p.reshape(1, 1, m, 1, 1, 1) * by_column, None

    shape = (algorithm.rows, m, algorithm.columns, m, kernels.shape[-1])
    pixels = jnp.zeros((frames.shape[0], *shape), frames.dtype)
    rows = (jnp.asarray(a.T, frames.dtype), jnp.asarray(b, frames.dtype), kernels)
    pixels, _ = lax.scan(add_row, pixels, rows)
    return _crop(algorithm, pixels)


def convolve_gradients(
    algorithm: Winograd,
    totals: TileKernels,
    frames: Frame,
    kernels: TileKernels,
    gradient: OutputFrame,
) -> tuple[TileKernels, Frame]:
    """The adjoint of `convolve`, given the gradient of its result.

    Returns the totals with the kernels' gradient added, and the gradient of the frames.
    """
    a, _, b = algorithm.matrices
    lines = _lines(algorithm, frames, algorithm.kernel_size // 2, algorithm.num_points)
    gradient_lines = _lines(algorithm, gradient, 0, algorithm.tile_size)

    def add_row(totals: Any, row: Any) -> Any:
        p, a_p, b_p, kernels_p = row
        products = _transform_row(algorithm, gradient_lines, a_p, a.T)
        read = _multiply(products, jnp.swapaxes(kernels_p, 1, 2))
        pixels = jnp.stack(_overlap(algorithm, read, axis=2), axis=3)
        tiles = _transform_row(algorithm, lines, b_p, b)
        return _add_products(totals, p, tiles, products), pixels

    a_rows, b_rows = (jnp.asarray(x, gradient.dtype) for x in (a.T, b))
    rows = (jnp.arange(algorithm.num_points), a_rows, b_rows, kernels)
    totals, pixels = lax.scan(add_row, totals, rows)
    pixels = jnp.stack(_overlap(algorithm, pixels, axis=1), axis=2)
    return totals, _crop(algorithm, pixels)


def _lines(algorithm: Winograd, frames: Frame, before: int, size: int) -> list[Array]:
    """Line y of all rows of tiles, for each of the `size` lines that they read.

    Tiles begin `before` pixels before their own. Frames are padded with zeros.
    """
    m = algorithm.tile_size
    below = (algorithm.rows - 1) * m + size - before - algorithm.height
    right = (algorithm.columns - 1) * m + size - before - algorithm.width
    padded = jnp.pad(frames, ((0, 0), (before, below), (before, right), (0, 0)))
    stop = (algorithm.rows - 1) * m + 1
    return [padded[:, y : y + stop : m] for y in range(size)]


def _transform_row(
    algorithm: Winograd, lines: Sequence[Array], row: Array, matrix: np.ndarray
) -> _Tiles:
    """One row of matrix · tile · matrixᵀ; `row` is that row of the matrix."""
    m = algorithm.tile_size
    line = _sum(c * x for c, x in zip(row, lines, strict=True))
    stop = (algorithm.columns - 1) * m + 1
    columns = [line[:, :, x : x + stop : m] for x in range(len(lines))]
    return jnp.stack(_transform(matrix, columns))


def _overlap(
    algorithm: Winograd, elements: Sequence[Array] | Array, axis: int
) -> list[Array]:
    """Sums what neighbouring tiles add to the m pixels of each, along an axis."""
    m, before = algorithm.tile_size, algorithm.kernel_size // 2
    given = _transform(algorithm.matrices[2].T, elements)
    return [
        _sum(
            _shift(given[x], (x - before) // m, axis)
            for x in range(algorithm.num_points)
            if (x - before) % m == pixel
        )
        for pixel in range(m)
    ]


def _multiply(tiles: _Tiles, kernels: Float[Array, "N C D"]) -> _Products:
    """One row of the products in brackets."""
    products = tiles.reshape(len(tiles), -1, tiles.shape[-1]) @ kernels
    return products.reshape(*tiles.shape[:-1], kernels.shape[-1])


def _add_products(
    totals: TileKernels, p: Array, tiles: _Tiles, products: _Products
) -> TileKernels:
    """Adds the kernels' gradients from those of their products to row p of totals."""
    total = lax.dynamic_index_in_dim(totals, p, keepdims=False)
    inputs, outputs = (x.reshape(len(x), -1, x.shape[-1]) for x in (tiles, products))
    total = total + jnp.swapaxes(inputs, 1, 2) @ outputs
    return lax.dynamic_update_index_in_dim(totals, total, p, 0)


def _crop(algorithm: Winograd, pixels: Float[Array, "B R M S M C"]) -> Frame:
    """The m×m pixels of all tiles as frames."""
    batch, rows, m, columns, _, channels = pixels.shape
    frames = pixels.reshape(batch, rows * m, columns * m, channels)
    return frames[:, : algorithm.height, : algorithm.width]


def _transform_both(matrix: np.ndarray, elements: Array) -> Array:
    """Matrix · elements · matrixᵀ, over the two leading axes of `[X, X, …]`."""
    rows = jnp.stack(_transform(matrix, elements))
    return jnp.stack(_transform(matrix, jnp.moveaxis(rows, 1, 0)), axis=1)


def _transform(matrix: np.ndarray, elements: Sequence[Array] | Array) -> list[Array]:
    """For each row of a matrix Σ coefficient · element, where that is not 0."""
    found = []
    for row in matrix:
        total: Any = None
        for c, x in zip(row, elements, strict=True):
            if c == 0:
                continue
            if abs(c) != 1:
                x = float(abs(c)) * x
            # Adding a negated term would be one operation more.
            if total is None:
                total = -x if c < 0 else x
            else:
                total = total - x if c < 0 else total + x
        found.append(total)
    return found


def _sum(terms: Iterable[Array]) -> Array:
    """Σ of at least one term."""
    return reduce(operator.add, terms)


def _shift(tiles: Array, distance: int, axis: int) -> Array:
    """Moves tiles along an axis; those that leave the frame read its padding."""
    if distance == 0:
        return tiles
    config = [(0, 0, 0)] * tiles.ndim
    config[axis] = (distance, -distance, 0)
    return lax.pad(tiles, jnp.zeros((), tiles.dtype), config)


@lru_cache
def _cook_toom(m: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, G and B for m outputs and r weights; n must be 4 or 6.

    A correlation's adjoint multiplies two polynomials of m and r coefficients. It does
    so by their values at n − 1 points and at infinity (rows of A and G), from which
    Lagrange's polynomials (rows of B) give the product's coefficients.
    """
    points = np.array(_POINTS[m + r - 1], np.float64)
    a, g = (
        np.vstack([np.vander(points, count, increasing=True), np.eye(count)[-1:]])
        for count in (m, r)
    )
    b = np.zeros((m + r - 1, m + r - 1))
    for index, point in enumerate(points):
        others = np.delete(points, index)
        g[index] /= np.prod(point - others)
        b[index, :-1] = np.poly(others)[::-1]
    b[-1] = np.poly(points)[::-1]
    return a.T, g, b
