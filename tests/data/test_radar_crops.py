"""Crops of radar sequences: where they lie, and which are passed over."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.cache import FrameCache
from convlstm_jax.data.files import LeftOut
from convlstm_jax.data.radar.clips import RadarClips, crop_places
from convlstm_jax.data.radar.composites import (
    CompositeFile,
    decoded_composites,
    decoding,
)
from convlstm_jax.data.radar.config import RadarConfig
from tests.data.radar_files import SCALE, level


def cutting(**fields):
    defaults = {"height": 4, "width": 5, "crop_stride": 0, "min_rain_share": 0.0}
    fixed = {"downsample": 1, "dbz_max": SCALE.dbz_max}
    return RadarConfig(**{**fixed, **defaults, **fields})


def event(folder, frames):
    start = datetime(2016, 9, 28, 14, 45)
    files = []
    for index, frame in enumerate(frames):
        path = folder / f"{index}.png"
        Image.fromarray(frame).save(path)
        time = start + timedelta(minutes=5 * index)
        files.append(CompositeFile(path, path.name, time))
    decoded = FrameCache(folder / "cache").cached({}, decoding(files, cutting()))
    return tuple(decoded_composites([(decoded, decoded.extra)], LeftOut()))


def clips_of(folder, frames, max_clips=1000, num_frames=4, **fields):
    config = cutting(num_train_sequences=max_clips, **fields)
    whole = event(folder, frames)
    parts = [(whole, whole)]
    return RadarClips(config, "train", parts, num_frames, ["2016-09-28"])


def test_every_place_and_start_is_a_clip_once_in_an_order_of_its_own(tmp_path):
    frames = np.random.default_rng(1).integers(70, 180, (11, 9, 11), np.uint8)
    fields = {"num_frames": 3, "frame_stride": 2, "clip_stride": 3, "crop_stride": 2}
    clips = clips_of(tmp_path, frames, **fields)
    expected = [
        level(frames[start : start + 5 : 2, top : top + 4, left : left + 5] / 2 - 32)
        for start in (0, 3, 6)
        for top in (0, 2, 4)
        for left in (0, 2, 4, 6)
    ]
    seen = [clips[index]["frames"][..., 0] for index in range(len(clips))]
    assert len(seen) == len(expected)
    assert {clip.tobytes() for clip in seen} == {
        clip.astype(np.uint8).tobytes() for clip in expected
    }
    assert not np.array_equal(seen, expected)
    few = clips_of(tmp_path, frames, max_clips=5, **fields)
    assert len(few) == 5
    np.testing.assert_array_equal(few[4]["frames"], clips[4]["frames"])


@pytest.mark.parametrize("index", [-1, 12])
def test_clips_that_there_are_not(index, tmp_path):
    clips = clips_of(tmp_path, np.full((5, 12, 10), 90, np.uint8))
    with pytest.raises(IndexError, match=f"Clip {index} is out of .* holds 12 clips"):
        clips[index]


def test_crops_without_rain_or_data_are_passed_over(tmp_path):
    frame = np.zeros((8, 10), np.uint8)
    frame[:4, :5] = 120  # Rain here,
    frame[4:, 5:] = 255  # no data there.
    (composite,) = event(tmp_path, [frame])
    read = composite.read()
    assert crop_places(read, cutting(), 0) == [(0, 0), (0, 5), (4, 0)]
    wet = cutting(min_rain_share=0.5)
    assert crop_places(read, wet, 0) == [(0, 0)]


def test_the_first_frame_alone_decides(tmp_path):
    frames = np.full((4, 4, 5), 120, np.uint8)
    frames[1:] = 255
    (clip,) = [clips_of(tmp_path, frames)[0]]
    np.testing.assert_array_equal(clip["mask"].mean((1, 2, 3)), [1, 0, 0, 0])
    frames[[0, 3]] = frames[[3, 0]]
    (tmp_path / "later").mkdir()
    assert len(clips_of(tmp_path / "later", frames)) == 0


def test_rain_is_a_share_of_what_holds_data(tmp_path):
    frame = np.zeros((4, 5), np.uint8)
    frame[:2] = 255  # Half: just enough data.
    frame[2:, :1] = 120  # Two tenths of the rest.
    (composite,) = event(tmp_path, [frame])
    read = composite.read()
    for share, places in ((0.2, [(0, 0)]), (0.21, [])):
        wanted = cutting(min_rain_share=share)
        assert crop_places(read, wanted, 0) == places
