"""`configs/moving_mnist_recurrent.py` as a user runs it."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import moving_mnist_recurrent
from convlstm_jax.cli import build
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.models.recurrent_predictor import SamplingConfig
from convlstm_jax.training.sharding import data_mesh
from tests.program import experiment_of, run

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "--config=configs/moving_mnist_recurrent.py"
TINY = [
    f"{CONFIG}:quick",
    "--config.model.features=4",
    "--config.model.input_kernel_size=3",
    "--config.model.recurrent_kernel_size=3",
    "--config.task.sampling=reverse_scheduled",
    "--config.task.sampling_end_step=4",
    "--config.task.reverse_sampling_start_step=2",
    "--config.task.reverse_sampling_decay_steps=100",
    "--config.task.num_input_frames=3",
    "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn",
    "--config.data.height=32",
    "--config.data.width=40",
    "--config.optimizer.schedule=constant",
    "--config.train.batch_size=8",
    "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8",
    "--config.train.num_pictures=1",
    "--config.eval.num_sequences=8",
    "--config.eval.batch_size=8",
    "--config.eval.num_pictures=1",
]


pytestmark = pytest.mark.usefixtures("at_root")


def final_variables(folder):
    config = experiment_of(folder)
    mesh = data_mesh(jax.devices()[:1])
    task = build.build_objective(config)
    step, variables = build.load_variables(task, config, folder, mesh)
    return task, step, jax.device_get(variables)


@pytest.mark.parametrize(
    ("preset", "count", "products"),
    [
        ("small", "11,675,648", "56,790,351,872 (56.8 G)"),
        ("large", "26,115,072", "127,023,710,208 (127.0 G)"),
        ("quick", "129,536", None),
    ],
)
def test_describe(preset, count, products, capsys):
    assert run(f"{CONFIG}:{preset}", "--mode=describe") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {count}" in lines
    if products:
        assert f"multiply-adds per sample: {products}" in lines
    frames = 5 if preset == "quick" else 10
    assert f"output: [B, T, H, W, C] = [B, {frames}, 64, 64, 1]" in lines


def test_the_presets_train_as_openstl_does():
    for preset in ("small", "large"):
        config = experiment(moving_mnist_recurrent.get_config(preset))
        task = build.build_objective(config)
        assert task.training == SamplingConfig(sampling="scheduled")
        assert task.loss == "mse"
        assert (task.num_input_frames, task.num_output_frames) == (10, 10)
        assert task.model.features == (128 if preset == "small" else 192,) * 4
        assert not task.model.layer_norm
        assert task.model.forget_offset == 1
        assert config.optimizer.schedule == "one_cycle"
        assert config.optimizer.cycle_momentum
        assert config.optimizer.learning_rate == 5e-4
        assert config.train.batch_size == 16
    quick = moving_mnist_recurrent.get_config("quick")
    assert quick.task.sampling_end_step < quick.train.num_steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    former = Path.cwd()
    os.chdir(ROOT)
    try:
        assert run(*TINY, f"--workdir={folder}", "--config.train.num_steps=4") == 0
    finally:
        os.chdir(former)
    return folder


def test_evaluation_and_prediction_are_rollouts(trained, tmp_path):
    task, _, variables = final_variables(trained)
    assert task.training == SamplingConfig(
        sampling="reverse_scheduled",
        sampling_end_step=4,
        reverse_sampling_start_step=2,
        reverse_sampling_decay_steps=100,
    )
    test = build.build_sources(experiment_of(trained)).test
    frames = np.stack([test[index]["frames"] for index in range(8)])
    inputs, truth = task.split(jax.numpy.asarray(frames))
    prediction = task.forecast(variables, inputs, 5).frames
    results = json.loads((trained / "evaluation.json").read_text())
    error = np.square(np.asarray(prediction[:, :2]) - truth).sum((2, 3, 4)).mean()
    assert results["model"]["mse"] == pytest.approx(error, rel=1e-4)

    # More frames than were trained.
    clip, output = tmp_path / "clip.npy", tmp_path / "next.npy"
    np.save(clip, frames[0, :3])
    assert run(
        "--mode=predict", f"--workdir={trained}", f"--input={clip}",
        f"--output={output}", "--num_frames=5",
    ) == 0  # fmt: skip
    np.testing.assert_allclose(np.load(output), prediction[0], atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_reads_the_same_frames(trained, tmp_path):
    """Else its weights would not be the same, bit for bit."""
    folder = tmp_path / "broken"
    assert run(*TINY, f"--workdir={folder}", "--config.train.num_steps=2") == 0
    assert run(f"--workdir={folder}", "--config.train.num_steps=4") == 0
    _, whole_step, whole = final_variables(trained)
    _, step, resumed = final_variables(folder)
    assert step == whole_step == 4
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
