"""The LSTM autoencoder as a user runs it: its three tasks from training to prediction.

Beside the usual files: pictures and figures of the reconstruction.
"""

import json
import re

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.cli import build
from tests.program import experiment_of, run

CONFIG = "--config=configs/moving_mnist_autoencoder.py"
TINY = [
    "--config.model.features=4",
    "--config.task.num_input_frames=3",
    "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn",
    "--config.data.height=28",
    "--config.data.width=32",
    "--config.train.num_steps=2",
    "--config.train.eval_every_steps=2",
    "--config.train.batch_size=8",
    "--config.train.num_validation_sequences=8",
    "--config.train.num_pictures=1",
    "--config.eval.num_sequences=10",
    "--config.eval.batch_size=8",
    "--config.eval.num_pictures=1",
]
USUAL = {"test.gif", "test_00.png", "test_00.gif"}
REBUILT = {name.replace("test", "reconstruction") for name in USUAL}


pytestmark = pytest.mark.usefixtures("at_root")


def train(folder, *arguments):
    assert run(f"{CONFIG}:quick", *TINY, *arguments, f"--workdir={folder}") == 0
    results = json.loads((folder / "evaluation.json").read_text())
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    for name in pictures:
        with Image.open(folder / "pictures" / name) as picture:
            assert len(picture.convert("L").getcolors()) > 10
    config = experiment_of(folder)
    test = build.build_sources(config).test
    clips = np.stack([test[index]["frames"] for index in range(10)]) / 255
    return results, pictures, clips


def predict(folder, clip, name, *arguments):
    np.save(folder / "clip.npy", clip)
    output = folder / name
    return output, run(
        "--mode=predict",
        f"--workdir={folder}",
        f"--input={folder / 'clip.npy'}",
        f"--output={output}",
        *arguments,
    )


def squared_error(prediction, truth):
    return ((prediction - truth) ** 2).sum((2, 3, 4)).mean(0)


@pytest.mark.slow
def test_composite(tmp_path, capsys):
    results, pictures, clips = train(tmp_path)
    assert pictures >= USUAL | REBUILT
    assert next(iter(results)) == "model"
    assert {"reconstruction", "copy_last", "zeros"} <= results.keys()
    lead = results["per_lead_time"]
    assert len(lead["model"]["mse"]) == len(lead["zeros"]["mse"]) == 2
    assert len(lead["reconstruction"]["mse"]) == 3
    assert results["reconstruction"].keys() == results["model"].keys()
    assert clips.shape[1] == 5
    np.testing.assert_allclose(
        lead["copy_last"]["mse"], squared_error(clips[:, 2:3], clips[:, 3:]), rtol=1e-5
    )
    rows = (tmp_path / "evaluation.csv").read_text().splitlines()
    assert any(row.startswith("reconstruction,mse,3,") for row in rows)
    assert "reconstruction of the inputs" in (tmp_path / "report.html").read_text()
    capsys.readouterr()

    output, code = predict(tmp_path, clips[0, :4], "next.npy", "--num_frames=5")
    assert code == 0 and "5 frames predicted" in capsys.readouterr().out
    assert np.load(output).shape == (5, 28, 32, 1)

    arguments = ("--mode=evaluate", f"--workdir={tmp_path}")
    assert run(*arguments, "--config.task.name=predict") == 2
    assert "config.task.name is 'composite' there" in capsys.readouterr().err


@pytest.mark.slow
def test_predict_conditionally(tmp_path, capsys):
    results, pictures, clips = train(
        tmp_path, "--config.task.name=predict", "--config.model.conditional=true"
    )
    assert pictures >= USUAL and not pictures & REBUILT
    assert "reconstruction" not in results
    _, code = predict(tmp_path, clips[0], "next.gif")
    assert code == 0 and "2 frames predicted" in capsys.readouterr().out


@pytest.mark.slow
def test_reconstruct(tmp_path, capsys):
    results, pictures, clips = train(tmp_path, "--config.task.name=reconstruct")
    assert pictures >= USUAL and not pictures & REBUILT
    assert clips.shape[1] == 3, "clips hold no frame that nobody needs"
    backwards = clips[:, [2, 1]]
    lead = results["per_lead_time"]
    assert lead.keys() == {"model", "copy_last", "zeros"}
    np.testing.assert_allclose(
        lead["copy_last"]["mse"], squared_error(clips[:, 2:], backwards), atol=1e-4
    )
    assert lead["copy_last"]["mse"][0] < 1e-9, "the first frame given back is the last"
    np.testing.assert_allclose(
        lead["zeros"]["mse"], squared_error(0, backwards), rtol=1e-5
    )
    report = (tmp_path / "report.html").read_text()
    assert "truth and reconstruction" in report
    capsys.readouterr()

    output, code = predict(tmp_path, clips[0], "again.npy", "--num_frames=3")
    assert code == 0
    assert "3 frames reconstructed, not predicted" in capsys.readouterr().out
    assert np.load(output).shape == (3, 28, 32, 1)
    output, code = predict(tmp_path, clips[0], "again.png")
    assert code == 0 and output.exists()

    output, code = predict(tmp_path, clips[0], "more.gif", "--num_frames=4")
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and not output.exists()
    assert re.search(r"--num_frames is 4: it must be at most 3", error)
    export = ["--mode=export", f"--workdir={tmp_path}", f"--output={tmp_path}/a.jax"]
    assert run(*export, "--num_frames=4") == 2
    assert "--num_frames is 4: it must be at most 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "conditional", "parameters"),
    [
        ("quick", False, "15,747,584"),
        ("quick", True, "32,524,800"),
        ("composite-2048-2048", False, "201,420,800"),
        ("composite-2048-2048", True, "268,529,664"),
        ("reconstruct-2048-2048", False, "142,667,776"),
        ("predict-2048-2048", True, "176,222,208"),
    ],
)
def test_describe(preset, conditional, parameters, capsys):
    flag = f"--config.model.conditional={conditional}"
    assert run(f"{CONFIG}:{preset}", "--mode=describe", flag) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {parameters}" in lines
    frames = 5 if preset == "quick" else 10
    video = f"[B, T, H, W, C] = [B, {frames}, 64, 64, 1]"
    assert f"output: {video}" in lines
    composite = preset.startswith(("quick", "composite"))
    assert (f"reconstruction: {video}" in lines) == composite
