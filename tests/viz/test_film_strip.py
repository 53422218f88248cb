"""Film strips: sizes, and that each frame stands where it belongs."""

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.viz.film_strip import (
    classified_clips_strip,
    film_strip,
    radar_strip,
    selection,
)
from convlstm_jax.viz.pixels import (
    DRY_COLOUR,
    PROBABILITY_COLOURS,
    fit,
    probability_colours,
    rain_colours,
)

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


@pytest.fixture
def written(monkeypatch):
    """The texts of a picture, each with its style."""
    texts = []
    monkeypatch.setattr(
        "convlstm_jax.viz.pixels.Canvas.text",
        lambda self, position, text, **style: texts.append((text, style)),
    )
    return texts


def test_a_reconstruction_has_its_own_name_and_times(tmp_path, written):
    clips = levels(3, 50), levels(3, 100), levels(3, 200)
    film_strip(tmp_path / "strip.png", *clips, frame_size=32, reconstruction=True)
    times = ["t\N{MINUS SIGN}2", "t\N{MINUS SIGN}1", "t"]
    texts = [text for text, _ in written]
    assert texts == [*times, "input", *times[::-1], "truth", "reconstruction"]


def test_long_clips_are_thinned_evenly(tmp_path):
    assert selection(20, 12).tolist() == [0, 2, 3, 5, 7, 9, 10, 12, 14, 16, 17, 19]
    assert selection(5, 12).tolist() == [0, 1, 2, 3, 4]
    assert selection(1, 12).tolist() == [0]
    clips = levels(30, 20), None, levels(50, 100)
    film_strip(tmp_path / "strip.png", *clips, max_columns=4, frame_size=32)
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


ROW_GAP = 14
RIGHT, WRONG = (15, 157, 110), (209, 52, 56)
CLASSES = ("normal", "theft")
PROBABILITIES = np.array([[0.9, 0.1], [0.625, 0.375], [0.25, 0.75]])


def grey_clips(num_clips=3, num_frames=4, height=64, width=32):
    """Frame t of clip n is of the one grey level 40 + 60 n + t."""
    levels = 40 + 60 * np.arange(num_clips)[:, None] + np.arange(num_frames)
    shape = (num_clips, num_frames, height, width, 3)
    return np.broadcast_to(levels[:, :, None, None, None], shape).astype(np.uint8)


def test_rows_are_clips_and_wrong_ones_are_red(tmp_path):
    path = tmp_path / "clips.png"
    classified_clips_strip(path, grey_clips(), [0, 1, 1], PROBABILITIES, CLASSES)
    picture = open_rgb(path)
    height, width = 128, 64  # Enlarged twice.
    assert len(picture) == 2 * MARGIN + TIME + 3 * height + 2 * ROW_GAP
    left = picture.shape[1] - MARGIN - 4 * (width + GAP) + GAP
    for clip, colour in enumerate((RIGHT, WRONG, RIGHT)):
        top = MARGIN + TIME + clip * (height + ROW_GAP)
        bar = picture[top : top + height, MARGIN : MARGIN + 4]
        assert (bar == colour).all(), clip
        for frame in range(4):
            start = left + frame * (width + GAP)
            box = picture[top : top + height, start : start + width]
            assert (box == 40 + 60 * clip + frame).all(), (clip, frame)
            border = picture[top - 1, start : start + width]
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


def test_colours_begin_at_their_rates_and_no_data_is_grey():
    rain = np.array([0.0, 0.09, 0.1, 0.49, 0.5, 29.9, 30.0, 500.0, 7.0])
    mask = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0])
    colours = rain_colours(rain, mask)
    assert colours.dtype == np.uint8
    groups = [(0, 1), (2,), (3,), (4,), (5,), (6, 7), (8,)]
    seen = [{tuple(colours[i]) for i in group} for group in groups]
    assert all(len(one) == 1 for one in seen)
    assert len(set.union(*seen)) == len(groups)
    red, green, blue = colours[8]
    assert red == green == blue


def test_probabilities_have_the_colour_of_the_share_they_reach():
    shares = np.array([0.0, 1 / 30, *(n / 20 for n in (1, 4, 19, 20)), np.nan])
    colours = [colour for _, colour in PROBABILITY_COLOURS]
    expected = [DRY_COLOUR] * 2 + [*colours[:2], colours[-1], colours[-1]]
    found = probability_colours(shares.astype(np.float32), np.isfinite(shares))
    assert [tuple(one) for one in found[:-1].tolist()] == expected
    assert len(set(found[-1].tolist())) == 1 and len(set(colours)) == len(colours)


def draw(path, forecasts, num_frames=9):
    rng = np.random.default_rng(0)
    observed = rng.gamma(0.5, 4, (num_frames, 16, 12))
    mask = np.ones_like(observed)
    mask[:, :4] = 0
    forecasts = forecasts(observed)
    radar_strip(path, observed, forecasts, mask, num_inputs=3, minutes_per_frame=5)
    return rain_colours(observed, mask), open_rgb(path)


def find(picture, frame):
    """Where a frame, enlarged by eight, lies: (top, left) of each place."""
    corner = frame[0, 0], frame[8, 8], frame[15, 11]
    height, width = np.subtract(picture.shape[:2], (128, 96))
    found = np.ones((height + 1, width + 1), bool)
    for (y, x), colour in zip(((0, 0), (64, 64), (127, 95)), corner, strict=True):
        found &= (picture[y : y + height + 1, x : x + width + 1] == colour).all(-1)
    enlarged = frame.repeat(8, 0).repeat(8, 1)
    return [
        (y, x)
        for y, x in np.argwhere(found)
        if (picture[y : y + 128, x : x + 96] == enlarged).all()
    ]


def test_the_observed_frames_stand_above_the_forecast_of_the_same_time(tmp_path):
    def late(observed):  # A forecast that is the observation one frame later.
        return {"model": np.roll(observed[3:], 1, axis=0)}

    colours, picture = draw(tmp_path / "a.png", late)
    (above,) = find(picture, colours[2])  # The last frame given, once.
    places = [find(picture, frame) for frame in colours[3:]]
    assert [len(place) for place in places] == [2] * 6
    top = {place[0][0] for place in places}
    assert top == {above[0]}
    # Below each frame stands the one before, as the forecast has it.
    for index in range(1, 6):
        (_, left), (below, left_below) = places[index][0], places[index - 1][1]
        assert below > above[0] and left == left_below


def test_lead_times_are_evenly_spaced_up_to_the_last_frame(tmp_path):
    def twice(observed):
        return {"model": observed[3:], "persistence": observed[3:]}

    colours, picture = draw(tmp_path / "a.png", twice, num_frames=3 + 12)
    counts = [len(find(picture, frame)) for frame in colours[2:]]
    assert counts == [1, *[0, 3] * 6]
