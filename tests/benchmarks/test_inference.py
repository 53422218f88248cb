"""The benchmark of forecasts in small: one quick system and the classifier."""

import json

from benchmarks import gpu_checks, inference
from convlstm_jax.objectives.forecast import ForecastObjective


def test_a_forecaster_and_a_classifier(tmp_path, capsys):
    assert {"moving_mnist", "bubbles"} < set(inference.SYSTEMS)
    assert "base" not in inference.SYSTEMS
    file = tmp_path / "rows.json"
    systems = "--systems=moving_mnist_recurrent:quick,clip_classification:quick"
    arguments = [systems, "--batch-sizes=2", "--seconds=0.01", f"--json={file}"]
    assert inference.main(arguments) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["workload"] for row in rows] == [
        "moving_mnist_recurrent:quick",
        "clip_classification:quick",
    ]
    assert all(row["frames_per_second"] > 0 for row in rows)
    assert "| moving_mnist_recurrent:quick | 2 | " in capsys.readouterr().out


def test_the_checks_of_a_gpu_pass_on_a_cpu(tmp_path, monkeypatch):
    file = tmp_path / "checks.json"
    for name, size in {"FEATURES": 3, "HEIGHT": 4, "WIDTH": 5, "STEPS": 3}.items():
        monkeypatch.setattr(gpu_checks, name, size)
    cases = {name: gpu_checks.CASES[name] for name in ("rollout", "minGRU")}
    monkeypatch.setattr(gpu_checks, "CASES", cases)
    assert gpu_checks.main(["--size=64", f"--json={file}"]) == 0
    document = json.loads(file.read_text())
    assert document["matrix_product_tflop_s"] > 0
    assert {row["dtype"] for row in document["rows"]} == {"float32", "bfloat16"}
    monkeypatch.setitem(gpu_checks.TOLERANCES, ("float32", "highest"), 1e-12)
    assert gpu_checks.main(["--size=64"]) == 1


def test_a_shorter_forecast_that_differs_is_an_error(monkeypatch, capsys):
    forecast = ForecastObjective.forecast

    def by_length(task, variables, inputs, num_frames):
        found = forecast(task, variables, inputs, num_frames)
        return found._replace(frames=found.frames + 0.01 * num_frames)

    monkeypatch.setattr(ForecastObjective, "forecast", by_length)
    arguments = ["--systems=moving_mnist_recurrent:quick", "--batch-sizes=1"]
    assert inference.main([*arguments, "--seconds=0.01"]) == 1
    assert "moving_mnist_recurrent:quick: a forecast of " in capsys.readouterr().err
