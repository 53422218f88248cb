"""A model, here an untrained one, on all composites of a folder."""

import json

import jax
import numpy as np
import pytest

from configs import radar_nowcasting
from convlstm_jax.cli import evaluate, evaluate_folder
from convlstm_jax.cli.build import build_objective
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.data.radar.composites import read_composite
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import missing_packages, steps
from convlstm_jax.objectives.whole_area import WholeArea
from tests.composites import write_composites


def variables_of(objective):
    return objective.init(jax.random.key(0), (16, 16, 1))


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    monkeypatch.setattr(
        evaluate_folder, "load_variables", lambda of, *_: (7, variables_of(of))
    )


def chosen(tmp_path, **fields):
    overrides = {
        "data.path": str(tmp_path), "data.downsample": "2", "data.margin": "2",
        "model.features": "2", "model.patch_size": "4", "task.num_input_frames": "3",
        "task.num_output_frames": "2", "task.motion": "none",
    } | {name.replace("__", "."): value for name, value in fields.items()}  # fmt: skip
    return experiment(radar_nowcasting.get_config("quick"), overrides)


def test_every_start_time_over_the_whole_area(tmp_path):
    folder = tmp_path / "radar"
    folder.mkdir()
    write_composites(folder / "a", "201609281445", 6)
    write_composites(folder / "b", "201705091045", 5)
    config = chosen(folder)
    evaluate.run(config, workdir=tmp_path, input=folder)
    result = json.loads((tmp_path / "evaluation_radar.json").read_text())
    assert (tmp_path / "evaluation_radar.csv").exists() and result["step"] == 7
    assert result["data"]["num_sequences"] == 3
    counts = {date: one["count"] for date, one in result["per_condition"].items()}
    assert counts == {"2016-09-28": 2, "2017-05-09": 1}
    assert ("s_prog" in result) == ("optical_flow" in result)
    assert ("s_prog" in result) == (not missing_packages())
    assert ("steps" in result) == (not missing_packages())

    objective = build_objective(config)
    forecast = WholeArea(objective, variables_of(objective), 4)
    errors = {"model": [], "persistence": []}
    for event in ("a", "b"):
        files = sorted((folder / event).iterdir())
        read = [read_composite(file, config.data)[0] for file in files]
        for start in range(len(read) - 4):
            frames, mask = np.stack(read[start : start + 5], axis=1)
            frames = frames / np.float32(255)
            known = np.where(mask > 0, frames, np.float32(np.nan))[:3, ..., None]
            found = {"model": forecast(known, 2)[..., 0], "persistence": frames[[2, 2]]}
            for name, one in found.items():
                error = np.where(mask[3:] > 0, one - frames[3:], 0) ** 2
                errors[name].append(error.sum((1, 2)))
    for name, of_clips in errors.items():
        np.testing.assert_allclose(
            result["per_lead_time"][name]["mse"], np.mean(of_clips, 0), rtol=1e-3
        )


@pytest.mark.skipif(bool(missing_packages()), reason="needs requirements-radar.txt")
def test_an_ensemble_stands_beside_that_of_pysteps(tmp_path, monkeypatch):
    write_composites(tmp_path / "radar", "201609281445", 5)
    asked = {}

    def recorded(*arguments, **settings):
        asked.update(settings)
        return steps(*arguments, **settings)

    monkeypatch.setattr(evaluate_folder, "steps", recorded)
    config = chosen(
        tmp_path / "radar", task__motion="optical_flow", task__num_members="3"
    )
    evaluate.run(config, workdir=tmp_path, input=tmp_path / "radar")
    result = json.loads((tmp_path / "evaluation_radar.json").read_text())
    assert asked == {"num_members": 3, "km_per_pixel": 2.0, "minutes_per_frame": 5.0}
    for name in ("model", "steps"):
        assert len(result["diagrams"][name]["rank_histogram"]) == 4
        assert result[name]["crps"] > 0 and result[name]["ensemble_spread"] > 0
    mae = result["optical_flow"]["ensemble_error"]
    assert 0 < result["optical_flow"]["crps"] < mae  # Of one forecast: MAE and RMSE.


def test_every_other_start_time(tmp_path):
    write_composites(tmp_path / "radar", "201609281445", 9)
    write_composites(tmp_path / "radar", "201609281540", 3)
    evaluate.run(
        chosen(tmp_path / "radar"), workdir=tmp_path, input=tmp_path / "radar", every=2
    )
    result = json.loads((tmp_path / "evaluation_radar.json").read_text())
    assert result["data"]["num_sequences"] == 3
    description = result["data"]["description"]
    assert "from one of every 2 start times. Time steps missing: 2." in description


def test_what_is_refused(tmp_path):
    folder = tmp_path / "radar"
    write_composites(folder, "201609281445", 4)
    with pytest.raises(UserError, match="at most 4 composites in a row: it must have"):
        evaluate.run(chosen(folder), workdir=tmp_path, input=folder)
    with pytest.raises(UserError, match="--every needs --input"):
        evaluate.run(chosen(folder), workdir=tmp_path, every=2)
    located = chosen(folder, model__peephole="location")
    with pytest.raises(UserError, match="cannot be measured on a whole area"):
        evaluate.run(located, workdir=tmp_path, input=folder)
    synthetic = experiment(radar_nowcasting.get_config("quick"), {})
    with pytest.raises(UserError, match="--input is for models of radar composites"):
        evaluate.run(synthetic, workdir=tmp_path, input=folder)
