import math

import numpy as np

from convlstm_jax.viz.pixels import rain_colours
from convlstm_jax.viz.player import error_pixels, nowcast_clip


def test_a_nowcast_as_films():
    generator = np.random.default_rng(0)
    observed = 20 * generator.random((5, 6, 7))
    model, still = 20 * generator.random((2, 3, 6, 7))
    mask = (generator.random((5, 6, 7)) > 0.2).astype(np.uint8)
    clip = nowcast_clip(
        "One", observed, {"model": model, "persistence": still}, mask,
        minutes_per_frame=7.5, group="Some", note="a note",
    )  # fmt: skip
    assert (clip.name, clip.group, clip.note) == ("One", "Some", "a note")
    assert clip.times == ["−7.5 min", "0 min", "+7.5 min", "+15 min", "+22.5 min"]
    names = ["input", "observed", "forecast", "persistence", "error"]
    assert [row.name for row in clip.rows] == names
    assert [row.first for row in clip.rows] == [0, 2, 2, 2, 2]
    colours = rain_colours(observed, mask)
    films = [
        colours[:2], colours[2:], rain_colours(model, mask[2:]),
        rain_colours(still, mask[2:]),
    ]  # fmt: skip
    for row, film in zip(clip.rows, films, strict=False):
        np.testing.assert_array_equal(row.pixels, film)
    error = clip.rows[-1].pixels.astype(int)
    difference = model - observed[2:]
    # Orange where there is too much, blue where too little, black where nobody knows.
    known = (mask[2:] > 0) & (np.abs(difference) > 0.5)
    too_much = error[..., 0] > error[..., 2]
    np.testing.assert_array_equal(too_much[known], difference[known] > 0)
    assert (error[mask[2:] == 0] == 0).all()


def test_colours_of_errors():
    error = np.array([0.0, 1.0, -1.0, 0.5, math.nan]).reshape(5, 1, 1, 1)
    black, bright, dark, half, unknown = error_pixels(error)[:, 0, 0].astype(int)
    assert black.tolist() == unknown.tolist() == [0, 0, 0]
    assert bright[0] > bright[2] and dark[2] > dark[0]
    np.testing.assert_allclose(half, bright / 2, atol=0.5)
