"""The program as a user runs it: train, evaluate, predict, describe, kill, resume."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.cli import build
from convlstm_jax.metrics.vmaf import find_ffmpeg
from convlstm_jax.training.sharding import data_mesh
from tests.program import experiment_of, run
from tests.read_clip import read_clip

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "--config=configs/moving_mnist.py:quick",
    "--config.model.features=4",
    "--config.task.num_input_frames=3",
    "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn",
    "--config.data.height=32",
    "--config.data.width=40",
    "--config.optimizer.ema_decay=0.5",
    "--config.train.batch_size=8",
    "--config.train.num_validation_sequences=10",
    "--config.eval.num_sequences=20",
    "--config.eval.batch_size=16",
    "--config.eval.num_pictures=2",
]


pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    former = Path.cwd()
    os.chdir(ROOT)
    try:
        assert run(
            *TINY,
            f"--workdir={folder}",
            "--config.train.num_steps=6",
            "--config.train.eval_every_steps=3",
        ) == 0  # fmt: skip
    finally:
        os.chdir(former)
    return folder


def test_training_leaves_everything_behind(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "config.json", "checkpoints", "metrics.csv", "tensorboard", "pictures",
        "evaluation.json", "evaluation.csv", "report.html", "log.txt", ".lock",
    }  # fmt: skip
    pictures = {path.name for path in (trained / "pictures").iterdir()}
    assert pictures == {
        "validation_0000003.png", "validation_0000006.png", "test.gif",
        "test_00.png", "test_00.gif", "test_01.png", "test_01.gif",
        "lead_time.png", "space_time_correlation.png", "learning_curves.png",
    }  # fmt: skip
    for name in pictures:
        with Image.open(trained / "pictures" / name) as picture:
            assert min(picture.size) > 50
            # A picture of one colour shows nothing.
            assert len(picture.convert("L").getcolors()) > 10
    log = (trained / "log.txt").read_text()
    assert "XLA_FLAGS=" in log and "scikit-learn" in log


def test_evaluation_figures(trained):
    results = json.loads((trained / "evaluation.json").read_text())
    assert results["data"]["digits"] == "sklearn"
    assert results["data"]["num_sequences"] == 20
    assert list(results)[:3] == ["model", "copy_last", "zeros"]
    for contender in ("model", "copy_last", "zeros"):
        total, by_lead_time = results[contender], results["per_lead_time"][contender]
        for metric, values in by_lead_time.items():
            assert len(values) == 2
            # A correlation is of all pixels together, no mean of others.
            if metric != "correlation":
                assert total[metric] == pytest.approx(np.mean(values))
        assert ("vmaf" in total) == (find_ffmpeg() is not None)
        assert total["mse_per_pixel"] == pytest.approx(total["mse"] / (32 * 40))
        assert total["cross_entropy_nats_per_sequence"] == pytest.approx(
            2 * total["cross_entropy_nats_per_frame"]
        )

    # The baselines' figures, from the definition.
    config = experiment_of(trained)
    test = build.build_sources(config).test
    clips = np.stack([test[index]["frames"] for index in range(20)]) / 255
    inputs, truth = clips[:, :3], clips[:, 3:]
    zeros = (truth**2).sum((2, 3, 4)).mean(0)
    copied = ((inputs[:, -1:] - truth) ** 2).sum((2, 3, 4)).mean(0)
    lead = results["per_lead_time"]
    np.testing.assert_allclose(lead["zeros"]["mse"], zeros, rtol=1e-5)
    np.testing.assert_allclose(lead["copy_last"]["mse"], copied, rtol=1e-5)

    # The model's, from its averaged weights.
    task = build.build_objective(config)
    _, variables = build.load_variables(
        task, config, trained, data_mesh(jax.devices()[:1])
    )
    prediction = np.asarray(
        task.forecast(variables, inputs.astype(np.float32), 2).frames
    )
    error = ((prediction - truth) ** 2).sum((2, 3, 4))
    np.testing.assert_allclose(lead["model"]["mse"], error.mean(0), rtol=1e-4)
    for lead_time, found in enumerate(lead["model"]["correlation"]):
        pair = (clip[:, lead_time].ravel() for clip in (prediction, truth))
        assert found == pytest.approx(np.corrcoef(*pair)[0, 1], rel=1e-4, abs=1e-5)
    assert lead["zeros"]["correlation"] == [None, None]
    worst = sorted(error.mean(1), reverse=True)[:4]
    assert [clip["mse"] for clip in results["worst_clips"]] == pytest.approx(worst)
    for clip in results["worst_clips"]:
        assert clip["mse"] == pytest.approx(error[clip["index"]].mean(), rel=1e-4)

    with (trained / "evaluation.csv").open() as file:
        rows = {(row["contender"], row["metric"], row["lead_time"]): row["value"]
                for row in csv.DictReader(file)}  # fmt: skip
    assert float(rows["model", "ssim", "2"]) == lead["model"]["ssim"][1]
    assert float(rows["zeros", "mse", "all"]) == results["zeros"]["mse"]
    assert rows["zeros", "correlation", "all"] == ""
    assert f"{results['model']['mse']:.0f}" in (trained / "report.html").read_text()


def test_evaluate_alone_repeats_the_figures(trained, capsys):
    before = json.loads((trained / "evaluation.json").read_text())
    assert run("--mode=evaluate", f"--workdir={trained}") == 0
    assert json.loads((trained / "evaluation.json").read_text()) == before
    out = capsys.readouterr().out
    assert "copy_last" in out and "report.html" in out


def test_predict_in_every_form(trained, tmp_path, capsys):
    config = experiment_of(trained)
    clip = build.build_sources(config).test[0]["frames"]
    np.save(tmp_path / "clip.npy", clip)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(clip):
        Image.fromarray(frame[..., 0]).save(tmp_path / "frames" / f"{number}.png")
    arguments = ["--mode=predict", f"--workdir={trained}"]
    for name, source, frames in (
        ("a.npy", "clip.npy", 2),
        ("b.npy", "frames", 7),
        ("c.gif", "clip.npy", 3),
        ("d.mp4", "clip.npy", 3),
        ("e.png", "clip.npy", 3),
    ):
        more = [] if frames == 2 else [f"--num_frames={frames}"]
        assert (
            run(
                *arguments,
                f"--input={tmp_path / source}",
                f"--output={tmp_path / name}",
                *more,
            )
            == 0
        )
        assert name in capsys.readouterr().out
    short, long = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert short.shape == (2, 32, 40, 1) and long.shape == (7, 32, 40, 1)
    # The same clip, whatever it came in; the first frames do not depend on the length.
    np.testing.assert_allclose(long[:2], short, atol=1e-6)
    assert len(read_clip(tmp_path / "c.gif")) == 3
    assert len(read_clip(tmp_path / "d.mp4")) == 3

    # What was predicted is what the model says of the clip's last three frames.
    task = build.build_objective(config)
    _, variables = build.load_variables(
        task, config, trained, data_mesh(jax.devices()[:1])
    )
    inputs = clip[None, -3:].astype(np.float32) / 255
    expected = np.asarray(task.forecast(variables, inputs, 7).frames)[0]
    np.testing.assert_allclose(long, expected, atol=1e-6)


# Run where nothing of the project can be imported.
USE_OF_AN_EXPORTED_MODEL = """
import sys
from pathlib import Path
import numpy as np
from jax import export
model = export.deserialize(bytearray(Path("model.jax").read_bytes()))
np.save("found.npy", model.call(np.load("inputs.npy")))
assert not any("convlstm_jax" in name or "flax" in name for name in sys.modules)
"""


def test_an_exported_model_runs_without_the_project(trained, tmp_path, capsys):
    config = experiment_of(trained)
    clips = [build.build_sources(config).test[index]["frames"] for index in range(3)]
    inputs = np.stack(clips)[:, :3].astype(np.float32) / 255
    arguments = ["--mode=export", f"--workdir={trained}", "--num_frames=4"]
    assert run(*arguments, f"--output={tmp_path / 'model.jax'}") == 0
    said = capsys.readouterr().out
    assert "from [B, 3, 32, 40, 1] in [0, 1] to frames [B, 4, H, W, C]" in said
    np.save(tmp_path / "inputs.npy", inputs)
    subprocess.run(
        [sys.executable, "-P", "-c", USE_OF_AN_EXPORTED_MODEL], cwd=tmp_path, check=True
    )
    task = build.build_objective(config)
    _, variables = build.load_variables(
        task, config, trained, data_mesh(jax.devices()[:1])
    )
    expected = task.forecast(variables, inputs, 4).frames
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)

    assert run(*arguments, f"--output={tmp_path / 'model.onnx'}") == 2
    assert "for an exported model it must be .jax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((2, 32, 40, 1), np.uint8), "ends with 2 frames.*at least 3"),
        (np.zeros((5, 40, 32, 1), np.uint8), "40×32.*must be 32×40"),
        (np.zeros((5, 7), np.uint8), "clip.npy"),
        (b"no array", "clip.npy"),
    ],
)
def test_predict_refuses_a_clip_in_one_sentence(
    trained, tmp_path, capsys, clip, message
):
    path = tmp_path / "clip.npy"
    if isinstance(clip, bytes):
        path.write_bytes(clip)
    else:
        np.save(path, clip)
    output = tmp_path / "out.gif"
    code = run(
        "--mode=predict",
        f"--workdir={trained}",
        f"--input={path}",
        f"--output={output}",
    )
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error)
    assert not output.exists()


def test_predict_writes_nothing_over_what_it_reads(trained, tmp_path, capsys):
    clip = tmp_path / "clip.npy"
    np.save(clip, np.zeros((5, 32, 40, 1), np.uint8))
    before = clip.read_bytes()
    (tmp_path / "frames").mkdir()
    for number in range(5):
        name = tmp_path / "frames" / f"{number}.png"
        Image.fromarray(np.zeros((32, 40), np.uint8)).save(name)
    for source, output in ((clip, clip), (name.parent, name), (name.parent, "x.npy")):
        output = source.parent / "frames" / output if output == "x.npy" else output
        code = run(
            "--mode=predict", f"--workdir={trained}", f"--input={source}",
            f"--output={output}",
        )  # fmt: skip
        assert code == 2
        assert "would be written over or among the frames" in capsys.readouterr().err
    assert clip.read_bytes() == before
    assert len(list(name.parent.iterdir())) == 5


def test_predict_says_when_memory_does_not_suffice(
    trained, tmp_path, capsys, monkeypatch
):
    def forecast(self, variables, inputs, num_frames):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    monkeypatch.setattr(
        "convlstm_jax.objectives.forecast.ForecastObjective.forecast", forecast
    )
    np.save(tmp_path / "clip.npy", np.zeros((5, 32, 40, 1), np.uint8))
    code = run(
        "--mode=predict", f"--workdir={trained}", "--num_frames=90000",
        f"--input={tmp_path / 'clip.npy'}", f"--output={tmp_path / 'a.npy'}",
    )  # fmt: skip
    assert code == 2
    assert "--num_frames is 90000: so many frames" in capsys.readouterr().err


def test_predict_refuses_an_unknown_output_form(trained, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", np.zeros((5, 32, 40, 1), np.uint8))
    code = run(
        "--mode=predict",
        f"--workdir={trained}",
        f"--input={tmp_path / 'clip.npy'}",
        f"--output={tmp_path / 'out.avi'}",
    )
    assert code == 2 and ".gif" in capsys.readouterr().err


def test_damaged_checkpoints_are_told(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0x10
            path.write_bytes(bytes(content))
    assert run("--mode=evaluate", f"--workdir={folder}") == 2
    assert "checkpoint" in capsys.readouterr().err


def test_evaluation_without_pictures_and_with_broken_curves(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("pictures"))
    (folder / "metrics.csv").write_text("nonsense\n")
    arguments = (f"--workdir={folder}", "--config.eval.num_pictures=0")
    assert run("--mode=evaluate", *arguments) == 0
    output = capsys.readouterr().out
    assert "warning: no learning curves are drawn" in output
    assert (folder / "report.html").exists()
    names = [path.name for path in (folder / "pictures").iterdir()]
    assert names == ["lead_time.png"]


def test_batch_that_devices_cannot_share(tmp_path, capsys):
    code = run(*TINY, f"--workdir={tmp_path / 'w'}", "--config.train.batch_size=6")
    assert code == 2
    assert "config.train.batch_size is 6" in capsys.readouterr().err


def test_nan_stops_with_the_last_good_step_said(tmp_path, capsys):
    folder = tmp_path / "w"
    code = run(
        *TINY,
        f"--workdir={folder}",
        "--config.train.num_steps=40",
        "--config.train.eval_every_steps=40",
        "--config.optimizer.learning_rate=1e38",
        "--config.optimizer.name=adam",
    )
    error = capsys.readouterr().err
    assert code == 2
    assert "not finite" in error and "last good" in error and str(folder) in error
    assert any((folder / "checkpoints").iterdir())


PRESETS = {
    "quick": None,
    "5x5-256": "13,524,496",
    "5x5-128-128": "10,042,896",
    "5x5-128-64-64": "7,585,296",
    "9x9-128-128": "11,550,224",
    "9x9-128-64-64": "8,830,480",
    "fc-lstm-2048-2048": "142,667,776",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_describe(preset, capsys):
    assert run(f"--config=configs/moving_mnist.py:{preset}", "--mode=describe") == 0
    lines = capsys.readouterr().out.splitlines()
    (total,) = [line for line in lines if line.startswith("parameters: ")]
    if PRESETS[preset]:
        assert total == f"parameters: {PRESETS[preset]}"
    assert any(line.startswith("multiply-adds per sample: ") for line in lines)
    frames = 3 if preset == "quick" else 10
    assert f"input: [B, T, H, W, C] = [B, {frames}, 64, 64, 1]" in lines
    assert f"output: [B, T, H, W, C] = [B, {frames}, 64, 64, 1]" in lines


def final_weights(folder):
    config = experiment_of(folder)
    task = build.build_objective(config)
    mesh = data_mesh(jax.devices()[:1])
    step, params = build.load_variables(task, config, folder, mesh)
    return step, jax.device_get(params)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path, number):
    steps = 300
    command = [
        sys.executable, "main.py", *TINY,
        f"--config.train.num_steps={steps}",
        f"--config.train.eval_every_steps={steps}",
        "--config.train.checkpoint_every_steps=40",
        "--config.train.log_every_steps=10",
    ]  # fmt: skip
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}

    def start(folder):
        return subprocess.Popen(
            [*command, f"--workdir={folder}"],
            cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    whole = start(tmp_path / "whole")
    out, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, out

    broken = tmp_path / "broken"
    process = start(broken)
    checkpoint = broken / "checkpoints" / "80"
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert process.returncode == 0, out
        assert "resumes" in out and "Traceback" not in out
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (broken / "evaluation.json").exists(), "killed too late to show anything"

    process = start(broken)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "resumed at step" in out
    step, params = final_weights(broken)
    expected_step, expected = final_weights(tmp_path / "whole")
    assert step == expected_step == steps
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    figures = [
        json.loads((folder / "evaluation.json").read_text())["model"]
        for folder in (broken, tmp_path / "whole")
    ]
    assert figures[0] == figures[1]
