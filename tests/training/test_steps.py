"""The steps on a model of a few hundred parameters, on 1, 2 and 8 devices."""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.training.optimizer import AdamConfig
from convlstm_jax.training.sharding import data_mesh, put_batch, replicated
from convlstm_jax.training.state import TrainState, init_state
from convlstm_jax.training.steps import make_eval_step, make_train_step
from tests.trees import random_like

FRAME_SHAPE = (8, 6, 1)
TASK = ForecastObjective(EncoderForecaster((3, 2), 3, 3, patch_size=2), 3, 2)
OPTIMIZER = AdamConfig(learning_rate=0.01).build(100, 100)
EMA_DECAY = 0.8

# Compiling is what these tests take their time for; of the numbers nothing is lost,
# nor does it change what moves between devices.
COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}


def mesh_of(devices):
    return data_mesh(jax.devices()[:devices])


def make_batch(seed=0):
    generator = np.random.default_rng(seed)
    return {"frames": generator.integers(0, 256, (8, 5, *FRAME_SHAPE), dtype=np.uint8)}


@functools.cache
def initial_params():
    """Random distinct parameters (without the seconds that JAX's draws compile)."""
    shapes = jax.eval_shape(
        lambda key: TASK.init(key, FRAME_SHAPE)["params"], jax.random.key(0)
    )
    return random_like(shapes, 0.3, seed=3)


def make_state(mesh, with_ema=False):
    params = initial_params()
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={},
        opt_state=OPTIMIZER.init(params),
        ema_params=params if with_ema else None,
        finite=jnp.ones((), bool),
    )
    # A copy, for the step takes the state's buffers.
    return jax.tree.map(jnp.copy, jax.device_put(state, replicated(mesh)))


@functools.cache
def compiled_train_step(devices):
    mesh = mesh_of(devices)
    step = make_train_step(TASK, OPTIMIZER, mesh, seed=0)
    lowered = step.lower(make_state(mesh), put_batch(make_batch(), mesh))
    return lowered.compile(COMPILER_OPTIONS)


def train(devices, num_steps):
    """State and losses after so many steps on so many devices."""
    mesh, step = mesh_of(devices), compiled_train_step(devices)
    state, losses = make_state(mesh), []
    for seed in range(num_steps):
        state, logs = step(state, put_batch(make_batch(seed), mesh))
        losses.append(float(logs["loss"]))
    return jax.device_get(state), losses


def assert_trees_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("devices", [2, 8])
def test_the_number_of_devices_does_not_change_training(devices):
    """Four steps of Adam: losses to 1e-6 of their size, parameters to 1e-5."""
    (alone, losses_alone), (state, losses) = train(1, 4), train(devices, 4)
    if devices == 2:  # The same again gives the same bits.
        assert_trees_equal(train(devices, 4), (state, losses))
    np.testing.assert_allclose(losses, losses_alone, rtol=1e-6)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5),
        state.params,
        alone.params,
    )
    assert state.step == alone.step == 4
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), state.params, initial_params()
    )
    assert min(jax.tree.leaves(moved)) > 1e-3


def collectives(compiled):
    pattern = (
        r"all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce"
        r"|collective-broadcast"
    )
    return set(re.findall(pattern, compiled.as_text()))


def test_devices_exchange_sums_alone():
    """No activation moves between devices: the batch stays where it was put."""
    assert collectives(compiled_train_step(8)) == {"all-reduce"}
    assert collectives(compiled_train_step(1)) == set()


def test_the_step_reports_loss_and_gradient_norm_and_takes_the_state():
    mesh = mesh_of(1)
    batch, state = put_batch(make_batch(), mesh), make_state(mesh)

    @functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
    def loss_and_norm(params):
        def loss(params):
            variables = {"params": params}
            return TASK.loss_fn(variables, batch, jax.random.key(0), 0)[0].mean()

        value, gradients = jax.value_and_grad(loss)(params)
        return value, optax.tree.norm(gradients)

    expected = loss_and_norm(initial_params())
    new_state, logs = compiled_train_step(1)(state, batch)
    assert set(logs) == {"loss", "gradient_norm", "finite"}
    found = (logs["loss"], logs["gradient_norm"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert logs["finite"]
    assert new_state.eval_variables == {"params": new_state.params}
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_what_is_not_finite_leaves_the_state_as_it_was_for_good():
    """Parameters, optimizer, average and step number; later good batches as well."""
    mesh = mesh_of(1)
    jitted = make_train_step(TASK, OPTIMIZER, mesh, seed=0, ema_decay=EMA_DECAY)
    good = {"frames": np.float32(make_batch()["frames"]) / 255}
    bad = {"frames": good["frames"].copy()}
    bad["frames"][5, 1, 2, 3] = np.nan
    state = make_state(mesh, with_ema=True)
    lowered = jitted.lower(state, put_batch(good, mesh))
    step = lowered.compile(COMPILER_OPTIONS)
    state, logs = step(state, put_batch(good, mesh))
    assert logs["finite"]
    kept = jax.device_get(state)
    # The average after one step, by hand.
    expected = jax.tree.map(
        lambda new, old: EMA_DECAY * old + (1 - EMA_DECAY) * new,
        kept.params,
        initial_params(),
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, kept.ema_params, expected)
    assert kept.eval_variables == {"params": kept.ema_params}
    assert kept.step == 1
    assert kept.finite
    for batch in (bad, good):
        state, logs = step(state, put_batch(batch, mesh))
        assert not logs["finite"]
        assert np.isfinite(logs["loss"]) == (batch is good)
        assert_trees_equal(jax.device_get(state), kept.replace(finite=np.array(False)))


def test_init_state():
    def draw(key, frame_shape):
        return {"params": {"kernel": jax.random.normal(key, frame_shape)}}

    objective, mesh = types.SimpleNamespace(init=draw), mesh_of(8)
    init = functools.partial(init_state, objective, OPTIMIZER, frame_shape=FRAME_SHAPE)
    state = init(seed=4, with_ema=True, mesh=mesh)
    expected = draw(jax.random.key(4), FRAME_SHAPE)["params"]
    assert_trees_equal(state.params, expected)
    assert_trees_equal(state.ema_params, expected)
    assert_trees_equal(state.opt_state, OPTIMIZER.init(expected))
    assert (state.step, state.step.dtype, bool(state.finite)) == (0, jnp.int32, True)
    leaves = jax.tree.leaves(state)
    assert all(leaf.sharding == replicated(mesh) for leaf in leaves)
    # No buffer is shared: a step gives them all away.
    places = {leaf.addressable_data(0).unsafe_buffer_pointer() for leaf in leaves}
    assert len(places) == len(leaves)
    assert init(seed=5, with_ema=False, mesh=mesh_of(1)).ema_params is None


def test_eval_step_sums_the_rows_that_count():
    """Per lead time, in a batch over eight devices, whatever stands in other rows."""
    mesh = mesh_of(8)
    step = make_eval_step(TASK, mesh, with_baselines=True)
    frames = make_batch()["frames"] / np.float32(255)
    weight = np.float32([1, 0, 1, 1, 0, 1, 1, 1])
    frames[1] = np.nan
    params = jax.device_put({"params": initial_params()}, replicated(mesh))
    batch = put_batch({"frames": frames, "weight": weight}, mesh)
    compiled = step.lower(params, batch).compile(COMPILER_OPTIONS)
    assert collectives(compiled) == {"all-reduce", "all-gather"}
    sums = jax.device_get(compiled(params, batch))
    clip_mse = sums.pop("clip_mse")
    assert set(sums) == {"model", "copy_last", "zeros"}
    for contender in sums.values():
        assert contender["count"] == 6
        assert contender["sums"].pop("correlation_moments").shape == (2, 8)
        assert all(values.shape == (2,) for values in contender["sums"].values())
    counted, pixels = frames[weight > 0], (0, 2, 3, 4)
    last, target = counted[:, 2:3], counted[:, 3:5]

    variables = {"params": initial_params()}
    forecast = jax.jit(TASK.forecast, static_argnums=2)(variables, counted[:, :3], 2)
    prediction = 1 / (1 + np.exp(-forecast.logits))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    for name, frames in (("model", prediction), ("copy_last", last), ("zeros", 0)):
        found = sums[name]["sums"]
        close(found["mse"], np.square(frames - target).sum(pixels))
        close(found["mae"], np.abs(frames - target).sum(pixels))
        assert "loss" not in found
    close(clip_mse[weight > 0], np.square(prediction - target).sum((2, 3, 4)).mean(1))
    assert (clip_mse[weight == 0] == -np.inf).all()


def test_a_validation_scores_the_model_alone_and_adds_the_loss():
    step = make_eval_step(TASK, mesh_of(1), with_baselines=False)
    frames = make_batch()["frames"] / np.float32(255)
    weight = np.float32([0, 1, 1, 1, 1, 1, 0, 1])
    variables, batch = {"params": initial_params()}, {"frames": frames}
    sums = step(variables, {**batch, "weight": weight})
    assert set(sums) == {"model"}
    losses, _ = TASK.loss_fn(variables, batch, jax.random.key(0), 0)
    expected = losses[weight > 0].sum()
    np.testing.assert_allclose(sums["model"]["sums"]["loss"], [expected] * 2, rtol=1e-5)
