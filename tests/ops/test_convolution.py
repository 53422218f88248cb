import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.ops.convolution import (
    kernel_gradient,
    kernel_gradient_in_loop,
    same_convolution,
    transposed_kernel,
)
from tests.ops import oracle

SIZES = (1, 3, 5, 7, 9)


def draw(size, seed=0):
    """Two by two frames of 4×5 pixels, smaller than the larger kernels."""
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(2, 2, 4, 5, 3)),
        generator.normal(size=(size, size, 3, 2)),
        generator.normal(size=(2, 2, 4, 5, 2)),
    )


def test_same_convolution_by_hand():
    """Cross-correlation, as in every deep-learning library: nothing is flipped."""
    frame = jnp.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 2].set(1).at[0, 1].set(10)
    # Each pixel's right neighbour, and ten times the one above.
    expected = [[2, 3, 0], [5 + 10, 6 + 20, 0 + 30]]
    np.testing.assert_array_equal(same_convolution(frame, kernel)[0, :, :, 0], expected)


@pytest.mark.parametrize("size", SIZES)
def test_same_convolution_equals_loops_over_any_leading_axes(size):
    inputs, kernel, _ = draw(size)
    with jax.enable_x64(True):
        video = same_convolution(jnp.asarray(inputs), jnp.asarray(kernel))
        frame = same_convolution(jnp.asarray(inputs[1, 0]), jnp.asarray(kernel))
    expected = [[oracle.convolve(frame, kernel) for frame in clip] for clip in inputs]
    np.testing.assert_allclose(video, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(frame, expected[1][0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_transposed_kernel_is_the_adjoint(size):
    inputs, kernel, outputs = draw(size)
    with jax.enable_x64(True):
        forward = same_convolution(jnp.asarray(inputs), jnp.asarray(kernel))
        transposed = transposed_kernel(jnp.asarray(kernel))
        back = same_convolution(jnp.asarray(outputs), transposed)
    assert transposed.shape == (size, size, 2, 3)
    assert np.vdot(forward, outputs) == pytest.approx(np.vdot(inputs, back), rel=1e-12)


@pytest.mark.parametrize("gradient_of", [kernel_gradient, kernel_gradient_in_loop])
@pytest.mark.parametrize("size", SIZES)
def test_kernel_gradient_equals_loops(size, gradient_of):
    """∂/∂k(dy, dx) is the sum over pixels of input(y+dy, x+dx)·gradient(y, x)."""
    inputs, kernel, gradient = draw(size)
    radius = size // 2
    border = ((0, 0), (0, 0), (radius, radius), (radius, radius), (0, 0))
    padded = np.pad(inputs, border)
    expected = np.zeros_like(kernel)
    for dy in range(size):
        for dx in range(size):
            seen = padded[:, :, dy : dy + 4, dx : dx + 5]
            expected[dy, dx] = np.einsum("bthwc,bthwd->cd", seen, gradient)
    with jax.enable_x64(True):
        found = gradient_of(*map(jnp.asarray, (inputs, gradient, kernel)))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
