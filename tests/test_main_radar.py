"""Nowcasting as a user runs it on a folder of composites."""

import csv

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.radar.composites import read_composite
from convlstm_jax.metrics.baselines import missing_packages
from tests.composites import write_composites
from tests.program import (
    experiment_of,
    first_test_clips,
    results_of,
    run,
    trained_model,
)

TINY = [
    "--config=configs/radar_nowcasting.py:quick", "--config.model.features=2",
    "--config.model.patch_size=4", "--config.task.num_input_frames=2",
    "--config.task.num_output_frames=3", "--config.data.height=16",
    "--config.data.width=24", "--config.data.margin=4",
    "--config.data.num_validation_sequences=8",
    "--config.data.num_test_sequences=8", "--config.train.num_steps=2",
    "--config.train.batch_size=8", "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8", "--config.train.num_pictures=1",
    "--config.eval.num_sequences=8", "--config.eval.batch_size=8",
    "--config.eval.num_pictures=1", "--config.eval.rain_thresholds=0.5,5",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("at_root")


def predict_whole_area(tmp_path, task, variables):
    """The latest two composites and no crop of them: 36×52 pixels averaged in twos."""
    output = tmp_path / "rain.npy"
    arguments = [f"--workdir={tmp_path / 'run'}", f"--output={output}"]
    assert run("--mode=predict", f"--input={tmp_path / 'radar'}", *arguments) == 0
    rain = np.load(output)
    assert rain.shape == (3, 18, 26, 1)
    assert np.isnan(rain[:, :3, :3]).all() and not np.isnan(rain[:, 3:]).any()
    data = experiment_of(tmp_path / "run").data
    files = sorted((tmp_path / "radar" / "second").iterdir())[-2:]
    read = np.stack([read_composite(file, data)[0] for file in files])
    inputs = np.where(read[:, 1] > 0, read[:, 0] / 255, np.nan)[None, ..., None]
    # Filled up to whole patches of 4×4 with what is unknown.
    padding = [(0, 0), (0, 0), (0, 2), (0, 2), (0, 0)]
    inputs = np.pad(inputs, padding, constant_values=np.nan)
    pixels = task.forecast(variables, inputs.astype(np.float32), 3).frames[0]
    pixels = pixels[:, :18, :26]
    expected = np.asarray(task.facts.rain_scale.rain_mm_per_h(pixels))
    expected = np.where(expected < 0.1, 0, expected)
    np.testing.assert_allclose(rain[:, 3:], expected[:, 3:], rtol=1e-3)
    short = tmp_path / "short"
    write_composites(short, "201609281445", 1)
    assert run("--mode=predict", f"--input={short}", *arguments) == 2


@pytest.mark.slow
def test_train_evaluate_and_predict(tmp_path):
    (tmp_path / "radar").mkdir()
    write_composites(tmp_path / "radar" / "first", "201609281445", 14)
    write_composites(tmp_path / "radar" / "second", "201705091045", 9)
    flags = [
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.path={tmp_path / 'radar'}",
        "--config.data.test_conditions=2017-05-09",
        "--config.data.downsample=2",
        "--config.data.crop_stride=2",
    ]
    assert run(*TINY, *flags) == 0

    task, _, variables = trained_model(tmp_path / "run")
    results = results_of(tmp_path / "run")
    clips = first_test_clips(tmp_path / "run", results["data"]["num_sequences"])
    frames = np.stack([clip["frames"] for clip in clips]) / np.float32(255)
    mask = np.stack([clip["mask"] for clip in clips])
    inputs = np.where(mask[:, :2] > 0, frames[:, :2], np.float32(np.nan))
    inner = np.s_[:, :, 4:-4, 4:-4]
    forecast = np.asarray(task.forecast(variables, inputs, 3).frames)[inner]
    frames, valid = frames[inner], mask[:, 2:][inner] > 0
    forecasts = {"model": forecast, "persistence": frames[:, [1, 1, 1]]}
    for name, forecast in forecasts.items():
        error = np.where(valid, forecast - frames[:, 2:], 0) ** 2
        found = results["per_lead_time"][name]["mse"]
        np.testing.assert_allclose(found, error.sum((2, 3, 4)).mean(0), rtol=1e-4)
        threshold = task.facts.rain_scale.pixel_of_rain(0.5)
        predicted, true = (x >= threshold for x in (forecast, frames[:, 2:]))
        hits = (predicted & true & valid).sum()
        csi = hits / ((predicted | true) & valid).sum()
        assert results[name]["csi_0.5_mm_per_h"] == pytest.approx(csi, abs=1e-3)
    has_flow = not missing_packages()
    assert ("optical_flow" in results) == has_flow
    assert set(results["per_condition"]) == {"2017-05-09"}
    assert "Held out for the test: 2017-05-09" in results["data"]["description"]
    means = results["model"]["mean_over_lead_times"]
    assert set(means) >= {"csi_5_mm_per_h", "fss_5_mm_per_h_5_px"}
    with (tmp_path / "run" / "evaluation.csv").open() as file:
        rows = {
            (r["contender"], r["metric"], r["lead_time"]) for r in csv.DictReader(file)
        }
    assert ("persistence", "far_5_mm_per_h", "3") in rows
    for name in ("test_00.png", "lead_time.png"):
        with Image.open(tmp_path / "run" / "pictures" / name) as picture:
            assert len(picture.convert("L").getcolors()) > 10
    predict_whole_area(tmp_path, task, variables)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "CSI at 0.5 mm/h" in report and "persistence" in report


def test_describe_the_papers_model(capsys):
    arguments = ["--config=configs/radar_nowcasting.py:paper", "--mode=describe"]
    assert run(*arguments) == 0
    assert "parameters: " in capsys.readouterr().out


def test_describe_a_nowcast_in_the_moving_frame(capsys):
    arguments = ["--config=configs/radar_nowcasting.py:quick", "--mode=describe"]
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "input: [B, T, H, W, C] = [B, 4, 64, 64, 1]" in printed
    assert "output: [B, T, H, W, C] = [B, 12, 64, 64, 1]" in printed
