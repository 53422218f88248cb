"""GIFs: exact pixels, every frame kept, the right times."""

import io

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.viz.gif import gif_bytes


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


def test_scale_repeats_pixels():
    levels = random_levels(2, 3, 5)
    frames, _, _ = decode(gif_bytes(levels / 255, scale=4))
    assert frames.shape == (2, 12, 20, 3)
    np.testing.assert_array_equal(frames[:, 1::4, 2::4, 0], levels)


def test_odd_values_and_channels_are_drawn():
    clip = np.array([[[[-1.0], [2.0], [np.nan], [0.5]]]])
    frames, _, _ = decode(gif_bytes(clip))
    assert frames[0, 0, :, 0].tolist() == [0, 255, 0, 128]
    two_channels = random_levels(2, 4, 4, 2)
    frames, _, _ = decode(gif_bytes(two_channels / 255))
    np.testing.assert_array_equal(frames[..., 0], two_channels[..., 0])


def test_errors():
    clip = np.zeros((2, 4, 4))
    with pytest.raises(UserError, match="scale is 0"):
        gif_bytes(clip, scale=0)
    with pytest.raises(UserError, match="frames_per_second is 0"):
        gif_bytes(clip, frames_per_second=0)
    with pytest.raises(UserError, match=r"shape \(4, 4\)"):
        gif_bytes(clip[0])
    with pytest.raises(UserError, match=r"shape \(0, 4, 4\)"):
        gif_bytes(clip[:0])
