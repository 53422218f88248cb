"""Confusion matrices: every figure in its cell, for any number of classes."""

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.viz.confusion_matrix import confusion_matrix


@pytest.fixture
def written(monkeypatch):
    """All that is written into a matrix: (its place, matplotlib's text)."""
    texts = []
    annotate = matplotlib.axes.Axes.annotate

    def record(self, text, place, *arguments, **style):
        drawn = annotate(self, text, place, *arguments, **style)
        texts.append((tuple(int(number) for number in place), drawn))
        return drawn

    monkeypatch.setattr(matplotlib.axes.Axes, "annotate", record)
    return texts


def open_rgb(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_counts_and_shares_stand_in_their_cells(tmp_path, written):
    confusion_matrix(
        tmp_path / "matrix.png",
        [[1187, 3], [14, 42]],
        ("normal", "theft"),
        title="Shop",
    )
    column_and_row = {(0, 0): [], (1, 0): [], (0, 1): [], (1, 1): []}
    for place, text in written[:-1]:
        column_and_row[place].append(text.get_text())
    assert column_and_row == {
        (0, 0): ["1,187", ">99 %"],
        (1, 0): ["3", "<1 %"],
        (0, 1): ["14", "25 %"],
        (1, 1): ["42", "75 %"],
    }
    assert written[-1][1].get_text() == "1,229 of 1,246 clips"


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
    confusion_matrix(tmp_path / "b.png", confusion, names, title="At $1 and $2")
    assert texts["set_title"] == "At $1 and $2: accuracy 75.0 %"


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


@pytest.mark.parametrize("num_classes", [2, 4, 5, 8, 9, 20])
def test_figures_fit_into_their_cells(tmp_path, written, num_classes):
    counts = np.full((num_classes, num_classes), 1234)
    names = [f"class {k}" for k in range(num_classes)]
    confusion_matrix(tmp_path / "matrix.png", counts, names)
    assert len(written) == 2 * num_classes**2 + 1
    for (column, row), text in written[:-1]:
        to_pixels = text.axes.transData.transform
        left, bottom = to_pixels((column - 0.5, row + 0.5))
        right, top = to_pixels((column + 0.5, row - 0.5))
        box = text.get_window_extent()
        assert left < box.x0 < box.x1 < right, text
        assert bottom < box.y0 < box.y1 < top, text
    # The smallest letters have 7 points, in a picture of 120 dots per inch.
    assert min(text.get_fontsize() for _, text in written) >= 7
    height, width, _ = open_rgb(tmp_path / "matrix.png").shape
    assert max(height, width) < 2000


def test_what_is_no_confusion_matrix(tmp_path):
    path = tmp_path / "matrix.png"
    with pytest.raises(UserError, match=r"shape \(2, 2\), but .* the 3 classes"):
        confusion_matrix(path, np.eye(2), "abc")
    for entries in ([[1, -1], [0, 2]], [[1, np.nan], [0, 2]], [[0, 0], [0, 0]]):
        with pytest.raises(UserError, match="must hold numbers of clips"):
            confusion_matrix(path, entries, "ab")
    assert not path.exists()
