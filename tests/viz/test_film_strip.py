"""Film strips: sizes, and that each frame stands where it belongs."""

import numpy as np
from PIL import Image

from convlstm_jax.viz.film_strip import film_strip, selection
from convlstm_jax.viz.pixels import fit

LEFT, MARGIN, GAP, TIME = 112, 16, 6, 22


def levels(num_frames, first, height=32, width=16, channels=1):
    """Clip whose frame t is of the one grey level first + t."""
    clip = np.empty((num_frames, height, width, channels))
    for t in range(num_frames):
        clip[t] = (first + t) / 255
    return clip


def open_rgb(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_rows_and_columns(tmp_path):
    path = tmp_path / "strip.png"
    film_strip(path, levels(3, 50), levels(5, 100), levels(5, 200), frame_size=64)
    picture = open_rgb(path)
    height, width = 64, 32
    assert picture.shape == (
        2 * MARGIN + 3 * height + 2 * GAP + 2 * TIME,
        LEFT + MARGIN + 5 * (width + GAP) - GAP,
        3,
    )
    for row, (first, count, times) in enumerate([(50, 3, 1), (100, 5, 2), (200, 5, 2)]):
        top = MARGIN + times * TIME + row * (height + GAP)
        for column in range(count):
            left = LEFT + column * (width + GAP)
            box = picture[top : top + height, left : left + width]
            assert (box == first + column).all(), (row, column)
    # Nothing is drawn where the shorter input row has no frames.
    assert (picture[MARGIN + TIME : 80, LEFT + 3 * (width + GAP) + 2 :] == 255).all()
    # Every row has its name and every column its time.
    assert (picture[:, MARGIN + 12 : LEFT - 4] < 100).any(axis=(1, 2)).sum() > 20
    assert (picture[MARGIN : MARGIN + TIME - 2, LEFT : LEFT + width] < 200).any()


def test_without_truth(tmp_path):
    path = tmp_path / "strip.png"
    film_strip(path, levels(2, 50), None, levels(2, 200), frame_size=32)
    picture = open_rgb(path)
    assert picture.shape[0] == 2 * MARGIN + 2 * 32 + GAP + 2 * TIME
    assert (picture[MARGIN + 2 * TIME + 32 + GAP + 5, LEFT + 5] == 200).all()


def test_a_reconstruction_has_its_own_name_and_times(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(
        "convlstm_jax.viz.pixels.Canvas.text",
        lambda self, position, text, **style: texts.append(text),
    )
    clips = levels(3, 50), levels(3, 100), levels(3, 200)
    film_strip(tmp_path / "strip.png", *clips, frame_size=32, reconstruction=True)
    times = ["t\N{MINUS SIGN}2", "t\N{MINUS SIGN}1", "t"]
    assert texts == [*times, "input", *times[::-1], "truth", "reconstruction"]


def test_title_makes_room(tmp_path):
    arguments = (levels(2, 50), None, levels(2, 200))
    film_strip(tmp_path / "a.png", *arguments)
    film_strip(tmp_path / "b.png", *arguments, title="Sequence 1")
    with_title = open_rgb(tmp_path / "b.png")
    np.testing.assert_array_equal(with_title[44:], open_rgb(tmp_path / "a.png")[16:])
    assert (with_title[:44] < 100).any()


def test_colour(tmp_path):
    clip = np.zeros((1, 8, 8, 3))
    clip[..., 0], clip[..., 2] = 1, 0.2
    film_strip(tmp_path / "strip.png", clip, clip, clip, frame_size=16)
    picture = open_rgb(tmp_path / "strip.png")
    assert picture[MARGIN + TIME + 3, LEFT + 3].tolist() == [255, 0, 51]


def test_long_clips_are_thinned_evenly(tmp_path):
    assert selection(20, 12).tolist() == [0, 2, 3, 5, 7, 9, 10, 12, 14, 16, 17, 19]
    assert selection(5, 12).tolist() == [0, 1, 2, 3, 4]
    assert selection(1, 12).tolist() == [0]
    film_strip(
        tmp_path / "strip.png",
        levels(30, 20),
        None,
        levels(50, 100),
        max_columns=4,
        frame_size=32,
    )
    picture = open_rgb(tmp_path / "strip.png")
    assert picture.shape[1] == LEFT + MARGIN + 4 * (16 + GAP) - GAP
    assert picture[MARGIN + TIME + 9, LEFT + 3 * (16 + GAP) + 8, 0] == 49


def test_fit_enlarges_by_whole_factors_and_shrinks_by_averages():
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
    large = fit(pixels, 11)
    assert large.shape == (2, 9, 12, 1)
    np.testing.assert_array_equal(large[:, 1::3, 1::3], pixels)
    stripes = np.zeros((1, 300, 200, 3), np.uint8)
    stripes[:, ::2] = 200
    small = fit(stripes, 100)
    assert small.shape == (1, 150, 100, 3)
    assert (small == 100).all()
