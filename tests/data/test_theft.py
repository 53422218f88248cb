"""Synthetic clips of a shop: labels, movements, and what a frame alone cannot tell."""

import numpy as np

from convlstm_jax.data.synthetic.theft import TheftConfig

COUNTS = {f"num_{s}_sequences": 13 for s in ("train", "validation", "test")}


def opened(num_frames=9, seed=0, **fields):
    return TheftConfig(**COUNTS, **fields).sources(num_frames=num_frames, seed=seed)


def test_clips_are_labelled_and_half_are_thefts():
    sources = opened()
    assert sources.classes == ("normal", "theft")
    labels = [int(sources.train[i]["label"]) for i in range(13)]
    assert tuple(np.bincount(labels)) == sources.class_counts == (6, 7)
    clip = sources.train[0]
    assert clip["frames"].shape == (9, 64, 64, 3)
    assert clip["frames"].dtype == np.uint8 and clip["label"].dtype == np.int32


def test_a_thing_leaves_the_shelf_in_a_theft_alone():
    """The lower board holds a thing less at the end, one more after restocking."""
    changes = {0: [], 1: []}
    for index in range(12):
        clip = opened(height=96, width=96).test[index]
        shelf = clip["frames"][[0, -1], 26:36].astype(int)
        changes[int(clip["label"])].append(np.abs(shelf[1] - shelf[0]).sum() > 0)
    assert all(changes[1])
    assert sum(changes[0]) == 2  # Restocking, among touching and passing.
