"""Initial values of kernels that Flax's own initializers do not give."""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

# Each one multiplies the smallest singular values by 1.5: 40 are enough for matrices of
# a condition of 1e6, which random ones do not reach.
_NUM_ITERATIONS = 40


def orthogonal(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """A random kernel whose columns are orthonormal, as Keras's `orthogonal`.

    All axes but the last are taken as one. Where that is shorter than the last, the
    rows are orthonormal. The matrix is the orthogonal factor of the polar decomposition
    of a Gaussian one (uniform over all such matrices, as that of its QR decomposition
    is), by Newton–Schulz: X ← X (3 − XᵀX) / 2. It needs matrix products alone: XLA:CPU
    does not compile its QR decomposition together with the library fusions that make
    convolutions fast.

    Args:
      key: randomness.
      shape: of the kernel, gates or output channels last.
      dtype: of the kernel.

    Returns:
      The kernel, orthonormal to 1e-5 in float32.
    """
    compute_dtype = jnp.promote_types(dtype, jnp.float32)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    longer, shorter = max(rows, columns), min(rows, columns)
    matrix = jax.random.normal(key, (longer, shorter), compute_dtype)

    def product(left, right):
        return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)

    def iterate(_, matrix):
        return 1.5 * matrix - 0.5 * product(matrix, product(matrix.T, matrix))

    # No singular value is above the Frobenius norm; below √3 the iteration converges.
    matrix = matrix / jnp.sqrt(jnp.square(matrix).sum())
    matrix = lax.fori_loop(0, _NUM_ITERATIONS, iterate, matrix)
    if rows < columns:
        matrix = matrix.T
    return matrix.reshape(shape).astype(dtype)
