"""`configs/moving_mnist_recurrent.py` as a user runs it."""

import jax
import numpy as np
import pytest

from configs import moving_mnist_recurrent
from convlstm_jax.cli import build
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.models.recurrent_predictor import SamplingConfig
from tests.program import first_test_clips, results_of, run, trained_model

TINY = [
    "--config=configs/moving_mnist_recurrent.py:quick", "--config.model.features=4",
    "--config.model.input_kernel_size=3", "--config.model.recurrent_kernel_size=3",
    "--config.task.sampling=reverse_scheduled", "--config.task.sampling_end_step=4",
    "--config.task.reverse_sampling_start_step=2",
    "--config.task.reverse_sampling_decay_steps=100",
    "--config.task.num_input_frames=3", "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn", "--config.data.height=32",
    "--config.data.width=40", "--config.optimizer.schedule=constant",
    "--config.train.num_steps=4", "--config.train.batch_size=8",
    "--config.train.eval_every_steps=2", "--config.train.num_validation_sequences=8",
    "--config.train.num_pictures=1", "--config.eval.num_sequences=8",
    "--config.eval.batch_size=8", "--config.eval.num_pictures=1",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("at_root")


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


def test_evaluation_and_prediction_are_rollouts(tmp_path):
    trained = tmp_path / "run"
    assert run(*TINY, f"--workdir={trained}") == 0
    task, _, variables = trained_model(trained)
    assert task.training == SamplingConfig(
        sampling="reverse_scheduled",
        sampling_end_step=4,
        reverse_sampling_start_step=2,
        reverse_sampling_decay_steps=100,
    )
    frames = np.stack([clip["frames"] for clip in first_test_clips(trained, 8)])
    inputs, truth = task.split(jax.numpy.asarray(frames))
    prediction = task.forecast(variables, inputs, 5).frames
    error = np.square(np.asarray(prediction[:, :2]) - truth).sum((2, 3, 4)).mean()
    assert results_of(trained)["model"]["mse"] == pytest.approx(error, rel=1e-4)

    # More frames than were trained.
    clip, output = tmp_path / "clip.npy", tmp_path / "next.npy"
    np.save(clip, frames[0, :3])
    assert run(
        "--mode=predict", f"--workdir={trained}", f"--input={clip}",
        f"--output={output}", "--num_frames=5",
    ) == 0  # fmt: skip
    np.testing.assert_allclose(np.load(output), prediction[0], atol=1e-5)
