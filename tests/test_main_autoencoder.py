"""The LSTM autoencoder as a user runs it, from training to prediction."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.program import first_test_clips, results_of, run

TINY = [
    "--config=configs/moving_mnist_autoencoder.py:quick",
    "--config.model.features=4", "--config.task.num_input_frames=3",
    "--config.task.num_output_frames=2", "--config.data.digits=sklearn",
    "--config.data.height=28", "--config.data.width=32",
    "--config.train.num_steps=2", "--config.train.eval_every_steps=2",
    "--config.train.batch_size=8", "--config.train.num_validation_sequences=8",
    "--config.train.num_pictures=1", "--config.eval.num_sequences=10",
    "--config.eval.batch_size=8", "--config.eval.num_pictures=1",
]  # fmt: skip
USUAL = {"test.gif", "test_00.png", "test_00.gif"}
REBUILT = {name.replace("test", "reconstruction") for name in USUAL}

pytestmark = pytest.mark.usefixtures("at_root")


def train(folder, *arguments):
    assert run(*TINY, *arguments, f"--workdir={folder}") == 0
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    for name in pictures:
        with Image.open(folder / "pictures" / name) as picture:
            assert len(picture.convert("L").getcolors()) > 10
    clips = np.stack([clip["frames"] for clip in first_test_clips(folder, 10)]) / 255
    return results_of(folder), pictures, clips


def predict(folder, clip, name, *arguments):
    np.save(folder / "clip.npy", clip)
    output = folder / name
    paths = [f"--input={folder / 'clip.npy'}", f"--output={output}"]
    return output, run("--mode=predict", f"--workdir={folder}", *paths, *arguments)


def squared_error(prediction, truth):
    return ((prediction - truth) ** 2).sum((2, 3, 4)).mean(0)


@pytest.mark.slow
def test_composite(tmp_path, capsys):
    """With conditional decoders, which read their own output after training."""
    results, pictures, clips = train(tmp_path, "--config.model.conditional=true")
    assert pictures >= USUAL | REBUILT
    assert next(iter(results)) == "model"
    assert {"reconstruction", "copy_last", "zeros"} <= results.keys()
    lead = results["per_lead_time"]
    assert len(lead["model"]["mse"]) == len(lead["zeros"]["mse"]) == 2
    assert len(lead["reconstruction"]["mse"]) == 3
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
    assert "truth and reconstruction" in (tmp_path / "report.html").read_text()
    capsys.readouterr()

    output, code = predict(tmp_path, clips[0], "again.npy", "--num_frames=3")
    assert code == 0
    assert "3 frames reconstructed, not predicted" in capsys.readouterr().out
    assert np.load(output).shape == (3, 28, 32, 1)
    output, code = predict(tmp_path, clips[0], "more.gif", "--num_frames=4")
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and not output.exists()
    assert re.search(r"--num_frames is 4: it must be at most 3", error)
