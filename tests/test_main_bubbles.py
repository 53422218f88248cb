"""Bubbles as a user runs them: the model's size, and a folder of films."""

import csv

import numpy as np
import pytest

from convlstm_jax.cli import build
from convlstm_jax.viz.clip_writer import write_clip
from tests.program import experiment_of, results_of, run, trained_model

TINY = [
    "--config=configs/bubbles.py:quick", "--config.model.features=2",
    "--config.model.kernel_sizes=3", "--config.model.num_normalized_layers=1",
    "--config.task.num_input_frames=2", "--config.task.num_output_frames=2",
    "--config.data.height=24", "--config.data.width=20", "--config.train.num_steps=2",
    "--config.train.batch_size=8", "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8", "--config.train.num_pictures=1",
    "--config.eval.batch_size=8", "--config.eval.num_pictures=1",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("at_root")


def forecast_errors(folder, clips):
    """Squared error of each clip, by the task itself."""
    task, _, variables = trained_model(folder)
    frames = np.stack([clip["frames"] for clip in clips]) / np.float32(255)
    prediction = task.forecast(variables, frames[:, :2], 2).frames
    return np.square(np.asarray(prediction) - frames[:, 2:]).sum((2, 3, 4)).mean(1)


def write_films(folder):
    """Lossless films of noise in three folders, the last of them truncated."""
    for number in range(9):
        frames = np.random.default_rng(number).random((9, 24, 20, 1))
        place = folder / ("slow", "fast", "medium")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        write_clip(place / f"film{number}.gif", frames)
    path = place / "film8.gif"
    path.write_bytes(path.read_bytes()[:-200])
    return [f"--config.data.path={folder}", "--config.data.condition=folder"]


@pytest.mark.slow
def test_a_folder_of_films_is_reported_for_each_condition(tmp_path):
    """Conditions that are kept for the test alone; a bad film is counted."""
    films, folder = write_films(tmp_path / "films"), tmp_path / "run"
    flags = [*TINY, *films, f"--workdir={folder}", "--config.data.bad_files=skip"]
    assert run(*flags, "--config.data.test_conditions=fast,slow") == 0
    sources = build.build_sources(experiment_of(folder))
    assert "film8.gif" in sources.description
    clips = [sources.test[index] for index in range(len(sources.test))]
    names = np.array([sources.conditions[clip["condition"]] for clip in clips])
    errors = forecast_errors(folder, clips)

    results = results_of(folder)
    assert str(tmp_path / "films") in results["data"]["description"]
    assert results["data"]["num_sequences"] == len(clips)
    assert results["per_condition"].keys() == {"fast", "slow"} == set(names)
    assert results["model"]["mse"] == pytest.approx(errors.mean(), rel=1e-4)
    for name, figures in results["per_condition"].items():
        chosen = names == name
        assert figures["count"] == chosen.sum()
        assert figures["model"]["mse"] == pytest.approx(errors[chosen].mean(), rel=1e-4)
        assert figures.keys() == {"count", "model", "copy_last", "zeros"}
        assert name in (folder / "report.html").read_text()
        assert name in (folder / "log.txt").read_text()
    with (folder / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["condition"] for row in rows} == {"all", "fast", "slow"}

    # A film of another size is resized, as those of the training were.
    write_clip(tmp_path / "film.gif", np.random.default_rng(9).random((3, 48, 40, 1)))
    output = tmp_path / "next.npy"
    arguments = [f"--input={tmp_path / 'film.gif'}", f"--output={output}"]
    arguments.append("--num_frames=3")
    assert run("--mode=predict", f"--workdir={folder}", *arguments) == 0
    assert np.load(output).shape == (3, 24, 20, 1)
