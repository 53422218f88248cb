"""Confusion matrices and classified clips."""

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay

from convlstm_jax.viz.classification import classified_clips_strip, confusion_matrix

MARGIN, GAP, ROW_GAP, TIME = 16, 6, 14, 22
RIGHT, WRONG = (15, 157, 110), (209, 52, 56)
CLASSES = ("normal", "theft")
PROBABILITIES = np.array([[0.9, 0.1], [0.625, 0.375], [0.25, 0.75]])


@pytest.fixture
def cells(monkeypatch):
    """The texts of each matrix that is drawn: `[row, column]`, matplotlib's."""
    drawn = []
    plot = ConfusionMatrixDisplay.plot

    def record(self, **style):
        drawn.append(plot(self, **style).text_)

    monkeypatch.setattr(ConfusionMatrixDisplay, "plot", record)
    return drawn


def open_rgb(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_counts_and_shares_stand_in_their_cells(tmp_path, cells):
    counts = [[1187, 3], [14, 42]]
    confusion_matrix(tmp_path / "matrix.png", counts, ("normal", "theft"))
    (texts,) = cells
    assert [[text.get_text() for text in row] for row in texts] == [
        ["1,187\n>99 %", "3\n<1 %"],
        ["14\n25 %", "42\n75 %"],
    ]
    (accuracy,) = texts[0, 0].axes.texts[4:]
    assert accuracy.get_text() == "1,229 of 1,246 clips"


def test_names_and_accuracy(tmp_path, monkeypatch):
    texts = {}

    def record(name):
        method = getattr(matplotlib.axes.Axes, name)

        def wrapped(self, *arguments, **style):
            if not style.get("minor"):
                texts[name] = arguments[-1]
            return method(self, *arguments, **style)

        monkeypatch.setattr(matplotlib.axes.Axes, name, wrapped)

    for name in ("set_title", "set_xticks", "set_yticks"):
        record(name)
    # Dollar signs and long names are no trouble; a class without clips has no share.
    names = ("$x_{", "theft", "a name of more than thirty letters")
    confusion = np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]])
    confusion_matrix(tmp_path / "a.png", confusion, names)
    shortened = "a name of more than thirty …"
    assert texts["set_title"] == "Accuracy 75.0 %"
    assert texts["set_xticks"] == ["$x_{", "theft", shortened]
    assert texts["set_yticks"] == ["$x_{ (6)", "theft (6)", f"{shortened} (0)"]


def test_cells_are_coloured_by_their_share_of_the_row(tmp_path):
    path = tmp_path / "matrix.png"
    confusion_matrix(path, [[9, 0], [0, 0]], ("a", "b"))
    picture = open_rgb(path)
    for colour in ((47, 111, 237), (241, 243, 246)):
        found = (picture == colour).all(axis=-1)
        rows, columns = np.nonzero(found)
        # A whole cell of 1.1 inches, or a row of them.
        assert found.sum() > 0.7 * 130**2, colour
        assert np.ptp(rows) < 140
        assert np.ptp(columns) < 270


@pytest.mark.parametrize("num_classes", [2, 5, 9, 20])
def test_counts_fit_into_their_cells(tmp_path, cells, num_classes):
    counts = np.full((num_classes, num_classes), 1234)
    names = [f"class {k}" for k in range(num_classes)]
    confusion_matrix(tmp_path / "matrix.png", counts, names)
    for (row, column), text in np.ndenumerate(cells[0]):
        to_pixels = text.axes.transData.transform
        left, bottom = to_pixels((column - 0.5, row + 0.5))
        right, top = to_pixels((column + 0.5, row - 0.5))
        box = text.get_window_extent()
        assert left < box.x0 < box.x1 < right, text
        assert bottom < box.y0 < box.y1 < top, text
    # The smallest letters have 7 points, in a picture of 120 dots per inch.
    assert cells[0][0, 0].get_fontsize() >= 7
    height, width, _ = open_rgb(tmp_path / "matrix.png").shape
    assert max(height, width) < 2000


def grey_clips(num_clips=3, num_frames=4, height=64, width=32):
    """Frame t of clip n is of the one grey level 40 + 60 n + t."""
    levels = 40 + 60 * np.arange(num_clips)[:, None] + np.arange(num_frames)
    shape = (num_clips, num_frames, height, width, 3)
    return np.broadcast_to(levels[:, :, None, None, None], shape).astype(np.uint8)


@pytest.fixture
def written(monkeypatch):
    texts = []
    monkeypatch.setattr(
        "convlstm_jax.viz.pixels.Canvas.text",
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


def test_of_many_frames_some_are_drawn(tmp_path, written):
    path, clips = tmp_path / "clips.png", grey_clips(2, 30, 4, 32)
    classified_clips_strip(
        path, clips, [0, 0], PROBABILITIES[:2], CLASSES, max_columns=3, frame_size=32
    )
    assert [text for text, _ in written][:3] == ["1", "15", "30"]
    # Rows are high enough for three lines of text, however low the frames are.
    assert len(open_rgb(path)) == 2 * MARGIN + TIME + 2 * 54 + ROW_GAP


def test_long_names_are_shortened(tmp_path, written):
    names = ("a class whose name is much longer than a line", "theft")
    classified_clips_strip(
        tmp_path / "clips.png", grey_clips(1), [1], PROBABILITIES[:1], names
    )
    assert written[5][0] == "predicted: a class whose name is much long…"
