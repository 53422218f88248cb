import numpy as np
from PIL import Image

from convlstm_jax.viz.radar import radar_strip, rain_colours


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


def draw(path, forecasts, **fields):
    rng = np.random.default_rng(0)
    observed = rng.gamma(0.5, 4, (9, 16, 12))
    mask = np.ones_like(observed)
    mask[:, :4] = 0
    radar_strip(
        path, observed, forecasts(observed), mask, num_inputs=3, minutes_per_frame=5,
        frame_size=32, **fields,
    )  # fmt: skip
    with Image.open(path) as picture:
        return observed, mask, np.asarray(picture.convert("RGB"))


def find(picture, frame):
    """Where a frame lies in a picture, enlarged by two: (top, left) of each place."""
    enlarged = frame.repeat(2, 0).repeat(2, 1)
    height, width = enlarged.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width, 3))[
        :, :, 0
    ]
    first = (windows[..., 12, 3, :] == enlarged[12, 3]).all(-1)
    return [(y, x) for y, x in np.argwhere(first) if (windows[y, x] == enlarged).all()]


def test_the_observed_frames_stand_above_the_forecast_of_the_same_time(tmp_path):
    def late(observed):  # A forecast that is the observation one frame later.
        return {"model": np.roll(observed[3:], 1, axis=0)}

    observed, mask, picture = draw(tmp_path / "a.png", late)
    colours = rain_colours(observed, mask)
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
    observed, mask, picture = draw(
        tmp_path / "a.png", lambda x: {"model": x[3:], "persistence": x[3:]},
        max_columns=4,
    )  # fmt: skip
    colours = rain_colours(observed, mask)
    counts = [len(find(picture, frame)) for frame in colours[2:]]
    assert counts == [1, 0, 3, 0, 3, 0, 3]
