"""Classified clips: frames in their rows, and wrong ones marked."""

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.viz.classified_clips import classified_clips_strip

MARGIN, GAP, ROW_GAP, TIME = 16, 6, 14, 22
RIGHT, WRONG, UNKNOWN = (15, 157, 110), (209, 52, 56), (138, 147, 163)
CLASSES = ("normal", "theft")
PROBABILITIES = np.array([[0.9, 0.1], [0.625, 0.375], [0.25, 0.75]])


def grey_clips(num_clips=3, num_frames=4, height=64, width=32):
    """Frame t of clip n is of the one grey level 40 + 60 n + t."""
    levels = 40 + 60 * np.arange(num_clips)[:, None] + np.arange(num_frames)
    shape = (num_clips, num_frames, height, width, 3)
    return np.broadcast_to(levels[:, :, None, None, None], shape).astype(np.uint8)


def open_rgb(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


@pytest.fixture
def written(monkeypatch):
    texts = []
    monkeypatch.setattr(
        "convlstm_jax.viz.canvas.Canvas.text",
        lambda self, position, text, **style: texts.append((text, style)),
    )
    return texts


@pytest.mark.parametrize("floats", [False, True])
def test_rows_are_clips_and_wrong_ones_are_red(tmp_path, floats):
    path, frames = tmp_path / "clips.png", grey_clips()
    given = np.float64(frames) / 255 if floats else frames
    classified_clips_strip(
        path, given, [0, 1, 1], PROBABILITIES, CLASSES, frame_size=64
    )
    picture = open_rgb(path)
    assert len(picture) == 2 * MARGIN + TIME + 3 * 64 + 2 * ROW_GAP
    left = picture.shape[1] - MARGIN - 4 * (32 + GAP) + GAP
    for clip, colour in enumerate((RIGHT, WRONG, RIGHT)):
        top = MARGIN + TIME + clip * (64 + ROW_GAP)
        bar = picture[top : top + 64, MARGIN : MARGIN + 4]
        assert (bar == colour).all(), clip
        for frame in range(4):
            start = left + frame * (32 + GAP)
            box = picture[top : top + 64, start : start + 32]
            assert (box == 40 + 60 * clip + frame).all(), (clip, frame)
            border = picture[top - 1, start : start + 32]
            assert ((border == WRONG).all(axis=-1) == (clip == 1)).all()


def test_what_is_said_of_a_clip(tmp_path, written):
    path = tmp_path / "clips.png"
    classified_clips_strip(path, grey_clips(), [0, 1, 1], PROBABILITIES, CLASSES)
    assert [text for text, _ in written] == [
        *("1", "2", "3", "4"),
        *("true: normal", "predicted: normal", "90.0 %"),
        *("true: theft", "predicted: normal", "wrong, 62.5 %"),
        *("true: theft", "predicted: theft", "75.0 %"),
    ]
    red = [text for text, style in written if style["colour"] == "#d13438"]
    assert red == ["predicted: normal", "wrong, 62.5 %"]


def test_without_truth_nothing_is_wrong(tmp_path, written):
    path, clips = tmp_path / "clips.png", grey_clips(2, 30, 4, 32)
    classified_clips_strip(
        path, clips, None, PROBABILITIES[:2], CLASSES, max_columns=3, frame_size=32
    )
    assert [text for text, _ in written] == [
        *("1", "15", "30"),
        *("predicted: normal", "90.0 %", "predicted: normal", "62.5 %"),
    ]
    picture = open_rgb(path)
    # Rows are high enough for two lines of text, however low the frames are.
    assert len(picture) == 2 * MARGIN + TIME + 2 * 36 + ROW_GAP
    assert (picture[MARGIN + TIME : MARGIN + TIME + 36, MARGIN] == UNKNOWN).all()


def test_long_names_are_shortened(tmp_path, written):
    names = ("a class whose name is much longer than a line", "theft")
    classified_clips_strip(
        tmp_path / "clips.png", grey_clips(1), None, PROBABILITIES[:1], names
    )
    assert written[4][0] == "predicted: a class whose name is much long…"


def test_what_does_not_fit(tmp_path):
    path, frames = tmp_path / "clips.png", grey_clips()
    with pytest.raises(UserError, match=r"shape \(4, 64, 32, 3\), but clips must be"):
        classified_clips_strip(path, frames[0], None, PROBABILITIES, CLASSES)
    with pytest.raises(UserError, match=r"shape \(3, 2\), but must be \(3, 1\)"):
        classified_clips_strip(path, frames, None, PROBABILITIES, CLASSES[:1])
    for labels in ([0, 1], [0, 1, 2]):
        with pytest.raises(UserError, match=r"labels is \[0, 1.* from 0 to 1 for each"):
            classified_clips_strip(path, frames, labels, PROBABILITIES, CLASSES)
    with pytest.raises(UserError, match="max_columns is 1"):
        classified_clips_strip(
            path, frames, None, PROBABILITIES, CLASSES, max_columns=1
        )
    assert not path.exists()
