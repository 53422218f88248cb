"""`--mode=import` as a user runs it, and everything else on the run that it makes."""

import jax
import numpy as np
import pytest

from convlstm_jax.cli import import_weights
from convlstm_jax.cli.flags import IMPORTS_FROM
from convlstm_jax.interop.keras_weights import import_keras
from tests.interop import keras_layout, keras_networks
from tests.interop.keras_networks import Network
from tests.program import first_test_clips, results_of, run, trained_model

NETWORK = Network((2, 3), (3, 1), 1, "tanh")
LAYERS = keras_layout.layers_of(NETWORK)
RUN = [
    "--config.task.num_input_frames=2", "--config.task.num_output_frames=3",
    "--config.data.num_validation_sequences=8", "--config.data.num_test_sequences=8",
    "--config.train.batch_size=8", "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8", "--config.train.num_pictures=0",
    "--config.eval.num_sequences=8", "--config.eval.batch_size=8",
    "--config.eval.num_pictures=1",
]  # fmt: skip
SQUARES = [
    "--config=configs/moving_squares.py:quick", "--config.model.features=2,3",
    "--config.model.kernel_sizes=3,1", "--config.model.num_normalized_layers=1",
    "--config.data.height=16", "--config.data.width=12",
    "--config.task.num_training_frames=4", "--config.train.num_steps=2",
    "--config.optimizer.ema_decay=0.9", *RUN,
]  # fmt: skip
KERAS = [
    "--mode=import", "--from=keras", *SQUARES, "--config.model.causal_head=false",
    "--config.model.batch_norm_momentum=0.99",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    config = keras_layout.config_of(LAYERS, NETWORK)
    keras_layout.write_keras(path, LAYERS, config)
    return path


@pytest.mark.slow
def test_an_imported_run_is_evaluated_and_trains_on(checkpoint, tmp_path, capsys):
    """On noisy frames with clean targets, with an average of the weights."""
    folder = tmp_path / "imported"
    assert run(*KERAS, f"--checkpoint={checkpoint}", f"--workdir={folder}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"imported {checkpoint} (keras):" in lines
    assert any("cell/vars/2 " in line and "-> params/layer_1/bias" in line
               for line in lines)  # fmt: skip
    assert f"python main.py --workdir={folder}" in lines[-1]
    log = (folder / "log.txt").read_text()
    assert "-> batch_stats/normalization_0/var" in log

    task, step, variables = trained_model(folder)
    assert step == 0
    model = keras_networks.predictor(NETWORK)
    expected, _ = import_keras(checkpoint, model, keras_networks.shapes(model))
    jax.tree.map(np.testing.assert_array_equal, dict(variables), expected)
    assert not task.model.causal_head

    assert run("--mode=evaluate", f"--workdir={folder}") == 0
    results = results_of(folder)
    assert results["step"] == 0
    clips = first_test_clips(folder, 8)
    frames = np.stack([clip["frames"] for clip in clips])
    clean = np.stack([clip["targets"] for clip in clips]) / np.float32(255)
    assert np.abs(clean - frames).max() > 0.05
    inputs, truth = frames[:, :2], clean[:, 2:]
    prediction = np.asarray(task.forecast(variables, inputs, 3).frames)
    for name, forecast in (
        ("model", prediction),
        ("copy_last", frames[:, 1:2]),
        ("zeros", 0),
    ):
        error = np.square(forecast - truth).sum((2, 3, 4)).mean(0)
        found = results["per_lead_time"][name]["mse"]
        np.testing.assert_allclose(found, error, rtol=1e-4)

    assert run(f"--workdir={folder}") == 0
    _, step, trained = trained_model(folder)
    assert step == 2
    moved = np.abs(
        trained["params"]["layer_0"]["input_kernel"]
        - variables["params"]["layer_0"]["input_kernel"]
    )
    assert 0 < moved.max() < 0.5  # It went on from there.
    assert "resumed at step 0 of 2" in (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.model.causal_head=true"], "model.causal_head is True"),
        (["--config.model.features=2,4"], "does not fit the model of the config"),
        (["--from=openstl"], "config.model.name is 'next_frame': it must be 'recurr"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing_behind(
    arguments, message, checkpoint, tmp_path, capsys
):
    folder = tmp_path / "imported"
    flags = [f"--checkpoint={checkpoint}", f"--workdir={folder}"]
    assert run(*KERAS, *flags, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not folder.exists()


def test_a_folder_that_holds_a_run_is_refused(checkpoint, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    flags = [f"--checkpoint={checkpoint}", f"--workdir={tmp_path}"]
    assert run(*KERAS, *flags) == 2
    assert "holds a run: --mode=import needs a new folder" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == "{}"


def test_every_source_of_the_command_line_is_known():
    assert set(import_weights._IMPORTERS) == set(IMPORTS_FROM)
