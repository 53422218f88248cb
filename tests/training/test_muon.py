import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convlstm_jax.training.optimizer import muon

RATE = 0.02
FEATURES = 3


def random_tree(seed):
    generator = np.random.default_rng(seed)

    def array(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "conv": {
            "input_kernel": array(5, 5, 2, 4 * FEATURES),
            "recurrent_kernel": array(3, 3, FEATURES, 4 * FEATURES),
            "bias": array(4 * FEATURES),
            "peephole": array(3, FEATURES),
        },
        "dense": {"recurrent_kernel": array(7, 4 * FEATURES)},
        "output": {"kernel": array(FEATURES, 16)},
    }


PARAMS = random_tree(0)


OPTIMIZER = muon(RATE)
STEP = jax.jit(OPTIMIZER.update, compiler_options={"xla_backend_optimization_level": 0})


def updates_of(gradients):
    state = OPTIMIZER.init(PARAMS)
    for gradient in gradients:
        updates, state = STEP(gradient, state, PARAMS)
    return updates


def gate_matrices(kernel):
    """A kernel as four matrices, [4, rows, features]: gates lie side by side."""
    matrix = np.asarray(kernel).reshape(-1, 4, FEATURES)
    return matrix.swapaxes(0, 1)


KERNELS = (
    ("conv", "input_kernel"),
    ("conv", "recurrent_kernel"),
    ("dense", "recurrent_kernel"),
)


@pytest.mark.parametrize(("module", "name"), KERNELS)
def test_each_gate_moves_along_its_nearest_orthogonal_matrix(module, name):
    """The gradient is U S Vᵀ; the update is -size · U Vᵀ, where the size is Adam's.

    Five Newton-Schulz steps bring the singular values near 1, not to it.
    """
    gradients = random_tree(1)
    updates = gate_matrices(updates_of([gradients])[module][name])
    for update, gradient in zip(
        updates, gate_matrices(gradients[module][name]), strict=True
    ):
        left, _, right = np.linalg.svd(gradient, full_matrices=False)
        size = RATE * 0.2 * np.sqrt(len(gradient))
        in_its_basis = left.T @ update @ right.T / -size
        factors = np.diagonal(in_its_basis)
        assert ((factors > 0.65) & (factors < 1.25)).all()
        np.testing.assert_allclose(in_its_basis, np.diag(factors), atol=1e-3)
        # Nothing outside the span of the gradient's columns.
        np.testing.assert_allclose(
            update, left @ (left.T @ update), atol=1e-3 * np.abs(update).max()
        )


def test_a_gate_knows_nothing_of_the_others():
    gradients = random_tree(1)
    changed = random_tree(2)["conv"]["input_kernel"]
    mixed = jax.tree.map(jnp.copy, gradients)
    mixed["conv"]["input_kernel"] = (
        gradients["conv"]["input_kernel"]
        .at[..., FEATURES : 2 * FEATURES]
        .set(changed[..., FEATURES : 2 * FEATURES])
    )
    before, after = (
        gate_matrices(updates_of([tree])["conv"]["input_kernel"])
        for tree in (gradients, mixed)
    )
    assert np.abs(before[1] - after[1]).max() > 1e-3
    np.testing.assert_allclose(before[[0, 2, 3]], after[[0, 2, 3]], rtol=1e-5)


def test_momentum_forgets_a_tenth_a_step():
    """The second update is that of a lone gradient, the two steps' Nesterov mean.

    With momentum m = 0.1 (0.9 g1 + g2), Nesterov steps along 0.9 m + 0.1 g2; the bias
    corrections change the weights of the two terms only.
    """
    first, second = random_tree(1), random_tree(2)
    ahead = 1 / (1 - 0.9**3)
    now = 1 / (1 - 0.9**2)
    combined = jax.tree.map(
        lambda a, b: 0.9 * ahead * 0.1 * (0.9 * a + b) + 0.1 * now * b, first, second
    )
    found = updates_of([first, second])
    expected = updates_of([combined])
    for module, name in KERNELS:
        np.testing.assert_allclose(
            found[module][name], expected[module][name], rtol=1e-3, atol=1e-6
        )


def test_all_other_parameters_follow_adam():
    gradients = [random_tree(seed) for seed in (1, 2, 3)]
    found = updates_of(gradients)
    adam = optax.adam(RATE, nesterov=True)
    state = adam.init(PARAMS)
    for gradient in gradients:
        expected, state = adam.update(gradient, state)
    for module, name in (("conv", "bias"), ("conv", "peephole"), ("output", "kernel")):
        np.testing.assert_allclose(
            found[module][name], expected[module][name], rtol=1e-5
        )


def test_a_gradient_of_zero_moves_nothing():
    updates = updates_of([jax.tree.map(jnp.zeros_like, PARAMS)])
    for update in jax.tree.leaves(updates):
        np.testing.assert_array_equal(update, 0)
