import pickle

import numpy as np
import pytest

from convlstm_jax.data.rain_cells import RainCells, rain_cells_sources
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale

SCALE = RainScale(0.0, 60.0, 200.0, 1.6)


def made(num_frames=12, seed=3, height=40, width=48):
    return RainCells(50, num_frames, height, width, SCALE, seed)


def test_a_clip_depends_on_seed_and_index_alone():
    source = made()
    clip = source[7]
    assert {k: (v.shape, v.dtype) for k, v in clip.items()} == {
        "frames": ((12, 40, 48, 1), np.uint8),
        "mask": ((12, 40, 48, 1), np.uint8),
    }
    again = pickle.loads(pickle.dumps(made()))[7]
    np.testing.assert_array_equal(clip["frames"], again["frames"])
    assert (clip["frames"] != source[8]["frames"]).any()
    assert (clip["frames"] != made(seed=4)[7]["frames"]).any()


def test_a_longer_clip_begins_as_the_shorter_one():
    # 40 frames reach into a second block of cells.
    short, long = made(5)[2], made(40)[2]
    for name in short:
        np.testing.assert_array_equal(short[name], long[name][:5])
    assert long["frames"][32:].any()


def test_it_rains_here_and_there_and_nowhere_without_data():
    clips = [made()[index] for index in range(12)]
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
        frames = made(height=48)[index]["frames"][..., 0] / 255.0
        first, later = frames[2], frames[8]
        inner = (slice(10, -10), slice(10, -10))
        errors = {
            (dy, dx): np.square(np.roll(first, (dy, dx), (0, 1)) - later)[inner].mean()
            for dy in range(-10, 11)
            for dx in range(-10, 11)
        }
        gains.append(min(errors.values()) / errors[0, 0])
    assert np.median(gains) < 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 32, 32), "num_sequences is 0, but must be at least 1"),
        ((5, 0, 32, 32), "num_frames is 0, but must be at least 1"),
        ((5, 5, 15, 32), "height is 15, but must be at least 16"),
        ((5, 5, 32, 15), "width is 15, but must be at least 16"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        RainCells(*arguments, SCALE)
    with pytest.raises(IndexError, match="Sequence 50 is out of range"):
        made()[50]


def test_the_splits_differ_and_only_training_depends_on_the_seed():
    first, second = (
        rain_cells_sources(num_frames=3, seed=seed, height=48, width=48, scale=SCALE)
        for seed in (0, 1)
    )
    for split in ("validation", "test"):
        one, other = (getattr(source, split)[0]["frames"] for source in (first, second))
        np.testing.assert_array_equal(one, other)
    clips = [first.train, second.train, first.validation, first.test]
    assert len({clip[0]["frames"].tobytes() for clip in clips}) == 4
    assert "no measured rain" in first.description
