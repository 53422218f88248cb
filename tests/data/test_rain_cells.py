"""Rain cells: how often it rains, and that the rain moves."""

import numpy as np

from convlstm_jax.data.synthetic.rain_cells import RainCells, RainCellsConfig
from convlstm_jax.rain import RainScale

SCALE = RainScale(0.0, 60.0, 200.0, 1.6)


def generated(num_frames=12, seed=3, height=40, width=48):
    config = RainCellsConfig(height=height, width=width, zr_a=200.0, zr_b=1.6)
    assert config.rain_scale == SCALE
    return RainCells(config, num_frames, 50, seed)


def test_it_rains_here_and_there_and_nowhere_without_data():
    clips = [generated()[index] for index in range(12)]
    frames = np.stack([clip["frames"] for clip in clips])
    mask = np.stack([clip["mask"] for clip in clips])
    assert set(np.unique(mask)) == {0, 1}
    assert not frames[mask == 0].any()
    rain = SCALE.rain_mm_per_h(frames[mask == 1] / 255)
    assert 0.05 < (rain >= 0.5).mean() < 0.6
    assert (rain >= 10).any()
    assert (rain == 0).mean() > 0.2


def test_a_margin_is_more_of_the_same_rain():
    config = RainCellsConfig(height=20, width=24, margin=6)
    clip = RainCells(config, 5, 50, 3)[0]
    assert clip["frames"].shape == clip["mask"].shape == (5, 32, 36, 1)
    larger = RainCells(RainCellsConfig(height=32, width=36), 5, 50, 3)[0]
    np.testing.assert_array_equal(clip["frames"], larger["frames"])


def test_rain_moves_more_than_it_changes():
    """The best shift of a frame is nearer to a later one than the frame itself."""
    gains = []
    for index in range(8):
        frames = generated(height=48)[index]["frames"][..., 0] / 255.0
        first, later = frames[2], frames[8]
        inner = (slice(10, -10), slice(10, -10))
        errors = {
            (dy, dx): np.square(np.roll(first, (dy, dx), (0, 1)) - later)[inner].mean()
            for dy in range(-10, 11)
            for dx in range(-10, 11)
        }
        gains.append(min(errors.values()) / errors[0, 0])
    assert np.median(gains) < 0.6
