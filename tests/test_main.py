"""The program as a user runs it: train, evaluate, predict, export, diverge."""

import csv
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.metrics.vmaf import find_ffmpeg
from convlstm_jax.viz.clip_writer import write_clip
from tests.program import first_test_clips, results_of, run, trained_model
from tests.read_clip import read_clip

ROOT = Path(__file__).resolve().parent.parent
# Batches do not divide the numbers of sequences: the last ones are filled up.
TINY = [
    "--config=configs/moving_mnist.py:quick", "--config.model.features=4",
    "--config.task.num_input_frames=3", "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn", "--config.data.height=32",
    "--config.data.width=40", "--config.optimizer.ema_decay=0.5",
    "--config.train.batch_size=8", "--config.train.num_validation_sequences=10",
    "--config.eval.num_sequences=20", "--config.eval.batch_size=16",
    "--config.eval.num_pictures=2",
]  # fmt: skip
PREDICT = ("--mode=predict",)

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def run_and_counts(tmp_path_factory):
    """A run of six steps, and how often training compiled programs with a model."""
    counts: Counter[str] = Counter()

    def count(event, duration_secs, **details):
        if event.endswith("backend_compile_duration"):
            counts[details["fun_name"]] += 1

    folder = tmp_path_factory.mktemp("run") / "tiny"
    steps = ["--config.train.num_steps=6", "--config.train.eval_every_steps=3"]
    jax.monitoring.register_event_duration_secs_listener(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        jax.clear_caches()
        assert run(*TINY, f"--workdir={folder}", *steps) == 0
    jax.monitoring.unregister_event_duration_listener(count)
    names = ("init", "train_step", "eval_step", "shown")
    return folder, {name: counts[f"jit({name})"] for name in names}


@pytest.fixture(scope="module")
def trained(run_and_counts):
    return run_and_counts[0]


@pytest.fixture
def clip(tmp_path):
    """The first test clip's five frames, in a file."""
    path = tmp_path / "clip.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (5, 32, 40, 1), np.uint8))
    return path


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


def test_training_compiles_every_program_once(run_and_counts):
    # Training ends as --mode=evaluate does: with the baselines, in a step of its own.
    once = {"init": 1, "train_step": 1, "shown": 1}
    assert run_and_counts[1] == once | {"eval_step": 2}


def test_evaluation_figures(trained):
    results = results_of(trained)
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

    # The baselines' metrics, from the definition.
    clips = np.stack([clip["frames"] for clip in first_test_clips(trained, 20)]) / 255
    inputs, truth = clips[:, :3], clips[:, 3:]
    zeros = (truth**2).sum((2, 3, 4)).mean(0)
    copied = ((inputs[:, -1:] - truth) ** 2).sum((2, 3, 4)).mean(0)
    lead = results["per_lead_time"]
    np.testing.assert_allclose(lead["zeros"]["mse"], zeros, rtol=1e-5)
    np.testing.assert_allclose(lead["copy_last"]["mse"], copied, rtol=1e-5)

    # The model's, from its averaged weights.
    task, _, variables = trained_model(trained)
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


def test_evaluate_alone_repeats_the_figures(trained, tmp_path, capsys):
    """Also without pictures and with learning curves that cannot be read."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("pictures"))
    (folder / "metrics.csv").write_text("nonsense\n")
    arguments = (f"--workdir={folder}", "--config.eval.num_pictures=0")
    assert run("--mode=evaluate", *arguments) == 0
    before = results_of(trained)
    assert before.pop("drawn_clips")
    assert results_of(folder) == before
    output = capsys.readouterr().out
    assert "copy_last" in output and "report.html" in output
    assert "warning: no learning curves are drawn" in output
    assert (folder / "report.html").exists()
    names = [path.name for path in (folder / "pictures").iterdir()]
    assert names == ["lead_time.png"]


def test_predict_in_every_form(trained, clip, tmp_path, capsys):
    pixels = np.load(clip)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(pixels):
        Image.fromarray(frame[..., 0]).save(tmp_path / "frames" / f"{number}.png")
    arguments = [*PREDICT, f"--workdir={trained}"]
    for name, source, frames in (
        ("a.npy", "clip.npy", 2),
        ("b.npy", "frames", 7),
        ("c.gif", "clip.npy", 3),
        ("d.mp4", "clip.npy", 3),
        ("e.png", "clip.npy", 3),
    ):
        more = [] if frames == 2 else [f"--num_frames={frames}"]
        paths = [f"--input={tmp_path / source}", f"--output={tmp_path / name}"]
        assert run(*arguments, *paths, *more) == 0
        assert name in capsys.readouterr().out
    short, long = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert short.shape == (2, 32, 40, 1) and long.shape == (7, 32, 40, 1)
    # The same clip, whatever it came in; the first frames do not depend on the length.
    np.testing.assert_allclose(long[:2], short, atol=1e-6)
    assert len(read_clip(tmp_path / "c.gif")) == 3
    assert len(read_clip(tmp_path / "d.mp4")) == 3

    # What was predicted is what the model says of the clip's last three frames.
    task, _, variables = trained_model(trained)
    inputs = pixels[None, -3:].astype(np.float32) / 255
    expected = np.asarray(task.forecast(variables, inputs, 7).frames)[0]
    np.testing.assert_allclose(long, expected, atol=1e-6)


def test_a_film_keeps_its_rate_and_may_be_enlarged_with_what_was_given(
    trained, clip, tmp_path, capsys
):
    film = tmp_path / "film.mp4"
    write_clip(film, np.load(clip) / 255, frames_per_second=24)
    options = [*PREDICT, f"--workdir={trained}", f"--input={film}"]
    found = {}
    for name, more in {
        "plain.npy": [],
        "both.npy": ["--with_input"],
        "large.mp4": ["--with_input", "--scale=3", "--num_frames=3"],
    }.items():
        assert run(*options, f"--output={tmp_path / name}", *more) == 0
        found[name] = capsys.readouterr().out
    plain, both = np.load(tmp_path / "plain.npy"), np.load(tmp_path / "both.npy")
    np.testing.assert_array_equal(both[3:], plain)
    np.testing.assert_allclose(both[:3], np.load(clip)[-3:] / 255, atol=0.1)
    with av.open(str(tmp_path / "large.mp4")) as container:
        stream = container.streams.video[0]
        size = stream.frames, stream.height, stream.width
        assert size == (6, 96, 120) and stream.average_rate == 24
    assert "note:" not in found["plain.npy"] + found["both.npy"]
    assert "note: training scored 2 frames, so frame 3 and those" in found["large.mp4"]
    for wrong, message in (
        ("--scale=0", "--scale=0 is wrong: it must be an integer from 1 to 32"),
        ("--with_input=maybe", "--with_input=maybe is wrong: it must be true or false"),
    ):
        assert run(*options, f"--output={tmp_path / 'x.gif'}", wrong) == 2
        assert message in capsys.readouterr().err


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
    inputs = np.random.default_rng(0).random((3, 3, 32, 40, 1), np.float32)
    arguments = ["--mode=export", f"--workdir={trained}", "--num_frames=4"]
    assert run(*arguments, f"--output={tmp_path / 'model.jax'}") == 0
    said = capsys.readouterr().out
    assert "from [B, 3, 32, 40, 1] in [0, 1] to frames [B, 4, H, W, C]" in said
    np.save(tmp_path / "inputs.npy", inputs)
    subprocess.run(
        [sys.executable, "-P", "-c", USE_OF_AN_EXPORTED_MODEL], cwd=tmp_path, check=True
    )
    task, _, variables = trained_model(trained)
    expected = task.forecast(variables, inputs, 4).frames
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)

    assert run(*arguments, f"--output={tmp_path / 'model.onnx'}") == 2
    assert "for an exported model it must be .jax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "output", "message"),
    [
        (np.zeros((2, 32, 40, 1), np.uint8), "o.gif", "ends with 2 frames.*at least 3"),
        (np.zeros((5, 40, 32, 1), np.uint8), "o.gif", "40×32.*must be 32×40"),
        (b"no array", "o.gif", "clip.npy"),
        (np.zeros((5, 32, 40, 1), np.uint8), "o.avi", r"it must be .*\.gif"),
    ],
)
def test_predict_refuses_in_one_sentence(
    trained, tmp_path, capsys, content, output, message
):
    path, output = tmp_path / "clip.npy", tmp_path / output
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    paths = [f"--input={path}", f"--output={output}"]
    assert run(*PREDICT, f"--workdir={trained}", *paths) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error)
    assert not output.exists()


def test_predict_writes_nothing_over_what_it_reads(trained, clip, capsys):
    before = clip.read_bytes()
    frames = clip.parent / "frames"
    frames.mkdir()
    for source, output in ((clip, clip), (frames, frames / "0.png")):
        paths = [f"--input={source}", f"--output={output}"]
        assert run(*PREDICT, f"--workdir={trained}", *paths) == 2
        assert "would be written over or among the frames" in capsys.readouterr().err
    assert clip.read_bytes() == before and not list(frames.iterdir())


def test_predict_says_when_memory_does_not_suffice(trained, clip, capsys, monkeypatch):
    def forecast(self, variables, inputs, num_frames):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    monkeypatch.setattr(
        "convlstm_jax.objectives.forecast.ForecastObjective.forecast", forecast
    )
    paths = [f"--input={clip}", f"--output={clip.parent / 'a.npy'}"]
    assert run(*PREDICT, f"--workdir={trained}", "--num_frames=90000", *paths) == 2
    assert "--num_frames is 90000: so many frames" in capsys.readouterr().err


def test_nan_stops_with_the_last_good_step_said(tmp_path, capsys):
    code = run(
        *TINY,
        f"--workdir={tmp_path}",
        "--config.train.num_steps=40",
        "--config.train.eval_every_steps=40",
        "--config.optimizer.learning_rate=1e38",
        "--config.optimizer.name=adam",
    )
    error = capsys.readouterr().err
    assert code == 2
    assert "not finite" in error and "last good" in error and str(tmp_path) in error
    assert any((tmp_path / "checkpoints").iterdir())
