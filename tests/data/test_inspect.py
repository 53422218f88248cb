"""`--mode=inspect` and `--mode=prepare` on data configs: what they print and write."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.cli import inspect as inspect_mode
from convlstm_jax.cli import prepare as prepare_mode
from convlstm_jax.data.synthetic.moving_squares import MovingSquaresConfig
from convlstm_jax.data.video.config import VideoConfig
from tests.data.video.film_files import grey_pixels, refuses, write_video

H, W = 32, 48


@pytest.fixture
def films(tmp_path):
    for number in range(5):
        folder = tmp_path / "films" / f"flow{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"film{number}.npy", grey_pixels(40 + number))
    write_video(tmp_path / "films" / "flow0" / "z.avi", grey_pixels(9), "ffv1", "gray")
    return tmp_path / "films"


def config(path, **fields):
    return VideoConfig(path=str(path), height=H, width=W, condition="folder", **fields)


def inspect(data, num_frames, input=None, output=None):
    inspect_mode.run(experiment(data, num_frames), input=input, output=output)


def prepare(data, output):
    prepare_mode.run(experiment(data, 5), output=output)


def experiment(data, num_frames):
    task = SimpleNamespace(clip_length=num_frames)
    return SimpleNamespace(data=data, task=task, general=SimpleNamespace(seed=0))


def test_a_table_counts_and_a_sheet(films, tmp_path, capsys):
    (films / "flow1" / "bad.mp4").write_bytes(b"no video")
    sheet = tmp_path / "sheet.png"
    inspect(config(films), 5, output=sheet)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["film", "frames", "size", "rate", "condition", "split",
                                "left", "out"]  # fmt: skip
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:8]}
    assert rows["flow0/film2.npy"][:3] == ["42", "32x48", "flow0"]
    assert rows["flow0/z.avi"][:4] == ["9", "32x48", "10/s", "flow0"]
    assert rows["flow1/bad.mp4"][0] == "0" and "cannot be read" in lines[5] + lines[6]
    assert {rows[f"flow{n % 2}/film{n}.npy"][3] for n in range(5)} <= {
        "train", "validation", "test"}  # fmt: skip
    text = "\n".join(lines)
    assert (
        "7 films, 219 frames; shortest: flow1/bad.mp4 (0), longest: flow0/film4.npy"
        in (text)
    )
    unreliable = "warning: fewer than 20 give unreliable metrics"
    assert f"\ntest: 8 clips of 5 frames: {unreliable}" in text
    assert "Training stops at the first film of which something is left out" in text
    assert lines[-1] == f"{sheet}: the first clips of each split"
    with Image.open(sheet) as picture:
        assert picture.width > 5 * W and picture.height > 9 * H


def test_what_cannot_be_trained_on_is_told_with_the_table(films, capsys):
    with refuses(r"No video of .* can be used"):
        inspect(config(films), 99)
    printed = capsys.readouterr().out
    assert "flow0/film2.npy" in printed and "No training: No video of" in printed


def test_synthetic_clips_are_counted_and_drawn(tmp_path, capsys):
    squares = MovingSquaresConfig(num_test_sequences=9)
    inspect(squares, 4, output=tmp_path / "sheet.png")
    printed = capsys.readouterr().out
    assert "test: 9 clips of 4 frames: warning" in printed
    assert (tmp_path / "sheet.png").exists()
    with refuses(r"config.data.path must be set to a folder of fi"):
        inspect(squares, 4, tmp_path / "a.npy", tmp_path / "b.npy")


def test_the_frames_of_one_file_are_written_as_they_are_read(films, tmp_path, capsys):
    out = tmp_path / "frames.npy"
    film = films / "flow0" / "film2.npy"
    inspect(config(films), 5, film, out)
    np.testing.assert_array_equal(np.load(out)[..., 0], grey_pixels(42))
    assert capsys.readouterr().out == f"{out}: 42 frames of {film}\n"
    (films / "bad.mp4").write_bytes(b"no video")
    for given, words in (
        ((films / "bad.mp4", out), "bad.mp4' cannot be read"),
        ((film, tmp_path / "a.txt"), "a.txt is of another kind: it must be a .npy f"),
        ((None, tmp_path / "a.gif"), "a.gif is of another kind: it must be a .png f"),
    ):
        with refuses(words):
            inspect(config(films), 5, *given)
    film = grey_pixels(6) / np.float32(255)
    film[2, 0, 0] = np.nan
    np.save(films / "nan.npy", film)
    inspect(config(films, bad_files="skip"), 5, films / "nan.npy", out)
    assert len(np.load(out)) == 5
    assert "; left out: 5 of 6 frames can be read" in capsys.readouterr().out


def test_prepare(films, tmp_path, capsys):
    out = tmp_path / "out"
    (films / "flow1" / "bad.mp4").write_bytes(b"no video")
    skipping = config(films, bad_files="skip")
    prepare(skipping, out)
    printed = capsys.readouterr().out
    assert f"{out}: 219 frames of 6 videos\nleft out: flow1/bad.mp4: '" in printed
    assert f"Videos of '{out}': 6 videos, split by video (4 train, 1 valid" in printed
    prepare(skipping, out)  # Nothing to do, and said as before.
    assert capsys.readouterr().out == printed
    (tmp_path / "file").write_text("")
    for given, output, words in (
        (skipping, films / "out", "lies in config.data.path"),
        (
            skipping,
            tmp_path / "file",
            "file cannot be made .File exists.: it must be a folder",
        ),
        (config(out), tmp_path / "new", "which is a prepared folder already"),
        (
            MovingSquaresConfig(),
            tmp_path / "new",
            "needs config.data.path, a folder of vi",
        ),
    ):
        with refuses(words):
            prepare(given, output)
