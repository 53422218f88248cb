"""The worked examples of docs/contributing.md do what the page says."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import moving_mnist
from convlstm_jax.cells import CELLS
from convlstm_jax.cli.build import build_objective, build_sources, build_training
from convlstm_jax.cli.describe import describe_fields
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.data.data_sets import DATA_SETS
from convlstm_jax.errors import UserError
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from convlstm_jax.metrics.registry import METRICS, conventions, frame_metrics
from convlstm_jax.models import MODELS
from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives import OBJECTIVES
from convlstm_jax.training.optimizer import OPTIMIZERS
from convlstm_jax.training.sharding import data_mesh, put_batch
from convlstm_jax.training.steps import make_train_step

PAGE = Path(__file__).resolve().parent.parent / "docs" / "contributing.md"
SMALL = {
    "model.features": "4",
    "model.input_kernel_size": "3",
    "model.recurrent_kernel_size": "3",
    "data.name": "moving_dot",
    "data.height": "8",
    "data.width": "8",
    "task.num_input_frames": "2",
    "task.num_output_frames": "2",
    "train.batch_size": "2",
    "train.num_steps": "1",
    "optimizer.name": "adam",
}


@pytest.fixture
def examples():
    """The names that the blocks define; the registries are restored afterwards."""
    registries = (CELLS, METRICS, MODELS, DATA_SETS, OBJECTIVES, OPTIMIZERS)
    before = [dict(registry) for registry in registries]
    names = {"__name__": "examples"}
    try:
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S):
            exec(compile(block, PAGE.name, "exec"), names)
        yield names
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)


def test_the_config_field_is_parsed_validated_and_listed(examples):
    OPTIMIZERS["adam"] = examples["AdamConfig"]
    config, name = moving_mnist.get_config("quick"), "optimizer.momentum_decay"
    adam = {"optimizer.name": "adam"}
    changed = experiment(config, adam | {name: "0.8"})
    assert changed.optimizer.momentum_decay == changed.config[name] == 0.8
    assert "  momentum_decay = 0.8" in describe_fields(changed.config)
    with pytest.raises(UserError) as error:
        experiment(config, adam | {name: "1"})
    assert str(error.value) in " ".join(PAGE.read_text("utf-8").split())


def test_the_cell_runs_in_a_layer_and_in_networks(examples):
    cell = examples["ElmanCell"](3, 3, 5, dtype=jnp.float64, param_dtype=jnp.float64)
    layers = [RecurrentLayer(cell, name) for name in IMPLEMENTATIONS]
    with jax.enable_x64(True):
        inputs = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 5, 2)))
        variables = layers[0].init(jax.random.key(0), inputs)
        values = [
            jax.value_and_grad(lambda v, m=m: jnp.cos(m.apply(v, inputs)[1]).sum())(
                variables
            )
            for m in layers
        ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), *values)
    network = EncoderForecaster((3,), 3, 3, patch_size=1, cell="elman")
    init = partial(network.init, jax.random.key(0), num_frames=2)
    shapes = jax.eval_shape(init, jnp.ones((1, 2, 4, 4, 1)))
    assert set(shapes["params"]["encoder_0"]) == {
        *["input_kernel", "recurrent_kernel", "bias"]
    }


def test_the_metric_is_measured_and_explained(examples):
    clip = jnp.linspace(0, 0.5, 2 * 3 * 16).reshape(2, 3, 4, 4, 1)
    changed = clip.at[:, 1, 2, 3].add(0.25)
    measured = jax.jit(frame_metrics)(clip, changed)["max_error"]
    np.testing.assert_allclose(measured, [[0, 0.25, 0]] * 2, atol=1e-6)
    assert conventions()["max_error"].startswith("Largest absolute error")


def test_the_data_source_builds_clips(examples):
    config = DATA_SETS["moving_dot"](height=8, width=6)
    sources = config.sources(num_frames=5, seed=0)
    clip = sources.train[3]["frames"]
    assert clip.shape == (5, 8, 6, 1) and clip.dtype == np.uint8
    np.testing.assert_array_equal((clip == 255).sum(axis=(1, 2, 3)), 1)
    np.testing.assert_array_equal(clip, sources.train[3]["frames"])


def test_the_objective_trains_on_the_data_source(examples):
    overrides = SMALL | {
        "task.name": "sharp_forecast",
        "task.gradient_weight": "0.5",
    }
    objective = trained_a_step(overrides)
    assert isinstance(objective, examples["SharpForecast"])
    assert objective.gradient_weight == 0.5


def test_the_network_trains_and_reads_streams(examples):
    kernels = {"model.input_kernel_size", "model.recurrent_kernel_size"}
    small = {name: value for name, value in SMALL.items() if name not in kernels}
    objective = trained_a_step(small | {"model.name": "two_frames", "task.loss": "mse"})
    network = objective.model
    assert isinstance(network, examples["TwoFrames"])
    frames = jnp.asarray(np.random.default_rng(0).random((2, 5, 8, 8, 1)), jnp.float32)
    variables = network.init_forecaster(jax.random.key(0), (8, 8, 1))
    whole = network.forecast(variables, frames, 3).frames
    assert whole.shape == (2, 3, 8, 8, 1)
    state = network.apply(variables, frames[:, :2], method="read")
    state = network.apply(variables, frames[:, 2:], state, method="read")
    later = network.apply(variables, state, 3, method="forecast_from").frames
    np.testing.assert_array_equal(later, whole)


def trained_a_step(overrides):
    """The objective of a config, of whose parameters a step changes every one."""
    found = experiment(moving_mnist.get_config("quick"), overrides)
    objective, sources = build_objective(found), build_sources(found)
    mesh = data_mesh(jax.devices()[:1])
    optimizer, state = build_training(found, objective, mesh)
    before = jax.device_get(state.params)
    train_step = make_train_step(objective, optimizer, mesh, seed=0)
    frames = np.stack([sources.train[index]["frames"] for index in range(2)])
    state, values = train_step(state, put_batch({"frames": frames}, mesh))
    assert state.step == 1 and values["loss"] > 0
    changed = jax.tree.map(lambda a, b: np.any(a != b), before, state.params)
    assert all(jax.tree.leaves(changed))
    return objective
