import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit

from convlstm_jax.metrics.cross_entropy import (
    cross_entropy_from_logits,
    cross_entropy_from_probabilities,
)

SHAPE = (2, 3, 5, 4, 2)


def random_logits_and_targets():
    generator = np.random.default_rng(3)
    return generator.normal(scale=4, size=SHAPE), generator.random(SHAPE)


def test_logits_agree_with_numpy():
    logits, target = random_logits_and_targets()
    expected = -(target * log_expit(logits) + (1 - target) * log_expit(-logits))
    expected = expected.sum(axis=(2, 3, 4))
    found = jax.jit(cross_entropy_from_logits)(jnp.float32(logits), jnp.float32(target))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    with jax.enable_x64(True):
        found = cross_entropy_from_logits(jnp.asarray(logits), jnp.asarray(target))
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_probabilities_agree_with_logits():
    logits, target = random_logits_and_targets()
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            cross_entropy_from_probabilities(
                jnp.asarray(expit(logits)), jnp.asarray(target), epsilon=1e-12
            ),
            cross_entropy_from_logits(jnp.asarray(logits), jnp.asarray(target)),
            rtol=1e-9,
        )


def test_hand_computed_table():
    # Frames of one pixel: sure and right, sure and wrong, undecided, grey target.
    logits = jnp.asarray([200.0, 200.0, 0.0, 0.0]).reshape(1, 4, 1, 1, 1)
    target = jnp.asarray([1.0, 0.0, 1.0, 0.5]).reshape(1, 4, 1, 1, 1)
    np.testing.assert_allclose(
        cross_entropy_from_logits(logits, target),
        [[0.0, 200.0, np.log(2), np.log(2)]],
        rtol=1e-6,
    )
    probabilities = jnp.asarray([1.0, 1.0, 0.5, 0.5]).reshape(1, 4, 1, 1, 1)
    np.testing.assert_allclose(
        cross_entropy_from_probabilities(probabilities, target, epsilon=1e-3),
        [[1.0005e-3, -np.log(1e-3), np.log(2), np.log(2)]],
        rtol=1e-4,
    )


def test_gradient_of_extreme_logits_is_finite():
    logits = jnp.asarray([-1e4, 1e4]).reshape(1, 1, 1, 2, 1)
    gradient = jax.grad(
        lambda values: cross_entropy_from_logits(values, jnp.ones_like(values)).sum()
    )(logits)
    np.testing.assert_allclose(gradient.ravel(), [-1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.5])
def test_epsilon_out_of_range(epsilon):
    clip = jnp.full((1, 1, 2, 2, 1), 0.5)
    with pytest.raises(ValueError, match=f"epsilon is {epsilon}; for float32"):
        cross_entropy_from_probabilities(clip, clip, epsilon=epsilon)


def test_shapes_name_the_logits():
    clip = jnp.ones((1, 2, 3, 3, 1))
    with pytest.raises(ValueError, match="logits has shape"):
        cross_entropy_from_logits(clip[:, :1], clip)
