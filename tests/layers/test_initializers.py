import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from convlstm_jax.layers.initializers import orthogonal


@pytest.mark.parametrize("shape", [(3, 3, 5, 20), (1, 1, 6, 24), (8, 8), (5, 3)])
def test_columns_or_rows_are_orthonormal(shape):
    kernel = np.asarray(orthogonal(jax.random.key(0), shape), np.float64)
    assert kernel.shape == shape
    matrix = kernel.reshape(-1, shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    products = matrix.T @ matrix
    np.testing.assert_allclose(products, np.eye(len(products)), atol=1e-5)
    assert np.abs(orthogonal(jax.random.key(1), shape) - kernel).max() > 0.1


def test_all_directions_are_alike():
    keys = jax.random.split(jax.random.key(0), 300)
    kernels = np.asarray(jax.vmap(lambda key: orthogonal(key, (4, 2)))(keys))
    np.testing.assert_allclose(kernels.mean(0), 0, atol=0.12)
    np.testing.assert_allclose(np.square(kernels).mean(0), 1 / 4, atol=0.06)


def test_it_compiles_with_the_flags_that_the_program_sets_on_cpus():
    code = (
        "import jax; from convlstm_jax.layers.initializers import orthogonal; "
        "jax.jit(lambda key: orthogonal(key, (3, 3, 4, 16)))(jax.random.key(0))"
        ".block_until_ready()"
    )
    flag = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
