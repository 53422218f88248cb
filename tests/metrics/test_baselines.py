import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.baselines import BASELINES, copy_last_frame, zeros


def random_inputs():
    return np.float32(np.random.default_rng(4).random((2, 3, 4, 5, 2)))


def test_copy_last_frame():
    inputs = random_inputs()
    found = copy_last_frame(jnp.asarray(inputs), 4)
    assert found.shape == (2, 4, 4, 5, 2)
    assert found.dtype == jnp.float32
    for t in range(4):
        np.testing.assert_array_equal(found[:, t], inputs[:, 2])


def test_zeros():
    found = zeros(jnp.asarray(random_inputs()), 1)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.zeros((2, 1, 4, 5, 2)))


@pytest.mark.parametrize("name", ["copy_last", "zeros"])
def test_every_baseline_by_name(name):
    assert BASELINES[name](jnp.asarray(random_inputs()), 3).shape == (2, 3, 4, 5, 2)


@pytest.mark.parametrize("baseline", BASELINES.values())
def test_bad_arguments(baseline):
    inputs = jnp.asarray(random_inputs())
    with pytest.raises(ValueError, match="num_frames is 0: it must be at least 1"):
        baseline(inputs, 0)
    with pytest.raises(ValueError, match=r"inputs has shape \(3, 4, 5, 2\)"):
        baseline(inputs[0], 1)
    with pytest.raises(ValueError, match="with T at least 1"):
        baseline(inputs[:, :0], 1)
