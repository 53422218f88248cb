"""Convolutions as products of few, larger matrices, by Winograd's algorithm.

A. Lavin and S. Gray, 2015, arXiv:1509.09308. A frame is cut into tiles of m×m output
pixels; each reads (m+K−1)² input pixels. With n = m+K−1 and matrices A (m×n), G (n×K)
and B (n×n) that depend on m and K alone, a tile d of one channel and a kernel g give

    y = A [(G g Gᵀ) ∘ (B d Bᵀ)] Aᵀ,

so that the n² elements in brackets are each one matrix product over all tiles:
(m+K−1)² multiplications do for m² outputs what m²·K² do directly. For 3×3 kernels and
m = 4 that is a quarter of them, for 5×5 and m = 2 a little over a third.

Every transform is linear and has its adjoint here, so that a backward pass can stay
among the tiles: the products' gradients serve kernel and frames alike.

In float32 the results differ from a direct convolution's by about 2e-6 of their norm
(that itself is 2e-7 from the exact one), in float64 by 1e-14.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from convlstm_jax.array_types import Frame

Tiles = tuple[Float[Array, "B R S C"], ...]
TileKernels = tuple[Float[Array, "C D"], ...]

# Where the polynomials behind the algorithm are evaluated, besides at infinity. Of the
# sets of small numbers these give the least rounding error.
_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, Fraction(-1, 2))}


class Winograd(NamedTuple):
    """The algorithm for frames of one size.

    Attributes:
      tile_size: m, output pixels of a tile along each axis.
      kernel_size: K, odd.
      height: H of the frames.
      width: W of the frames.
    """

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


def winograd_for(
    kernel_shape: Sequence[int], frame_shape: Sequence[int], dtype
) -> Winograd | None:
    """The algorithm that is faster on a CPU than the direct convolution, if one is.

    Args:
      kernel_shape: `(K, K, C, D)`.
      frame_shape: `(B, H, W, ...)`.
      dtype: of the convolution.

    Returns:
      `None` where there is none: for other kernels than 3×3 and 5×5, whose rounding
      errors would be larger or whose gain is small, for less than 16 channels or 64
      tiles, whose matrices are too small, and for dtypes of less than 32 bits.
    """
    kernel_height, kernel_width, channels, outputs = kernel_shape
    batch, height, width = frame_shape[:3]
    if kernel_height != kernel_width or kernel_height not in (3, 5):
        return None
    if jnp.finfo(dtype).bits < 32 or min(channels, outputs) < 16:
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
    """G g Gᵀ: n² matrices `[C, D]`, row by row."""
    g = jnp.asarray(_matrices(algorithm).g, kernel.dtype)
    elements = jnp.einsum("pa,qb,abcd->pqcd", g, g, kernel)
    return tuple(elements.reshape(-1, *kernel.shape[2:]))


def transform_kernel_adjoint(
    algorithm: Winograd, gradients: TileKernels
) -> Float[Array, "K K C D"]:
    """The kernel's gradient from those of its n² matrices."""
    n = algorithm.num_points
    g = jnp.asarray(_matrices(algorithm).g, gradients[0].dtype)
    elements = jnp.stack(gradients).reshape(n, n, *gradients[0].shape)
    return jnp.einsum("pa,qb,pqcd->abcd", g, g, elements)


def transform_frames(algorithm: Winograd, frames: Frame) -> Tiles:
    """B d Bᵀ of every tile of zero-padded frames `[B, H, W, C]`."""
    m, n, b = algorithm.tile_size, algorithm.num_points, _matrices(algorithm).b
    before = algorithm.kernel_size // 2
    below = n - m - before + algorithm.rows * m - algorithm.height
    right = n - m - before + algorithm.columns * m - algorithm.width
    padded = jnp.pad(frames, ((0, 0), (before, below), (before, right), (0, 0)))
    stop = (algorithm.rows - 1) * m + 1
    lines = [padded[:, y : y + stop : m] for y in range(n)]
    by_row = [_combine(b[p], lines) for p in range(n)]
    stop = (algorithm.columns - 1) * m + 1
    return tuple(
        _combine(b[q], [row[:, :, x : x + stop : m] for x in range(n)])
        for row in by_row
        for q in range(n)
    )


def transform_frames_adjoint(algorithm: Winograd, gradients: Tiles) -> Frame:
    """The frames' gradient from that of their transformed tiles."""
    m, n, b = algorithm.tile_size, algorithm.num_points, _matrices(algorithm).b
    before = algorithm.kernel_size // 2

    def overlap(tiles: Sequence[Array], axis: int) -> list[Array]:
        """Sums what neighbouring tiles give to the m pixels of each, along an axis."""
        pixels = []
        for pixel in range(m):
            shares = [
                _shift(_combine(b[:, x], tiles), (x - before) // m, axis)
                for x in range(n)
                if (x - before) % m == pixel
            ]
            pixels.append(sum(shares[1:], start=shares[0]))
        return pixels

    by_row = [overlap(gradients[p * n : (p + 1) * n], axis=2) for p in range(n)]
    by_column = [overlap([row[x] for row in by_row], axis=1) for x in range(m)]
    return _join(algorithm, [[column[y] for column in by_column] for y in range(m)])


def transform_products(algorithm: Winograd, products: Tiles) -> Frame:
    """A […] Aᵀ: the convolution's results `[B, H, W, D]`."""
    m, n, a = algorithm.tile_size, algorithm.num_points, _matrices(algorithm).a
    by_row = [
        [_combine(a[y], products[q :: n]) for q in range(n)] for y in range(m)
    ]  # fmt: skip
    return _join(algorithm, [[_combine(a[x], row) for x in range(m)] for row in by_row])


def transform_products_adjoint(algorithm: Winograd, gradient: Frame) -> Tiles:
    """The products' gradients from that of the convolution's results."""
    m, n, a = algorithm.tile_size, algorithm.num_points, _matrices(algorithm).a
    below = algorithm.rows * m - algorithm.height
    right = algorithm.columns * m - algorithm.width
    padded = jnp.pad(gradient, ((0, 0), (0, below), (0, right), (0, 0)))
    lines = [padded[:, y::m] for y in range(m)]
    by_row = [_combine(a[:, p], lines) for p in range(n)]
    return tuple(
        _combine(a[:, q], [row[:, :, x::m] for x in range(m)])
        for row in by_row
        for q in range(n)
    )


def multiply(tiles: Tiles, kernels: TileKernels) -> Tiles:
    """The products in brackets: n² matrix products over all tiles."""
    return tuple(
        (_rows(tile) @ kernel).reshape(*tile.shape[:-1], kernel.shape[-1])
        for tile, kernel in zip(tiles, kernels, strict=True)
    )


def add_kernel_gradients(
    totals: TileKernels, tiles: Tiles, gradients: Tiles
) -> TileKernels:
    """Adds to totals the gradients of the kernels that `multiply` was given."""
    return tuple(
        total + _rows(tile).T @ _rows(gradient)
        for total, tile, gradient in zip(totals, tiles, gradients, strict=True)
    )


def convolve(algorithm: Winograd, frames: Frame, kernels: TileKernels) -> Frame:
    """`same_convolution`, with a kernel that is transformed already."""
    products = multiply(transform_frames(algorithm, frames), kernels)
    return transform_products(algorithm, products)


def _rows(tiles: Array) -> Array:
    """All tiles below each other."""
    return tiles.reshape(-1, tiles.shape[-1])


class _Matrices(NamedTuple):
    """A, G and B of the algorithm, each with n along one axis."""

    a: np.ndarray
    g: np.ndarray
    b: np.ndarray


def _matrices(algorithm: Winograd) -> _Matrices:
    return _cook_toom(algorithm.tile_size, algorithm.kernel_size)


@lru_cache
def _cook_toom(m: int, r: int) -> _Matrices:
    """The matrices for m outputs and r weights, by interpolation in exact fractions.

    A correlation's adjoint multiplies two polynomials of m and r coefficients. It does
    so by their values at n − 1 points and at infinity (rows of A and G), from which
    Lagrange's polynomials (rows of B) make the product's coefficients.
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
    return _Matrices(a.T, g_, b_)


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Of the polynomial Π (x − root), lowest power first."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *polynomial]
        scaled = [*(root * value for value in polynomial), Fraction(0)]
        polynomial = [x - y for x, y in zip(shifted, scaled, strict=True)]
    return polynomial


def _combine(coefficients: np.ndarray, terms: Sequence[Array]) -> Array:
    """Σ coefficient · term over the coefficients that are not 0."""
    total = None
    for coefficient, term in zip(coefficients, terms, strict=True):
        if coefficient == 0:
            continue
        if abs(coefficient) != 1:
            term = term * jnp.asarray(abs(coefficient), term.dtype)
        if total is None:
            total = -term if coefficient < 0 else term
        else:
            total = total - term if coefficient < 0 else total + term
    assert total is not None  # No row of the matrices is zero.
    return total


def _shift(tiles: Array, distance: int, axis: int) -> Array:
    """Moves tiles along an axis; those that leave the frame read its padding."""
    if distance == 0:
        return tiles
    config = [(0, 0, 0)] * tiles.ndim
    config[axis] = (distance, -distance, 0)
    return lax.pad(tiles, jnp.zeros((), tiles.dtype), config)


def _join(algorithm: Winograd, pixels: Sequence[Sequence[Array]]) -> Frame:
    """Puts the m×m pixels of all tiles, each `[B, R, S, C]`, into frames."""
    lines = [jnp.stack(row, axis=3) for row in pixels]
    frames = jnp.stack(lines, axis=2)
    m = algorithm.tile_size
    batch, channels = frames.shape[0], frames.shape[-1]
    frames = frames.reshape(batch, algorithm.rows * m, algorithm.columns * m, channels)
    return frames[:, : algorithm.height, : algorithm.width]
