"""Winograd's algorithm against loops, its gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.ops import winograd
from convlstm_jax.ops.winograd import Winograd, winograd_for
from tests.ops import oracle

# Tiles that fit, that hang over on one side or both, and one larger than the frame.
ALGORITHMS = [
    Winograd(tile, kernel, height, width)
    for tile, kernel in ((2, 3), (4, 3), (2, 5))
    for height, width in ((8, 4), (5, 7), (1, 3))
]
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)


def draw(algorithm, channels=3, outputs=2):
    generator = np.random.default_rng(ALGORITHMS.index(algorithm))
    size, height, width = algorithm.kernel_size, algorithm.height, algorithm.width
    return (
        generator.normal(size=(2, height, width, channels)),
        generator.normal(size=(size, size, channels, outputs)),
        generator.normal(size=(2, height, width, outputs)),
    )


def convolve(algorithm, frames, kernel):
    kernels = winograd.transform_kernel(algorithm, kernel)
    return winograd.convolve(algorithm, frames, kernels)


def gradients(algorithm, frames, kernel, outputs, totals=0.0):
    """`convolve_gradients`, added to totals that are all the same."""
    frames, kernel, outputs = map(jnp.asarray, (frames, kernel, outputs))
    kernels = winograd.transform_kernel(algorithm, kernel)
    before = jnp.full_like(kernels, totals)
    return winograd.convolve_gradients(algorithm, before, frames, kernels, outputs)


@each_algorithm
def test_the_frames_gradient(algorithm):
    frames, kernel, outputs = draw(algorithm)
    with jax.enable_x64(True):
        _, found = gradients(algorithm, frames, kernel, outputs)
    assert found.shape == frames.shape
    expected = np.zeros_like(frames)
    for index in np.ndindex(frames.shape[1:]):
        unit = np.zeros(frames.shape[1:])
        unit[index] = 1
        of_unit = oracle.convolve(unit, kernel)
        expected[(slice(None), *index)] = (of_unit * outputs).sum((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@each_algorithm
def test_convolution_and_kernels_gradient_equal_loops(algorithm):
    frames, kernel, outputs = draw(algorithm)
    expected = np.zeros_like(kernel)
    for index in np.ndindex(kernel.shape):
        unit = np.zeros_like(kernel)
        unit[index] = 1
        of_unit = [oracle.convolve(frame, unit) for frame in frames]
        expected[index] = np.vdot(of_unit, outputs)
    with jax.enable_x64(True):
        convolved = convolve(algorithm, jnp.asarray(frames), jnp.asarray(kernel))
        totals, _ = gradients(algorithm, frames, kernel, outputs)
        found = winograd.transform_kernel_adjoint(algorithm, totals)
        added, _ = gradients(algorithm, frames, kernel, outputs, totals=3)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    by_loops = [oracle.convolve(frame, kernel) for frame in frames]
    np.testing.assert_allclose(convolved, by_loops, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(added, np.asarray(totals) + 3, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("tile", "kernel"), [(2, 3), (4, 3), (2, 5)])
def test_float32_is_as_exact_as_the_docstring_says(tile, kernel):
    """About 2e-6 of the norm, over as many channels as a large layer has."""
    algorithm = Winograd(tile, kernel, 12, 12)
    generator = np.random.default_rng(0)
    frames = generator.normal(size=(2, 12, 12, 256))
    weights = generator.normal(size=(kernel, kernel, 256, 8)) / (16 * kernel)
    with jax.enable_x64(True):
        exact = convolve(algorithm, jnp.asarray(frames), jnp.asarray(weights))
    single = [jnp.asarray(x, jnp.float32) for x in (frames, weights)]
    found = convolve(algorithm, *single)
    assert found.dtype == jnp.float32
    found, exact = map(np.asarray, (found, exact))
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-8 < error < 3e-6


@pytest.mark.parametrize(
    ("kernel", "frames", "dtype", "expected"),
    [
        ((5, 5, 128, 512), (8, 16, 16), "float32", Winograd(2, 5, 16, 16)),
        ((3, 3, 64, 256), (4, 64, 64), "float32", Winograd(4, 3, 64, 64)),
        ((3, 3, 64, 256), (4, 16, 16), "float32", Winograd(2, 3, 16, 16)),
        ((3, 3, 64, 256), (4, 64, 64), "bfloat16", None),
        ((3, 5, 64, 256), (4, 64, 64), "float32", None),
        ((7, 7, 64, 256), (4, 64, 64), "float32", None),
        ((3, 3, 15, 60), (4, 64, 64), "float32", None),
        ((3, 3, 64, 256), (1, 14, 16), "float32", None),
        ((3, 3, 64, 256), (1, 16, 16), "float32", Winograd(2, 3, 16, 16)),
    ],
)
def test_which_algorithm(kernel, frames, dtype, expected):
    assert winograd_for(kernel, frames, jnp.dtype(dtype)) == expected


def test_sizes_that_an_exported_program_leaves_open():
    any_batch = jax.export.symbolic_shape("batch, 16, 16")
    any_size = jax.export.symbolic_shape("64, height, width")
    for frames, expected in ((any_batch, Winograd(2, 3, 16, 16)), (any_size, None)):
        assert winograd_for((3, 3, 16, 16), frames, jnp.float32) == expected
