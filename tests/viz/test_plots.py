"""Plots: curves, confusion matrices, space–time correlation."""

import math

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay

from convlstm_jax.errors import UserError
from convlstm_jax.viz.plots import (
    confusion_matrix,
    draw_space_time_correlation,
    learning_curves,
    metric_curves,
    read_metrics,
    space_time_correlation,
)


def coloured_pixels(path, colour):
    with Image.open(path) as picture:
        rgb = np.asarray(picture.convert("RGB"))
    return int((rgb == colour).all(axis=-1).sum())


MODEL, BASELINE = (47, 111, 237), (224, 134, 44)


def test_model_and_baselines_are_drawn(tmp_path):
    path = tmp_path / "curves.png"
    names = ["mse", "mae", "ssim", "psnr_db", "cross_entropy_nats"]
    curves = {
        "model": {name: [1.0, 2.0, 3.0] for name in names},
        "copy_last": {name: [2.0, 4.0, 5.0] for name in names},
    }
    metric_curves(path, curves)
    assert coloured_pixels(path, MODEL) > 500
    assert coloured_pixels(path, BASELINE) > 200
    with Image.open(path) as picture:
        assert picture.width > picture.height > 500


def test_values_that_are_not_finite_leave_gaps(tmp_path):
    path = tmp_path / "curves.png"
    model = {"mse": [1.0, math.nan, 1e4, math.inf], "ssim": [math.nan] * 4}
    metric_curves(path, {"model": model, "zeros": {"mse": [0.0, -1.0, None, 2.0]}})
    assert coloured_pixels(path, MODEL) > 20
    metric_curves(path, {"model": {"mse": [3.0]}})


def test_no_metric_is_refused(tmp_path):
    with pytest.raises(UserError, match="per_lead_time is empty"):
        metric_curves(tmp_path / "curves.png", {"model": {}})


HEADER = "step,split,metric,value\n"


def test_learning_curves(tmp_path):
    lines = [f"{s},train,loss,{1000 / s}\n" for s in range(1, 300)]
    lines += [f"{s},validation,loss,{1200 / s}\n" for s in range(50, 300, 50)]
    lines += ["7,train,loss,nan\n", "8,train,loss,inf\n", "\n"]
    (tmp_path / "metrics.csv").write_text(HEADER + "".join(lines))
    learning_curves(tmp_path / "metrics.csv", tmp_path / "out" / "learning.png")
    assert coloured_pixels(tmp_path / "out" / "learning.png", MODEL) > 50


def test_the_later_value_counts_and_a_broken_last_line_does_not(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + "1,train,loss,3\n2,train,loss,2\n1,train,loss,5\n3,tra")
    assert read_metrics(path) == {("loss", "train"): {1: 5.0, 2: 2.0}}


def test_bad_files_of_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(UserError, match=r"metrics.csv' cannot be read \(No such file"):
        read_metrics(path)
    for content, message in (
        ("", "has '' in line 1: below the header step,split"),
        ("step,loss\n1,2\n", "has 'step,loss' in line 1"),
        (HEADER, "must have lines that end in a number"),
        (HEADER + "1,train,loss,3\n2,train,loss\n", "'2,train,loss' in line 3"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_metrics(path)


def oracle(clips, axis):
    """The mean over all pairs, written out."""
    values = clips - clips.mean()
    length, size = clips.shape[1], clips.shape[axis]
    half = size // 2
    result = np.empty((length // 2 + 1, 2 * half + 1))
    for lag in range(length // 2 + 1):
        for column, shift in enumerate(range(-half, half + 1)):
            earlier = values[:, : length - lag]
            later = values[:, lag:]
            here = np.arange(max(0, -shift), min(size, size - shift))
            pairs = np.take(earlier, here, axis) * np.take(later, here + shift, axis)
            result[lag, column] = pairs.mean() / np.square(values).mean()
    return result


@pytest.mark.parametrize("shape", [(2, 5, 6, 7, 2), (1, 4, 3, 8, 1), (1, 1, 2, 3, 1)])
@pytest.mark.parametrize("axis", [2, 3])
def test_is_the_mean_over_all_pairs(shape, axis):
    clips = np.random.default_rng(5).random(shape).astype(np.float32)
    found = space_time_correlation(clips, axis)
    np.testing.assert_allclose(found, oracle(np.float64(clips), axis), atol=1e-12)
    assert found[0, shape[axis] // 2] == pytest.approx(1)


def test_a_film_without_contrast_has_none():
    assert np.isnan(space_time_correlation(np.ones((1, 4, 3, 3, 1)), 2)).all()


def test_the_picture(tmp_path):
    generator = np.random.default_rng(2)
    film = generator.random((2, 4, 16, 20, 1))
    films = {"truth": film, "prediction": np.zeros_like(film)}
    draw_space_time_correlation(tmp_path / "a.png", films)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 500
    # The left half has the red peaks, the right one nothing to draw.
    red = (pixels[..., 0] > 80) & (pixels[..., 1] < 40) & (pixels[..., 2] < 60)
    middle = pixels.shape[1] * 45 // 100
    assert red[:, :middle].sum() > 50
    assert red[:, middle : middle * 2 - 40].sum() == 0


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


def test_names_and_accuracy(tmp_path, cells):
    # Dollar signs and long names are no trouble; a class without clips has no share.
    names = ("$x_{", "theft", "a name of more than thirty letters")
    confusion = np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]])
    confusion_matrix(tmp_path / "a.png", confusion, names)
    axes = cells[0][0, 0].axes
    columns, rows = (
        [label.get_text() for label in labels]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels())
    )
    shortened = "a name of more than thirty …"
    assert axes.get_title(loc="left") == "Accuracy 75.0 %"
    assert columns == ["$x_{", "theft", shortened]
    assert rows == ["$x_{ (6)", "theft (6)", f"{shortened} (0)"]


@pytest.mark.parametrize("num_classes", [2, 8, 12])
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
