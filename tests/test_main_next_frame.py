"""The next-frame experiments as a user runs them."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.cli import build
from convlstm_jax.training.sharding import data_mesh
from tests.program import experiment_of, run

TINY = [
    "--config.model.features=2,2",
    "--config.model.kernel_sizes=3,1",
    "--config.model.num_normalized_layers=1",
    "--config.task.num_input_frames=2",
    "--config.task.num_output_frames=3",
    "--config.data.num_validation_sequences=8",
    "--config.data.num_test_sequences=8",
    "--config.train.batch_size=8",
    "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8",
    "--config.train.num_pictures=1",
    "--config.eval.num_sequences=8",
    "--config.eval.batch_size=8",
    "--config.eval.num_pictures=1",
]
EXPERIMENTS = {
    "moving_mnist_next_frame": [
        "--config.data.digits=sklearn",
        "--config.data.height=28",
        "--config.data.width=32",
    ],
    "moving_squares": [
        "--config.data.height=16",
        "--config.data.width=12",
        "--config.task.num_training_frames=4",
    ],
}


def train(experiment, folder, num_steps):
    config = f"--config=configs/{experiment}.py:quick"
    flags = [*TINY, *EXPERIMENTS[experiment], f"--workdir={folder}"]
    assert run(config, *flags, f"--config.train.num_steps={num_steps}") == 0


def saved(folder):
    config = experiment_of(folder)
    task = build.build_objective(config)
    mesh = data_mesh(jax.devices()[:1])
    step, variables = build.load_variables(task, config, folder, mesh)
    return config, task, step, jax.device_get(variables)


pytestmark = pytest.mark.usefixtures("at_root", "quick_to_compile")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_train_evaluate_and_predict(experiment, tmp_path, capsys):
    folder = tmp_path / "run"
    train(experiment, folder, 2)
    with Image.open(folder / "pictures" / "test_00.png") as strip:
        assert len(strip.convert("L").getcolors()) > 10
    config, task, _, variables = saved(folder)
    results = json.loads((folder / "evaluation.json").read_text())
    assert ("digits" in results["data"]) == (experiment == "moving_mnist_next_frame")

    # Scored against frames without noise, from given frames with it.
    test = build.build_sources(config).test
    clips = [test[index] for index in range(8)]
    frames = np.stack([clip["frames"] for clip in clips])
    if frames.dtype == np.uint8:
        frames = frames / np.float32(255)
    truth = frames
    if experiment == "moving_squares":
        truth = np.stack([clip["targets"] for clip in clips]) / 255
        assert np.abs(truth - frames).max() > 0.05
    prediction = task.forecast(variables, frames[:, :2], 3).frames
    for name, forecast in (
        ("model", np.asarray(prediction)),
        ("copy_last", frames[:, 1:2]),
        ("zeros", 0),
    ):
        error = np.square(forecast - truth[:, 2:]).sum((2, 3, 4)).mean(0)
        found = results["per_lead_time"][name]["mse"]
        np.testing.assert_allclose(found, error, rtol=1e-4)

    np.save(tmp_path / "clip.npy", np.clip(frames[0], 0, 1))
    arguments = [f"--input={tmp_path / 'clip.npy'}", f"--output={tmp_path / 'out.npy'}"]
    capsys.readouterr()
    assert run("--mode=predict", f"--workdir={folder}", *arguments) == 0
    assert "3 frames" in capsys.readouterr().out
    inputs = np.clip(frames[:1, -2:], 0, 1)
    expected = task.forecast(variables, inputs, 3).frames[0]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("experiment", "parameters", "with_statistics"),
    [
        ("moving_mnist_next_frame", "746,433", "746,689"),
        ("moving_squares", "406,681", "407,001"),
    ],
)
@pytest.mark.parametrize("causal", ["true", "false"])
def test_describe(experiment, parameters, with_statistics, causal, capsys):
    config = f"--config=configs/{experiment}.py:keras"
    assert run(config, "--mode=describe", f"--config.model.causal_head={causal}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {parameters}" in lines
    assert f"with batch statistics: {with_statistics}" in lines
