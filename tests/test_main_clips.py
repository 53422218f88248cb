"""The clip classifier as a user runs it, on the films it draws and on a folder."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.video.annotated import AnnotatedVideoConfig
from tests.annotated_films import write_annotated_films
from tests.program import first_test_clips, results_of, run

TINY = [
    "--config=configs/clip_classification.py:quick",
    "--config.model.features=2,2", "--config.model.patch_size=8",
    "--config.task.num_input_frames=4", "--config.data.height=32",
    "--config.data.width=32", "--config.train.num_steps=2",
    "--config.train.batch_size=8", "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8", "--config.eval.batch_size=8",
    "--config.eval.num_pictures=3",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_annotated_films(tmp_path_factory.mktemp("films"))


@pytest.mark.slow
def test_train_evaluate_and_classify(films, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(*TINY, "--config.eval.num_sequences=40", f"--workdir={folder}") == 0
    results = results_of(folder)
    labels = np.array([clip["label"] for clip in first_test_clips(folder, 40)])
    confusion = np.array(results["model"]["confusion"])
    assert confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=2).tolist()
    accuracy = results["model"]["accuracy"]
    assert accuracy == pytest.approx(np.trace(confusion) / len(labels))
    assert results["majority"]["accuracy"] == pytest.approx((labels == 0).mean())
    assert results["model"]["per_class"].keys() == {"normal", "theft"}
    for name in ("confusion_matrix.png", "test_clips.png", "learning_curves.png"):
        with Image.open(folder / "pictures" / name) as picture:
            assert len(picture.convert("L").getcolors()) > 10
    assert '<th scope="row">theft</th>' in (folder / "report.html").read_text()
    assert "class theft: precision" in (folder / "log.txt").read_text()
    capsys.readouterr()

    film, output = films / "film0.gif", tmp_path / "classes.json"
    arguments = [f"--workdir={folder}", f"--input={film}", f"--output={output}"]
    assert run("--mode=predict", *arguments) == 0
    assert "clips of" in capsys.readouterr().out
    clips = json.loads(output.read_text())["clips"]
    assert [clip["first_frame"] for clip in clips[:3]] == [0, 3, 6]
    for clip in clips:
        assert sum(clip["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        likeliest = max(clip["probabilities"], key=clip["probabilities"].get)
        assert clip["class"] == likeliest

    exported = ["--mode=export", arguments[0], f"--output={tmp_path / 'model.jax'}"]
    assert run(*exported) == 0
    program = jax.export.deserialize(bytearray((tmp_path / "model.jax").read_bytes()))
    reader = AnnotatedVideoConfig(path=str(film), height=32, width=32, channels=3)
    frames = reader.open_film(str(film)).read(0, 4)
    found = program.call(frames[None] / np.float32(255))
    for name, probability in clips[0]["probabilities"].items():
        np.testing.assert_allclose(found[name], [probability], atol=1e-5)
    assert run(*exported, "--num_frames=3") == 2

    np.save(tmp_path / "short.npy", np.zeros((3, 32, 32, 3), np.uint8))
    for flag, message in (
        ("--num_frames=3", "--num_frames is 3: it must not be given"),
        (f"--output={tmp_path / 'a.gif'}", "'.gif': for a classification it must be "),
        (f"--input={tmp_path / 'short.npy'}", "short.npy has 3 frames: this model nee"),
    ):
        assert run("--mode=predict", *arguments, flag) == 2
        assert message in capsys.readouterr().err


def test_a_label_that_never_occurs_is_named(films, tmp_path, capsys):
    flags = [f"--config.data.path={films}", "--config.data.event_labels=robbery"]
    assert run(*TINY, *flags, f"--workdir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "robbery" in error and "theft" in error
