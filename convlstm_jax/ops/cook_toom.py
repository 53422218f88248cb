"""The matrices of Winograd's algorithm, by interpolation in exact fractions.

A. Lavin and S. Gray, 2015, arXiv:1509.09308, after Toom and Cook.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

# Where the polynomials behind the algorithm are evaluated, besides at infinity. Of the
# sets of small numbers these give the least rounding error.
_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, Fraction(-1, 2))}


class Matrices(NamedTuple):
    """For m outputs and r weights, with n = m + r − 1.

    Attributes:
      a: `[m, n]`, from products to outputs.
      g: `[n, r]`, of the weights.
      b: `[n, n]`, of what is read.
    """

    a: np.ndarray
    g: np.ndarray
    b: np.ndarray


@lru_cache
def cook_toom(m: int, r: int) -> Matrices:
    """The matrices for m outputs and r weights; n must be 4 or 6.

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
    return Matrices(a.T, g_, b_)


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Of the polynomial Π (x − root), lowest power first."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *polynomial]
        scaled = [*(root * value for value in polynomial), Fraction(0)]
        polynomial = [x - y for x, y in zip(shifted, scaled, strict=True)]
    return polynomial
