import pickle

import numpy as np
import pytest

from convlstm_jax.data.synthetic.rain_cells import RainCells, RainCellsConfig
from convlstm_jax.rain import RainScale

SCALE = RainScale(0.0, 60.0, 200.0, 1.6)


def generated(num_frames=12, seed=3, height=40, width=48):
    config = RainCellsConfig(height=height, width=width, zr_a=200.0, zr_b=1.6)
    assert config.rain_scale == SCALE
    return RainCells(config, num_frames, 50, seed)


def test_a_clip_depends_on_seed_and_index_alone():
    source = generated()
    clip = source[7]
    assert {k: (v.shape, v.dtype) for k, v in clip.items()} == {
        "frames": ((12, 40, 48, 1), np.uint8),
        "mask": ((12, 40, 48, 1), np.uint8),
    }
    again = pickle.loads(pickle.dumps(generated()))[7]
    np.testing.assert_array_equal(clip["frames"], again["frames"])
    assert (clip["frames"] != source[8]["frames"]).any()
    assert (clip["frames"] != generated(seed=4)[7]["frames"]).any()


def test_a_longer_clip_begins_as_the_shorter_one():
    # 40 frames reach into a second block of cells.
    short, long = generated(5)[2], generated(40)[2]
    for name in short:
        np.testing.assert_array_equal(short[name], long[name][:5])
    assert long["frames"][32:].any()


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


def test_clips_that_there_are_not():
    with pytest.raises(IndexError, match="Clip 50 is out of range"):
        generated()[50]


def test_the_splits_differ_and_only_training_depends_on_the_seed():
    first, second = (
        RainCellsConfig(height=48, width=48).sources(num_frames=3, seed=seed)
        for seed in (0, 1)
    )
    for split in ("validation", "test"):
        one, other = (getattr(source, split)[0]["frames"] for source in (first, second))
        np.testing.assert_array_equal(one, other)
    clips = [first.train, second.train, first.validation, first.test]
    assert len({clip[0]["frames"].tobytes() for clip in clips}) == 4
    assert "no measured rain" in first.description
