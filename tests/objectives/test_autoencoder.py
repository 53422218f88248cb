import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.pixel import cross_entropy_from_logits
from convlstm_jax.models.autoencoder import FCLSTMAutoencoderConfig
from convlstm_jax.objectives import OBJECTIVES, DataFacts
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.steps import make_eval_step
from tests.trees import random_like

FRAME_SHAPE = (4, 6, 2)
INPUTS, OUTPUTS = 4, 3


def make_task(name, *, conditional=False, **fields):
    model = FCLSTMAutoencoderConfig(features=(5, 4), conditional=conditional)
    lengths = {"num_input_frames": INPUTS, "num_output_frames": OUTPUTS}
    config = OBJECTIVES[name](**{**lengths, **fields})
    return config.build(model, None, DataFacts())


def parameters(task):
    shapes = jax.eval_shape(lambda key: task.init(key, FRAME_SHAPE), jax.random.key(0))
    return random_like(shapes, 0.3, seed=1)


def stored_frames(num_frames=INPUTS + OUTPUTS):
    generator = np.random.default_rng(0)
    shape = (2, num_frames, *FRAME_SHAPE)
    return jnp.asarray(generator.integers(0, 256, shape, dtype=np.uint8))


def test_targets_of_the_three_tasks():
    clip = np.asarray(stored_frames()) / 255
    given, following = clip[:, :INPUTS], clip[:, INPUTS:]
    backwards = np.stack([given[:, t] for t in (3, 2, 1, 0)], axis=1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    for name, expected in {
        "reconstruct": {"reconstruction": backwards[:, :OUTPUTS]},
        "predict": {"forecast": following},
        "composite": {"reconstruction": backwards, "forecast": following},
    }.items():
        task = make_task(name)
        inputs, targets = task.targets(stored_frames())
        close(inputs, given)
        assert targets.keys() == expected.keys()
        jax.tree.map(close, targets, expected)
        inputs, target = task.split(stored_frames())
        close(inputs, given)
        close(target, expected.get("forecast", backwards[:, :OUTPUTS]))


@pytest.mark.parametrize("conditional", [False, True])
def test_the_composite_loss_is_the_sum_of_the_two(conditional):
    task = make_task("composite", conditional=conditional)
    frames, variables = stored_frames(), parameters(task)
    inputs, targets = task.targets(frames)
    key = jax.random.key(0)

    @jax.jit
    def run(variables):
        losses, state = task.loss_fn(variables, {"frames": frames}, key, 0)
        assert state == {}
        return losses, task.model.apply(variables, inputs, targets)

    losses, logits = run(variables)
    assert losses.shape == (2,)
    parts = {
        name: cross_entropy_from_logits(logits[name], target).mean(axis=1)
        for name, target in targets.items()
    }
    np.testing.assert_allclose(
        losses, parts["reconstruction"] + parts["forecast"], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["reconstruct", "predict", "composite"])
def test_unconditional_training_scores_what_evaluation_does(name):
    task = make_task(name, loss="mse_sum")
    variables, frames = parameters(task), stored_frames()

    @jax.jit
    def run(variables):
        inputs, target = task.split(frames)
        found, _ = task.loss_fn(variables, {"frames": frames}, jax.random.key(0), 0)
        forecast = task.forecast(variables, inputs, OUTPUTS)
        outputs = task.outputs(variables, inputs, target)
        expected = sum(task.score(*output) for output in outputs.values())
        return found, expected, forecast, outputs["model"][0], len(outputs)

    found, expected, forecast, again, count = run(variables)
    assert count == (2 if name == "composite" else 1)
    np.testing.assert_array_equal(again.frames, forecast.frames)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        forecast.frames, 1 / (1 + np.exp(-forecast.logits)), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["reconstruct", "composite"])
def test_a_conditional_forecast_is_made_of_the_inputs_alone(name):
    """Longer ones begin as shorter ones; training's differ, as they see the truth."""
    task = make_task(name, conditional=True)
    variables, frames = parameters(task), stored_frames()
    inputs, targets = task.targets(frames)
    decoder = "reconstruction" if name == "reconstruct" else "forecast"
    shorter, own, longer, trained = jax.jit(
        lambda variables: (
            *(task.forecast(variables, inputs, steps).logits for steps in (2, 3, 4)),
            task.model.apply(variables, inputs, targets)[decoder],
        )
    )(variables)
    assert longer.shape == (2, 4, *FRAME_SHAPE)
    np.testing.assert_allclose(longer[:, :2], shorter, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own[:, 0], trained[:, 0], rtol=1e-4, atol=1e-6)
    assert np.abs(own - trained)[:, 1:].max((0, 2, 3, 4)).min() > 1e-4


def test_evaluation_scores_the_reconstruction_too():
    task, frames = make_task("composite"), stored_frames()
    variables, mesh = parameters(task), data_mesh(jax.devices()[:1])
    batch = {"frames": frames, "weight": jnp.ones(2)}
    figures = make_eval_step(task, mesh, with_baselines=True)(variables, batch)
    figures.pop("clip_mse")
    assert figures.keys() == {"model", "reconstruction", "copy_last", "zeros"}
    inputs, target = task.split(frames)
    reconstruction, _ = jax.jit(
        lambda variables: task.outputs(variables, inputs, target)["reconstruction"]
    )(variables)
    error = np.square(reconstruction.frames - inputs[:, ::-1]).sum((0, 2, 3, 4))
    found = figures["reconstruction"]["sums"]["mse"]
    assert found.shape == (INPUTS,)
    np.testing.assert_allclose(found, error, rtol=1e-4)
    validation = make_eval_step(task, mesh, with_baselines=False)(variables, batch)
    losses, _ = jax.jit(task.loss_fn)(variables, batch, jax.random.key(0), 0)
    np.testing.assert_allclose(
        validation["model"]["sums"]["loss"], np.full(OUTPUTS, losses.sum()), rtol=1e-5
    )
