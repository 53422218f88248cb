"""GIFs: exact pixels, every frame kept, the right times; forecasts beside the truth."""

import io

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.viz.gif import comparison_gif, gif_bytes

GREY, GREEN, BLUE = [138, 147, 163], [15, 157, 110], [47, 111, 237]
LEFT, TOP, BORDER, GAP = 16, 38, 3, 14


def decode(content):
    """Pillow's own reading: uint8 [T, H, W, 3], the pauses in ms and the loop count."""
    with Image.open(io.BytesIO(content)) as picture:
        frames, pauses = [], []
        for index in range(picture.n_frames):
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB")))
            pauses.append(picture.info["duration"])
        return np.stack(frames), pauses, picture.info.get("loop")


def random_levels(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (9, 13), (40, 33)])
def test_grey_is_exact(size):
    levels = random_levels(4, *size)
    frames, _, loop = decode(gif_bytes(levels / 255))
    np.testing.assert_array_equal(frames, np.repeat(levels[..., None], 3, axis=-1))
    assert loop == 0


def test_colour_of_few_colours_is_exact():
    levels = random_levels(3, 8, 24, 3)  # 192 pixels a frame: at most 192 colours
    frames, _, _ = decode(gif_bytes(levels / 255))
    np.testing.assert_array_equal(frames, levels)


def test_colour_of_many_colours_comes_close():
    y, x = np.mgrid[:64, :64] / 63
    clip = np.stack([x, y, 1 - x], axis=-1)[None]
    frames, _, _ = decode(gif_bytes(clip))
    assert np.abs(frames / 255 - clip).mean() < 0.03


def test_identical_frames_all_count():
    levels = random_levels(1, 6, 7).repeat(5, axis=0)
    frames, pauses, _ = decode(gif_bytes(levels / 255, frames_per_second=10))
    assert len(frames) == 5
    assert pauses == [100] * 5
    np.testing.assert_array_equal(frames[..., 0], levels)


def test_pauses_sum_to_the_length_of_the_clip():
    clip = random_levels(30, 4, 4) / 255
    _, pauses, _ = decode(gif_bytes(clip, frames_per_second=30))
    assert set(pauses) == {30, 40}
    assert sum(pauses) == 1000
    _, pauses, _ = decode(gif_bytes(clip, frames_per_second=100))
    assert set(pauses) == {20}


def test_odd_values_and_channels_are_drawn():
    clip = np.array([[[[-1.0], [2.0], [np.nan], [0.5]]]])
    frames, _, _ = decode(gif_bytes(clip))
    assert frames[0, 0, :, 0].tolist() == [0, 255, 0, 128]
    two_channels = random_levels(2, 4, 4, 2)
    frames, _, _ = decode(gif_bytes(two_channels / 255))
    np.testing.assert_array_equal(frames[..., 0], two_channels[..., 0])


def level(num_frames, value):
    return np.full((1, num_frames, 16, 16, 1), value / 255)


def frames_of(path):
    frames, pauses, _ = decode(path.read_bytes())
    return frames, pauses


def test_panels_change_from_input_to_forecast(tmp_path):
    path = tmp_path / "forecast.gif"
    comparison_gif(path, level(3, 60), level(2, 120), level(2, 200), frame_size=64)
    frames, pauses = frames_of(path)
    assert pauses == [200, 200, 200, 200, 1000]
    right = LEFT + 64 + 2 * BORDER + GAP
    for index, frame in enumerate(frames):
        borders = (GREY, GREY) if index < 3 else (GREEN, BLUE)
        values = (60, 60) if index < 3 else (120, 200)
        for left, border, value in zip((LEFT, right), borders, values, strict=True):
            assert frame[TOP + 1, left + 1].tolist() == border
            inside = frame[TOP + 3 : TOP + 67, left + 3 : left + 67]
            assert (inside == value).all()
    # The word above the panel changes with the phase, and so does the time below.
    assert (frames[2][20 - 8 : 28] != frames[3][20 - 8 : 28]).any()
    assert (frames[3][-40:] != frames[4][-40:]).any()


def test_grid(tmp_path):
    clips = [
        np.concatenate([level(2, first + n) for n in range(3)])
        for first in (40, 100, 200)
    ]
    path = tmp_path / "grid.gif"
    comparison_gif(path, *clips, frame_size=32)
    frames, _ = frames_of(path)
    assert len(frames) == 4
    panel, pair = 32 + 2 * BORDER, 2 * (32 + 2 * BORDER) + 2
    for sample in range(3):
        row, column = divmod(sample, 2)
        top = TOP + row * (panel + GAP) + 10
        left = LEFT + column * (pair + GAP) + 10
        assert frames[0][top, left, 0] == 40 + sample
        assert frames[3][top, left, 0] == 100 + sample
        assert frames[3][top, left + panel + 2, 0] == 200 + sample
