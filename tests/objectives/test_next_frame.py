import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models.network import Forecast
from convlstm_jax.models.next_frame import NextFramePredictor, NextFrameTrainingConfig
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.training.optimizer import AdadeltaConfig
from convlstm_jax.training.sharding import data_mesh, put_batch, replicated
from convlstm_jax.training.state import TrainState
from convlstm_jax.training.steps import make_eval_step, make_train_step
from tests.trees import random_like

FRAME_SHAPE = (4, 5, 1)


def make_task(causal_head=True, **fields):
    model = NextFramePredictor((3, 2), (3, 3), 2, causal_head=causal_head)
    training = NextFrameTrainingConfig(**fields)
    return ForecastObjective(model, 3, 4, training=training)


@functools.cache
def variables():
    """Random distinct values; positive ones where variances stand."""
    init = make_task().init
    shapes = jax.eval_shape(lambda key: init(key, FRAME_SHAPE), jax.random.key(0))
    drawn = random_like(shapes, seed=1)
    for statistics in drawn["batch_stats"].values():
        statistics["var"] = np.abs(statistics["var"]) + np.float32(0.2)
    return drawn


def noisy_batch(clips=2, seed=0):
    generator = np.random.default_rng(seed)
    clean = generator.integers(0, 2, (clips, 7, *FRAME_SHAPE), dtype=np.uint8)
    noise = generator.choice([-0.1, 0.1], clean.shape)
    return {"frames": np.float32(clean + noise), "targets": 255 * clean}


@pytest.mark.parametrize("causal_head", [True, False])
def test_the_roll_out_is_the_naive_one(causal_head):
    """Predict from the whole track, keep the last frame, append it, begin again."""
    task = make_task(causal_head)
    inputs = noisy_batch()["frames"][:, :3]

    @jax.jit
    def naive(inputs):
        track, kept = inputs, []
        for _ in range(4):
            kept.append(task.model.apply(variables(), track)[:, -1:])
            track = jnp.concatenate([track, jax.nn.sigmoid(kept[-1])], axis=1)
        return jnp.concatenate(kept, axis=1)

    found = jax.jit(lambda x: task.forecast(variables(), x, 4).logits)(inputs)
    np.testing.assert_allclose(found, naive(inputs), rtol=1e-5, atol=1e-5)
    assert np.abs(np.diff(found, axis=1)).max((0, 2, 3, 4)).min() > 1e-4


@pytest.mark.parametrize(("num_training_frames", "last"), [(0, 7), (5, 5), (2, 2)])
def test_the_loss_is_that_of_every_next_clean_frame(num_training_frames, last):
    """Frames 0 … T−2 are read with noise, frames 1 … T−1 scored without."""
    task = make_task(num_training_frames=num_training_frames)
    batch = noisy_batch()

    @jax.jit
    def run(batch):
        losses = task.loss_fn(variables(), batch, jax.random.key(0), 0)
        logits, state = task.model.apply(
            variables(), batch["frames"][:, : last - 1], train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        return losses, logits, state

    (losses, model_state), logits, state = run(batch)
    target = batch["targets"][:, 1:last] / 255
    nats = np.logaddexp(0, logits) - logits * target
    np.testing.assert_allclose(
        losses, nats.sum((2, 3, 4)).mean(1), rtol=1e-5, atol=1e-5
    )
    assert set(model_state) == {"batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, model_state, state)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(),
        model_state["batch_stats"],
        variables()["batch_stats"],
    )
    assert min(jax.tree.leaves(moved)) > 0


OPTIMIZER = AdadeltaConfig(learning_rate=1.0).build(9, 9)


@functools.cache
def compiled_train_step(devices):
    mesh = data_mesh(jax.devices()[:devices])
    step = make_train_step(make_task(), OPTIMIZER, mesh, seed=0)
    lowered = step.lower(new_state(mesh), put_batch(noisy_batch(8), mesh))
    return lowered.compile()


def new_state(mesh):
    params = variables()["params"]
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={"batch_stats": variables()["batch_stats"]},
        opt_state=OPTIMIZER.init(params),
        ema_params=None,
        finite=jnp.ones((), bool),
    )
    return jax.tree.map(jnp.copy, jax.device_put(state, replicated(mesh)))


def test_statistics_are_those_of_the_whole_batch_on_any_number_of_devices():
    states = []
    for devices in (1, 8):
        mesh = data_mesh(jax.devices()[:devices])
        state = new_state(mesh)
        for number in range(2):
            batch = put_batch(noisy_batch(8, number), mesh)
            state, logs = compiled_train_step(devices)(state, batch)
            assert logs["finite"]
        states.append(jax.device_get(state))
    alone, shared = states
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, shared.model_state, alone.model_state)
    jax.tree.map(close, shared.params, alone.params)


def test_evaluation_is_against_the_clean_frames():
    """The model reads noise and is scored without; copying copies the noise."""
    task, batch = make_task(), noisy_batch()
    step = make_eval_step(task, data_mesh(jax.devices()[:1]), with_baselines=True)
    sums = step(variables(), {**batch, "weight": np.ones(2, np.float32)})
    inputs, target = batch["frames"][:, :3], batch["targets"][:, 3:] / np.float32(255)
    prediction = task.forecast(variables(), inputs, 4).frames
    pixels = (0, 2, 3, 4)
    for name, frames in (
        ("model", np.asarray(prediction)), ("copy_last", inputs[:, -1:]), ("zeros", 0),
    ):  # fmt: skip
        expected = np.square(frames - target).sum(pixels)
        np.testing.assert_allclose(sums[name]["sums"]["mse"], expected, rtol=1e-4)


def test_given_frames_need_not_be_scored():
    """Then the loss is that of the predictions that follow the given frames."""
    task = make_task()
    batch, key = noisy_batch(), jax.random.key(0)

    @jax.jit
    def run(variables):
        logits, _ = task.model.apply(
            variables, batch["frames"][:, :-1], train=True, mutable=["batch_stats"]
        )
        later = logits[:, 2:]  # Of frames 3 to 6; three are given.
        truth = batch["targets"][:, 3:] / np.float32(255)
        expected = task.score(Forecast(jax.nn.sigmoid(later), later), truth)
        found, _ = make_task(score_inputs=False).loss_fn(variables, batch, key, 0)
        return found, expected, task.loss_fn(variables, batch, key, 0)[0]

    found, expected, of_all = run(variables())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - of_all).min() > 1e-3
