"""Bubbles as a user runs them: the column that is drawn, and a folder of films."""

import csv
import json

import jax
import numpy as np
import pytest

from convlstm_jax.cli import build
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.viz.clip_writer import write_clip
from tests.program import experiment_of, run

TINY = [
    "--config.model.features=2",
    "--config.model.kernel_sizes=3",
    "--config.model.num_normalized_layers=1",
    "--config.task.num_input_frames=2",
    "--config.task.num_output_frames=2",
    "--config.data.height=24",
    "--config.data.width=20",
    "--config.train.num_steps=2",
    "--config.train.batch_size=8",
    "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8",
    "--config.train.num_pictures=1",
    "--config.eval.batch_size=8",
    "--config.eval.num_pictures=1",
]


def train(folder, *arguments):
    return run(
        "--config=configs/bubbles.py:quick", *TINY, *arguments, f"--workdir={folder}"
    )


pytestmark = pytest.mark.usefixtures("at_root", "quick_to_compile")


def forecast_errors(folder, clips):
    """Squared error of each clip, by the task itself."""
    config = experiment_of(folder)
    task = build.build_objective(config)
    _, variables = build.load_variables(
        task, config, folder, data_mesh(jax.devices()[:1])
    )
    frames = np.stack([clip["frames"] for clip in clips]) / np.float32(255)
    prediction = task.forecast(variables, frames[:, :2], 2).frames
    return np.square(np.asarray(prediction) - frames[:, 2:]).sum((2, 3, 4)).mean(1)


@pytest.mark.slow
def test_figures_are_reported_for_each_condition(tmp_path):
    """A flow rate that is kept for the test alone stands by itself there."""
    folder = tmp_path / "run"
    held_out = "--config.data.test_conditions=2 L/min,8 L/min"
    assert train(folder, held_out, "--config.eval.num_sequences=11") == 0
    config = experiment_of(folder)
    sources = build.build_sources(config)
    clips = [sources.test[index] for index in range(11)]
    conditions = np.array([clip["condition"] for clip in clips])
    names = np.array(sources.conditions)[conditions]
    errors = forecast_errors(folder, clips)

    results = json.loads((folder / "evaluation.json").read_text())
    assert results["per_condition"].keys() == {"2 L/min", "8 L/min"} == set(names)
    assert results["model"]["mse"] == pytest.approx(errors.mean(), rel=1e-4)
    for name, figures in results["per_condition"].items():
        chosen = names == name
        assert figures["count"] == chosen.sum()
        assert figures["model"]["mse"] == pytest.approx(errors[chosen].mean(), rel=1e-4)
        assert figures.keys() == {"count", "model", "copy_last", "zeros"}
    with (folder / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["condition"] for row in rows} == {"all", "2 L/min", "8 L/min"}
    for name in ("2 L/min", "8 L/min"):
        assert name in (folder / "report.html").read_text()
        assert name in (folder / "log.txt").read_text()


def write_films(folder, num_films=6, num_frames=9):
    """Films of noise in two folders, lossless."""
    for number in range(num_films):
        frames = np.random.default_rng(number).random((num_frames, 24, 20, 1))
        place = folder / ("fast" if number % 2 else "slow")
        place.mkdir(parents=True, exist_ok=True)
        write_clip(place / f"film{number}.gif", frames)
    return folder


@pytest.mark.slow
def test_a_folder_of_films(tmp_path, capsys):
    films, folder = write_films(tmp_path / "films"), tmp_path / "run"
    flags = [f"--config.data.path={films}", "--config.data.condition=folder"]
    flags.append("--config.data.test_conditions=fast")
    assert train(folder, *flags) == 0
    results = json.loads((folder / "evaluation.json").read_text())
    assert results["per_condition"].keys() == {"fast"}
    assert results["data"]["num_sequences"] == results["per_condition"]["fast"]["count"]
    assert str(films) in results["data"]["description"]

    # A film of another size is resized, as those of the training were.
    write_clip(tmp_path / "film.gif", np.random.default_rng(9).random((3, 48, 40, 1)))
    output = tmp_path / "next.npy"
    arguments = [f"--input={tmp_path / 'film.gif'}", f"--output={output}"]
    arguments.append("--num_frames=3")
    assert run("--mode=predict", f"--workdir={folder}", *arguments) == 0
    assert np.load(output).shape == (3, 24, 20, 1)
    capsys.readouterr()


def test_bad_films_are_refused_or_skipped_and_counted(tmp_path, capsys):
    films = write_films(tmp_path / "films")
    cut = films / "slow" / "cut.gif"
    cut.write_bytes((films / "slow" / "film0.gif").read_bytes()[:-200])
    flags = [f"--config.data.path={films}"]
    assert train(tmp_path / "refused", *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "cut.gif" in error

    assert train(tmp_path / "skipped", *flags, "--config.data.bad_files=skip") == 0
    sources = build.build_sources(experiment_of(tmp_path / "skipped"))
    assert "cut.gif" in sources.description
    assert len(sources.train) + len(sources.validation) + len(sources.test) >= 12


def test_a_folder_without_films_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert train(tmp_path / "run", f"--config.data.path={tmp_path}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and str(tmp_path) in error


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("20to1", "10,178,497"),
        ("20to20", "10,178,497"),
        ("5to5", "10,178,497"),
        ("20to1-256", "38,490,049"),
        ("20to20-256", "38,490,049"),
        ("5to5-256", "38,490,049"),
    ],
)
def test_describe(preset, parameters, capsys):
    assert run(f"--config=configs/bubbles.py:{preset}", "--mode=describe") == 0
    assert f"parameters: {parameters}" in capsys.readouterr().out.splitlines()
