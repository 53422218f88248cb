"""The bubble column: its physics, its picture, and the source of clips."""

import math

import numpy as np
import pytest

from convlstm_jax.data.synthetic import bubbles as motion
from convlstm_jax.data.synthetic.bubbles import (
    BUBBLE,
    COLUMN_HEIGHT_M,
    CONDITIONS,
    FLOWS_L_PER_MIN,
    NEEDLE_TIP_M,
    SURFACE_M,
    BubbleColumn,
    BubblesConfig,
    bubbles_per_second,
    draw_bubbles,
    empty_column,
    follow_bubbles,
    mean_diameter_m,
)

WIDTH_M = COLUMN_HEIGHT_M


def column(num_clips, num_frames, height=128, width=128, seed=0):
    config = BubblesConfig(height=height, width=width)
    return BubbleColumn(config, num_frames, num_clips, seed, range(4))


def tracks_of(flow, num_frames=25, index=0):
    return follow_bubbles(flow, num_frames, WIDTH_M, seed=5, index=index)


# --- motion ---------------------------------------------------------------------------


def test_bubbles_stay_between_needles_walls_and_surface():
    for flow in FLOWS_L_PER_MIN:
        tracks = tracks_of(flow)
        assert (tracks["y"] >= NEEDLE_TIP_M).all() and (tracks["y"] < SURFACE_M).all()
        assert (tracks["x"] > 0.03 * WIDTH_M).all() and (
            tracks["x"] < 0.97 * WIDTH_M
        ).all()
        assert (np.abs(tracks["shape"]) <= 0.6).all()
        np.testing.assert_array_equal(np.unique(tracks["frame"]), np.arange(25))
        assert (np.diff(tracks["frame"]) >= 0).all()


def test_bubbles_carry_the_flow():
    draws = np.random.default_rng(4).random((5, 20_000))
    for flow in FLOWS_L_PER_MIN:
        bubbles = motion._bubbles_to_come(draws, mean_diameter_m(flow) / 2, WIDTH_M)
        area = math.pi * np.mean(bubbles["radius"] ** 2)
        cubic_metres_per_s = area * bubbles_per_second(flow) * motion._GAP_M
        np.testing.assert_allclose(cubic_metres_per_s, flow / 60_000, rtol=0.02)
        assert (np.diff(bubbles["release"]) > 0).all()


def two_bubbles(apart, radii=(0.004, 0.002), released=(0.0, 0.0)):
    bubbles = np.zeros(2, BUBBLE)
    bubbles["radius"] = radii
    bubbles["x"] = 0.05, 0.05 + apart * 0.6
    bubbles["y"] = 0.04, 0.04 + apart * 0.8
    bubbles["release"] = released
    bubbles["time"] = 1.0
    bubbles["velocity"] = 0.1 + 0.2j, 0.3j
    return bubbles


def test_touching_bubbles_merge_and_keep_area_and_centre():
    bubbles = two_bubbles(apart=0.005)
    (merged,) = motion._merge(bubbles.copy())
    assert merged["radius"] ** 2 == pytest.approx(0.004**2 + 0.002**2)
    weights = np.array([16, 4]) / 20
    for name in ("x", "y"):
        assert merged[name] == pytest.approx(bubbles[name] @ weights)
    assert merged["velocity"] == 0.1 + 0.2j  # that of the larger one
    assert merged["merged"] == 1.0
    # Long in the direction of the line between them, (0.6, 0.8).
    angle = np.angle(merged["swing"]) / 2
    np.testing.assert_allclose(angle, math.atan2(0.8, 0.6), rtol=1e-6)
    for apart in (two_bubbles(0.0065), two_bubbles(0.005, released=(0.0, 2.0))):
        np.testing.assert_array_equal(motion._merge(apart.copy()), apart)


# --- pictures -------------------------------------------------------------------------


def plain_bubble(column, x, y, radius, shape):
    """One bubble drawn pixel by pixel, by the angle and the axes of its ellipse."""
    height, width = column.shape
    pixel = COLUMN_HEIGHT_M / height
    angle = np.angle(shape) / 2
    stretch = math.sqrt((1 + abs(shape)) / (1 - abs(shape)))
    rim = min(max(0.0018 / pixel, 0.32 * radius / pixel), 0.62 * radius / pixel)
    picture = column.astype(np.float64)
    for row in range(height):
        if (height - row) * pixel > SURFACE_M:
            continue
        for column_number in range(width):
            right = (column_number + 0.5) * pixel - x
            up = (height - row - 0.5) * pixel - y
            along = right * math.cos(angle) + up * math.sin(angle)
            across = up * math.cos(angle) - right * math.sin(angle)
            inside = (radius - math.hypot(along / stretch, across * stretch)) / pixel
            core = np.clip((inside - rim) / max(0.6 * rim, 0.5) + 0.5, 0, 1)
            covered = np.clip(inside + 0.5, 0, 1)
            light = 0.10 + (0.97 - 0.10) * core
            picture[row, column_number] *= 1 - covered * (1 - light)
    return picture


def test_drawing_equals_the_plain_ellipse():
    column = empty_column(40, 56)
    bubbles = [
        (0, 0.06, 0.05, 0.012, 0.3 * np.exp(1.1j)),
        (0, 0.07, 0.055, 0.006, 0.1 * np.exp(-2j)),  # overlaps the first
        (0, 0.15, 0.13, 0.014, 0.0j),  # reaches through the surface
        (2, 0.195, 0.02, 0.02, 0.5 + 0.0j),  # reaches out of the picture
    ]
    tracks = np.zeros(len(bubbles), BUBBLE)
    names = ("frame", "x", "y", "radius", "shape")
    for name, values in zip(names, zip(*bubbles, strict=True), strict=True):
        tracks[name] = values
    frames = draw_bubbles(column, tracks, 3)
    assert frames.shape == (3, 40, 56, 1) and frames.dtype == np.uint8
    for number in range(3):
        expected = column
        for frame, *bubble in bubbles:
            if frame == number:
                expected = plain_bubble(expected, *bubble)
        np.testing.assert_allclose(frames[number, ..., 0], 255 * expected, atol=0.6)


def test_column_shows_lamp_surface_walls_and_needles():
    column = empty_column(128, 128)
    assert column.min() >= 0 and column.max() <= 1
    np.testing.assert_allclose(column, column[:, ::-1], atol=1e-6)
    water = column[60, 64]
    assert water > 0.85 and column[4, 64] > water  # The air above is brighter.
    surface = round((1 - SURFACE_M / COLUMN_HEIGHT_M) * 128)
    assert column[surface - 1 : surface + 1, 64].min() < 0.6 * water
    assert column[60, :3].max() < 0.2 and column[-3:].max() < 0.2
    above_plate = round((1 - 0.8 * NEEDLE_TIP_M / COLUMN_HEIGHT_M) * 128)
    needles = column[above_plate, 5:-5] < 0.6 * water
    assert np.count_nonzero(np.diff(needles.astype(int)) == 1) == 6


# --- the source -----------------------------------------------------------------------


def test_sources_take_the_conditions_in_turn_and_hold_some_out():
    counts = {f"num_{s}_sequences": 8 for s in ("train", "validation", "test")}

    def opened(**fields):
        config = BubblesConfig(height=16, width=16, **counts, **fields)
        sources = config.sources(num_frames=1, seed=1)
        splits = (sources.train, sources.validation, sources.test)
        return sources, [[int(clip["condition"]) for clip in x] for x in splits]

    sources, conditions = opened()
    assert sources.conditions == CONDITIONS
    assert conditions == [[0, 1, 2, 3, 0, 1, 2, 3]] * 3
    assert sources.test[0]["condition"].dtype == np.int32
    sources, conditions = opened(test_conditions=("8 L/min", "2 L/min"))
    assert conditions == [[0, 2] * 4, [0, 2] * 4, [1, 3] * 4]
    assert sources.description.endswith("held out for the test: 2 L/min, 8 L/min.")
