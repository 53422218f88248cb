import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convlstm_jax.config import refusal, validated
from convlstm_jax.training.optimizer import OPTIMIZERS, AdamConfig, OptimizerConfig

RATE = 0.02
PARAMS = {"kernel": jnp.array([[1.5, -2.0], [0.5, 3.0]]), "bias": jnp.array([1.0, -1])}
GRADIENTS = {
    "kernel": jnp.array([[0.3, -0.7], [1.1, -0.2]]),
    "bias": jnp.array([-0.4, 0.9]),
}


def make(name="adam", num_steps=10, plateau_window_steps=1000, **fields):
    config = OPTIMIZERS[name](learning_rate=RATE, **fields)
    return config.build(num_steps, plateau_window_steps)


def updates_of(optimizer, gradients=(GRADIENTS,), values=(1.0,)):
    """The updates of one step after the other, as a list of trees."""
    state = optimizer.init(PARAMS)
    options = {"xla_backend_optimization_level": 0}
    step = jax.jit(optimizer.update, compiler_options=options)
    updates = []
    for gradient, value in zip(gradients, values, strict=True):
        update, state = step(gradient, state, PARAMS, value=jnp.float32(value))
        updates.append(update)
    return updates


def norms_of(optimizer, values):
    """Size of each update under a gradient that never changes."""
    updates = updates_of(optimizer, [GRADIENTS] * len(values), values)
    return np.array([float(optax.tree.norm(update)) for update in updates])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_works_with_schedule_plateau_and_clipping(name):
    """Against the gradient, finite, in the parameters' own shapes and dtype."""
    optimizer = make(name=name, schedule="reduce_on_plateau", clip_norm=1.0)
    (updates,) = updates_of(optimizer)
    signs = jax.tree.map(lambda gradient: -jnp.sign(gradient), GRADIENTS)
    for found, expected in zip(
        jax.tree.leaves(updates), jax.tree.leaves(signs), strict=True
    ):
        np.testing.assert_array_equal(jnp.sign(found), expected, strict=True)


@pytest.mark.parametrize(
    ("name", "first_update"),
    [
        ("adam", lambda g: -RATE * np.sign(g)),
        ("adamw", lambda g: -RATE * np.sign(g)),
        ("rmsprop", lambda g: -RATE * np.sign(g) / np.sqrt(1 - 0.75)),
        ("adadelta", lambda g: -RATE * g * np.sqrt(1e-6 / (0.05 * g * g + 1e-6))),
    ],
)
def test_first_update_by_hand(name, first_update):
    fields = {"rmsprop_decay": 0.75} if name == "rmsprop" else {}
    (updates,) = updates_of(make(name, **fields))
    for key, gradient in GRADIENTS.items():
        np.testing.assert_allclose(updates[key], first_update(gradient), rtol=1e-4)


def test_weight_decay_of_adamw_is_decoupled():
    """λ·η·w is taken off whatever the gradient is: it is not part of the gradient."""
    zero = jax.tree.map(jnp.zeros_like, GRADIENTS)
    (updates,) = updates_of(make(name="adamw", weight_decay=0.1), [zero])
    for name, weight in PARAMS.items():
        np.testing.assert_allclose(updates[name], -RATE * 0.1 * weight, rtol=1e-6)


def test_clip_norm_scales_only_larger_gradients():
    large = jax.tree.map(lambda g: 30 * g, GRADIENTS)
    scale = 2.0 / optax.tree.norm(large)
    clipped_by_hand = jax.tree.map(lambda g: g * scale, large)
    assert optax.tree.norm(GRADIENTS) < 2
    # Two steps, because Adam's first update does not see the gradient's size.
    values = (1.0, 1.0)
    found = updates_of(make(clip_norm=2.0), [GRADIENTS, large], values)
    expected = updates_of(make(), [GRADIENTS, clipped_by_hand], values)
    unclipped = updates_of(make(), [GRADIENTS, large], values)
    np.testing.assert_allclose(found[1]["kernel"], expected[1]["kernel"], rtol=1e-5)
    assert np.abs(found[1]["kernel"] - unclipped[1]["kernel"]).max() > 0.1 * RATE


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "expected"),
    [
        ("reduce_on_plateau", 0, {0: 1, 50: 1, 100: 1}),
        ("constant", 10, {0: 0, 5: 0.5, 10: 1, 100: 1}),
        ("cosine", 0, {0: 1, 25: 0.5 + np.sqrt(0.125), 50: 0.5, 100: 0, 120: 0}),
        ("cosine", 20, {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0}),
        ("one_cycle", 40, {0: 1 / 25, 14.5: (1 + 1 / 25) / 2, 29: 1, 64: 0.5, 99: 0}),
    ],
)
def test_schedules_by_hand(schedule, warmup_steps, expected):
    config = OptimizerConfig(
        learning_rate=RATE, schedule=schedule, warmup_steps=warmup_steps
    )
    rate = config.learning_rates(100)
    for step, fraction in expected.items():
        assert rate(step) == pytest.approx(RATE * fraction, abs=1e-4 * RATE), step


@pytest.mark.parametrize("num_steps", [1, 3, 20])
@pytest.mark.parametrize(
    ("name", "fields"), [("adam", {}), ("adamw", {"weight_decay": 0.3})]
)
def test_one_cycle_with_momentum_trains_as_in_pytorch(name, fields, num_steps):
    """A quadratic of unequal curvature: learning rates, and weights after each step."""
    torch = pytest.importorskip("torch")
    curvature = np.array([0.1, 1.0, 7.0])
    theirs = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    optimizer = cls([theirs], lr=RATE, **fields)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, num_steps)
    config = OPTIMIZERS[name](
        learning_rate=RATE, schedule="one_cycle", cycle_momentum=True, **fields
    )
    with jax.enable_x64(True):
        transformation = config.build(num_steps, 1)
        ours = jnp.asarray(theirs.detach().numpy())
        state, update = transformation.init(ours), jax.jit(transformation.update)
        rates = config.learning_rates(num_steps)
        for step in range(num_steps):
            rate = schedule.get_last_lr()[0]
            assert rates(step) == pytest.approx(rate, rel=1e-7)
            optimizer.zero_grad()
            (torch.tensor(curvature) * theirs**2).sum().backward()
            optimizer.step()
            schedule.step()
            change, state = update(2 * curvature * ours, state, ours, value=0.0)
            ours += change
            np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-12)


def test_the_momentum_cycles_where_asked_alone():
    """And leaves the states of Adam, so that a checkpoint is read either way."""
    gradients = [GRADIENTS, jax.tree.map(jnp.negative, GRADIENTS)]
    updates, states = [], []
    for fields in ({}, {"cycle_momentum": False}, {"cycle_momentum": True}):
        optimizer = make(schedule="one_cycle", **fields)
        states.append(jax.tree.structure(optimizer.init(PARAMS)))
        updates.append(updates_of(optimizer, gradients, (1.0, 1.0))[1]["bias"])
    assert states[0] == states[1] == states[2]
    np.testing.assert_array_equal(updates[0], updates[1])
    assert np.abs(updates[2] - updates[1]).max() > 1e-4
    _, problems = validated(AdamConfig, {"schedule": "cosine", "cycle_momentum": True})
    assert problems == [
        "cycle_momentum does not exist with schedule='cosine': it needs "
        "schedule='one_cycle'"
    ]


def test_reduce_on_plateau_waits_patience_windows():
    optimizer = make(
        schedule="reduce_on_plateau",
        plateau_factor=0.25,
        plateau_patience=2,
        plateau_window_steps=3,
    )
    # The first window sets the mark; the next improves on it, and nothing is reduced;
    # two do not, though a single loss among them is lower.
    losses = [5, 5, 5, 4, 3, 2, 6, 1, 6, 3, 3, 3, 3, 3, 3]
    norms = norms_of(optimizer, losses) / (RATE * np.sqrt(6))
    np.testing.assert_allclose(norms, [1] * 11 + [0.25] * 4, rtol=1e-3)


@pytest.mark.parametrize("num_steps", [1, 10**9])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_extreme_values_are_possible(num_steps, schedule):
    warmup = {} if schedule == "one_cycle" else {"warmup_steps": 10**9}
    rates = AdamConfig(schedule=schedule, **warmup).learning_rates(num_steps)
    assert all(0 <= rates(step) <= 1e-3 for step in (0, 1, num_steps))


@pytest.mark.parametrize("field", ["warmup_steps", "plateau_patience"])
def test_step_counts_beyond_32_bits_are_refused(field):
    _, problems = validated(
        AdamConfig, {"schedule": "reduce_on_plateau", field: 10**10}
    )
    assert problems == [refusal(AdamConfig, field, 10**10)]


FEATURES = 3
MUON = make("muon")
MUON_STEP = jax.jit(MUON.update, compiler_options={"xla_backend_optimization_level": 0})
KERNELS = (
    ("conv", "input_kernel"),
    ("conv", "recurrent_kernel"),
    ("dense", "recurrent_kernel"),
)


def random_tree(seed):
    shapes = {
        "conv": {
            "input_kernel": (5, 5, 2, 4 * FEATURES),
            "recurrent_kernel": (3, 3, FEATURES, 4 * FEATURES),
            "bias": (4 * FEATURES,),
            "peephole": (3, FEATURES),
        },
        "dense": {"recurrent_kernel": (7, 4 * FEATURES)},
        "output": {"kernel": (FEATURES, 16)},
    }
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: np.float32(generator.normal(size=shape)),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def muon_updates(gradients):
    params = random_tree(0)
    state = MUON.init(params)
    for gradient in gradients:
        updates, state = MUON_STEP(gradient, state, params)
    return updates


def gate_matrices(kernel):
    """A kernel as four matrices, [4, rows, features]: gates lie side by side."""
    return np.asarray(kernel).reshape(-1, 4, FEATURES).swapaxes(0, 1)


def test_each_gate_moves_along_its_nearest_orthogonal_matrix():
    """The gradient is U S Vᵀ; the update is -size · U Vᵀ, where the size is Adam's.

    Five Newton-Schulz steps bring the singular values near 1, not to it.
    """
    gradients = random_tree(1)
    updates = muon_updates([gradients])
    for module, name in KERNELS:
        for update, gradient in zip(
            gate_matrices(updates[module][name]),
            gate_matrices(gradients[module][name]),
            strict=True,
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


def test_all_other_parameters_of_muon_follow_adam():
    gradients = [random_tree(seed) for seed in (1, 2, 3)]
    found = muon_updates(gradients)
    adam = optax.adam(RATE, nesterov=True)
    state, step = adam.init(random_tree(0)), jax.jit(adam.update)
    for gradient in gradients:
        expected, state = step(gradient, state)
    for module, name in (("conv", "bias"), ("conv", "peephole"), ("output", "kernel")):
        np.testing.assert_allclose(
            found[module][name], expected[module][name], rtol=1e-5
        )


def test_momentum_of_muon_forgets_a_tenth_a_step():
    """The second update is that of a lone gradient, the two steps' Nesterov mean.

    With momentum m = 0.1 (0.9 g1 + g2), Nesterov steps along 0.9 m + 0.1 g2; the bias
    corrections change the weights of the two terms only.
    """
    first, second = random_tree(1), random_tree(2)
    ahead, now = 1 / (1 - 0.9**3), 1 / (1 - 0.9**2)
    combined = jax.tree.map(
        lambda a, b: 0.9 * ahead * 0.1 * (0.9 * a + b) + 0.1 * now * b, first, second
    )
    found, expected = muon_updates([first, second]), muon_updates([combined])
    for module, name in KERNELS:
        np.testing.assert_allclose(
            found[module][name], expected[module][name], rtol=1e-3, atol=1e-6
        )
