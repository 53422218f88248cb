"""What holds for every data set that is generated."""

import pickle

import numpy as np
import pytest

from convlstm_jax.data.data_sets import DATA_SETS

SMALL = {
    "moving_mnist": {"digits": "sklearn", "height": 32, "width": 40},
    "moving_squares": {"height": 30, "width": 20},
    "bubbles": {"height": 32, "width": 48},
    "rain_cells": {"height": 40, "width": 48},
    "theft_videos": {"height": 32, "width": 48, "channels": 1},
}


def opened(name, num_frames=5, seed=0, count=6):
    counts = {f"num_{s}_sequences": count for s in ("train", "validation", "test")}
    config = DATA_SETS[name](**SMALL[name], **counts)
    return config.sources(num_frames=num_frames, seed=seed)


def same(clip, other, num_frames=None):
    """Whether two clips agree in all arrays, of which the frames are compared."""
    assert clip.keys() == other.keys()
    return all(
        np.array_equal(clip[name][:num_frames], other[name][:num_frames])
        if clip[name].ndim
        else clip[name] == other[name]
        for name in clip
    )


@pytest.mark.parametrize("name", SMALL)
def test_a_clip_depends_on_seed_and_index_alone(name):
    sources = opened(name)
    fields = SMALL[name]
    assert (sources.height, sources.width) == (fields["height"], fields["width"])
    assert f"{fields['height']}x{fields['width']}" in sources.description
    more = pickle.loads(pickle.dumps(opened(name, count=9).train))
    for index in (5, 0, 5):
        clip = sources.train[index]
        assert clip["frames"].shape[:3] == (5, fields["height"], fields["width"])
        assert same(clip, more[index])
    frames = [clip["frames"].tobytes() for clip in sources.train]
    assert len(set(frames)) == len(frames) == len(sources.train) == 6


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"theft_videos"}))
def test_a_longer_clip_begins_as_the_shorter_one(name):
    # 40 frames reach into a second block of rain cells.
    short, long = opened(name, 5).train[2], opened(name, 40).train[2]
    assert same(short, long, 5) and long["frames"][35:].any()


@pytest.mark.parametrize("name", SMALL)
def test_splits_are_disjoint_and_only_training_depends_on_the_seed(name):
    first, second = opened(name), opened(name, seed=1)
    clips = {}
    for split, fixed in (("train", False), ("validation", True), ("test", True)):
        one, two = getattr(first, split)[3], getattr(second, split)[3]
        assert same(one, two) == fixed
        clips[one["frames"].tobytes()] = clips[two["frames"].tobytes()] = split
    assert len(clips) == 4


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("index", [-1, 6])
def test_clips_that_there_are_not(name, index):
    with pytest.raises(IndexError, match=f"Clip {index} is out .* holds 6 clips"):
        opened(name).test[index]
