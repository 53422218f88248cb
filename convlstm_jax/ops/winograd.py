"""Convolutions as products of few, larger matrices, by Winograd's algorithm.

A. Lavin and S. Gray, 2015, arXiv:1509.09308, after Toom and Cook. A frame is cut into
tiles of m×m output pixels; each reads (m+K−1)² input pixels. With n = m+K−1 and
matrices A (m×n), G (n×K) and B (n×n) that depend on m and K alone, a tile d of one
channel and a kernel g give

    y = A [(G g Gᵀ) ∘ (B d Bᵀ)] Aᵀ,

so that each of the n² elements in brackets is one matrix product over all tiles: n²
multiplications for m² outputs instead of m²·K². For 3×3 kernels and m = 4 that is a
quarter of them, for 5×5 and m = 2 a little over a third.

Every transform is linear and has its adjoint here, so that a backward pass stays among
the tiles: the products' gradients serve kernel and frames alike. One of the n rows of
products is computed at a time, in a loop, so that intermediate results fit into a
processor's cache.

In float32 the results differ from a direct convolution's by about 2e-6 of their norm
(that itself is 2e-7 from the exact one), in float64 by 1e-14.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from convlstm_jax.types import Array, Frame, OutputFrame

# Where the polynomials behind the algorithm are evaluated, besides at infinity. Of the
# sets of small numbers these give the least rounding error.
_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, Fraction(-1, 2))}

TileKernels = Float[Array, "N N C D"]

# One row of n elements of all tiles, R rows and S columns of them.
_Tiles = Float[Array, "N B R S C"]
_Products = Float[Array, "N B R S D"]


class Matrices(NamedTuple):
    """A `[m, n]` (to outputs), G `[n, r]` (of weights), B `[n, n]` (of inputs)."""

    a: np.ndarray
    g: np.ndarray
    b: np.ndarray


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
    def matrices(self) -> Matrices:
        """A, G and B."""
        return cook_toom(self.tile_size, self.kernel_size)


def winograd_for(
    kernel_shape: Sequence[int], frame_shape: Sequence[Any], dtype: Any
) -> Winograd | None:
    """The algorithm that is faster on a CPU than the direct convolution, if one is.

    Args:
        kernel_shape: `(K, K, C, D)`.
        frame_shape: `(B, H, W, ...)`; a symbolic B (exported programs) counts as 1.
        dtype: Of the convolution.

    Returns:
        `None` for kernels other than 3×3 and 5×5 (larger rounding errors or little
        gain), fewer than 16 channels or 64 tiles (the matrices are too small), dtypes
        of less than 32 bits, and symbolic H and W.
    """
    kernel_height, kernel_width, channels, outputs = kernel_shape
    batch, height, width = frame_shape[:3]
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    if not isinstance(batch, int):
        batch = 1
    if kernel_height != kernel_width or kernel_height not in (3, 5):
        return None
    if jnp.dtype(dtype).itemsize < 4 or min(channels, outputs) < 16:
        return None

    def with_tiles_of(size: int) -> tuple[Winograd, int]:
        algorithm = Winograd(size, kernel_height, height, width)
        return algorithm, batch * algorithm.rows * algorithm.columns

    small, num_small = with_tiles_of(2)
    if num_small < 64:
        return None
    large, num_large = with_tiles_of(4)
    return large if kernel_height == 3 and num_large >= 256 else small


def transform_kernel(
    algorithm: Winograd, kernel: Float[Array, "K K C D"]
) -> TileKernels:
    """G g Gᵀ."""
    return _transform_both(algorithm.matrices.g, kernel)


def transform_kernel_adjoint(
    algorithm: Winograd, gradients: TileKernels
) -> Float[Array, "K K C D"]:
    """The kernel's gradient from that of its transform."""
    return _transform_both(algorithm.matrices.g.T, gradients)


def convolve(algorithm: Winograd, frames: Frame, kernels: TileKernels) -> OutputFrame:
    """`same_convolution` with a kernel that is transformed already."""
    m, (a, _, b) = algorithm.tile_size, algorithm.matrices
    lines = _read_lines(algorithm, frames)
    shape = (algorithm.rows, m, algorithm.columns, m, kernels.shape[-1])

    def add_row(pixels: Any, row: Any) -> Any:
        (_, a_p, b_p), kernels_p = row
        products = _multiply(_transform_row(algorithm, lines, b_p, b), kernels_p)
        # Where a coefficient is multiplied along an axis of its own, XLA:CPU makes one
        # pass of it all; pixels that are stacked would be another.
        by_column = _sum(
            jnp.asarray(a[:, q], frames.dtype).reshape(1, 1, 1, 1, m, 1)
            * product[:, :, None, :, None]
            for q, product in enumerate(products)
        )
        return pixels + a_p.reshape(1, 1, m, 1, 1, 1) * by_column, None

    pixels = jnp.zeros((frames.shape[0], *shape), frames.dtype)
    rows = (_rows(algorithm, frames.dtype), kernels)
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
    lines = _read_lines(algorithm, frames)
    gradient_lines = _lines(algorithm, gradient, 0, algorithm.tile_size)

    def add_row(totals: Any, row: Any) -> Any:
        (p, a_p, b_p), kernels_p = row
        products = _transform_row(algorithm, gradient_lines, a_p, a.T)
        read = _multiply(products, jnp.swapaxes(kernels_p, 1, 2))
        pixels = jnp.stack(_overlap(algorithm, read, axis=2), axis=3)
        tiles = _transform_row(algorithm, lines, b_p, b)
        return _add_products(totals, p, tiles, products), pixels

    rows = (_rows(algorithm, gradient.dtype), kernels)
    totals, pixels = lax.scan(add_row, totals, rows)
    pixels = jnp.stack(_overlap(algorithm, pixels, axis=1), axis=2)
    return totals, _crop(algorithm, pixels)


def _rows(algorithm: Winograd, dtype: Any) -> tuple[Array, Array, Array]:
    """For a loop over rows of products: p, column p of A, row p of B."""
    a, b = (jnp.asarray(x, dtype) for x in (algorithm.matrices.a, algorithm.matrices.b))
    return jnp.arange(algorithm.num_points), a.T, b


def _read_lines(algorithm: Winograd, frames: Frame) -> list[Array]:
    """The n lines `[B, R, width, C]` that tiles read."""
    before = algorithm.kernel_size // 2
    return _lines(algorithm, frames, before, algorithm.num_points)


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
    m, n, b = algorithm.tile_size, algorithm.num_points, algorithm.matrices.b
    before = algorithm.kernel_size // 2
    given = _transform(b.T, elements)
    return [
        _sum(
            _shift(given[x], (x - before) // m, axis)
            for x in range(n)
            if (x - before) % m == pixel
        )
        for pixel in range(m)
    ]


def _multiply(tiles: _Tiles, kernels: Float[Array, "N C D"]) -> _Products:
    """One row of the products in brackets."""
    products = _flat(tiles) @ kernels
    return products.reshape(*tiles.shape[:-1], kernels.shape[-1])


def _add_products(
    totals: TileKernels, p: Array, tiles: _Tiles, products: _Products
) -> TileKernels:
    """Adds the kernels' gradients from those of their products to row p of totals."""
    total = lax.dynamic_index_in_dim(totals, p, keepdims=False)
    total = total + jnp.swapaxes(_flat(tiles), 1, 2) @ _flat(products)
    return lax.dynamic_update_index_in_dim(totals, total, p, 0)


def _flat(tiles: _Tiles) -> Float[Array, "N X C"]:
    """All tiles below each other."""
    return tiles.reshape(len(tiles), -1, tiles.shape[-1])


def _crop(algorithm: Winograd, pixels: Float[Array, "B R M S M C"]) -> Frame:
    """The m×m pixels of all tiles as frames."""
    m = algorithm.tile_size
    shape = (algorithm.rows * m, algorithm.columns * m, pixels.shape[-1])
    frames = pixels.reshape(pixels.shape[0], *shape)
    return frames[:, : algorithm.height, : algorithm.width]


def _transform_both(matrix: np.ndarray, elements: Array) -> Array:
    """Matrix · elements · matrixᵀ, over the two leading axes of `[X, X, …]`."""
    rows = jnp.stack(_transform(matrix, elements))
    return jnp.stack(_transform(matrix, jnp.moveaxis(rows, 1, 0)), axis=1)


def _transform(matrix: np.ndarray, elements: Sequence[Array] | Array) -> list[Array]:
    """For each row of a matrix Σ coefficient · element, where that is not 0."""
    found = []
    for row in matrix:
        total = None
        for coefficient, element in zip(row, elements, strict=True):
            if coefficient == 0:
                continue
            if abs(coefficient) != 1:
                element = element * jnp.asarray(abs(coefficient), element.dtype)
            if total is None:
                total = -element if coefficient < 0 else element
            else:
                total = total - element if coefficient < 0 else total + element
        assert total is not None  # No row of the matrices is zero.
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
def cook_toom(m: int, r: int) -> Matrices:
    """The matrices for m outputs and r weights, in exact fractions; n must be 4 or 6.

    A correlation's adjoint multiplies two polynomials of m and r coefficients. It does
    so by their values at n − 1 points and at infinity (rows of A and G), from which
    Lagrange's polynomials (rows of B) give the product's coefficients.
    """
    points = [Fraction(point) for point in _POINTS[m + r - 1]]

    def powers(count: int) -> list[list[Fraction]]:
        at_infinity = [Fraction(0)] * (count - 1) + [Fraction(1)]
        return [[x**k for k in range(count)] for x in points] + [at_infinity]

    g, b = powers(r), []
    for index, point in enumerate(points):
        others = points[:index] + points[index + 1 :]
        scale = math.prod((point - other for other in others), start=Fraction(1))
        g[index] = [value / scale for value in g[index]]
        b.append([*_coefficients(others), Fraction(0)])
    b.append(_coefficients(points))
    a, g_, b_ = (np.array(rows, np.float64) for rows in (powers(m), g, b))
    return Matrices(a.T, g_, b_)


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial Π (x − root), lowest power first."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *polynomial]
        scaled = [*(root * value for value in polynomial), Fraction(0)]
        polynomial = [x - y for x, y in zip(shifted, scaled, strict=True)]
    return polynomial
