"""Cuts videos into clips with labels, and deals the videos out to the splits."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from convlstm_jax.data.annotated_videos import AnnotatedVideo
from convlstm_jax.data.cvat import event_intervals

T = TypeVar("T")


@dataclass(frozen=True)
class CutClips:
    """The clips of one video.

    Attributes:
      labelled: (first frame, label) of each; label 1 for the event, 0 without it.
      num_unclear: clips left out because less than half of them is in an interval.
      num_unreadable: clips left out because a frame of them cannot be read.
    """

    labelled: tuple[tuple[int, int], ...]
    num_unclear: int
    num_unreadable: int


def cut_clips(
    video: AnnotatedVideo,
    event_labels: Iterable[str],
    *,
    num_frames: int,
    frame_stride: int,
    clip_stride: int,
) -> CutClips:
    """Cuts one video into clips.

    Args:
      video: the video.
      event_labels: the labels that make an event.
      num_frames: frames per clip.
      frame_stride: distance between two of them in the video.
      clip_stride: as in `labelled_clips_sources`, but at least 1.

    Returns:
      The clips that lie in the annotated part of the video.
    """
    annotations = video.annotations
    in_event = np.zeros(annotations.stop_frame + 1, bool)
    for first, end in event_intervals(annotations, event_labels):
        in_event[first:end] = True
    labelled = []
    num_unclear = num_unreadable = 0
    span = (num_frames - 1) * frame_stride + 1
    last = annotations.stop_frame - span + 1
    step = clip_stride * frame_stride
    for start in range(annotations.start_frame, last + 1, step):
        inside = np.count_nonzero(in_event[start : start + span : frame_stride])
        if not video.video.can_read(start, num_frames, frame_stride):
            num_unreadable += 1
        elif 0 < 2 * inside < num_frames:
            num_unclear += 1
        else:
            labelled.append((start, int(inside > 0)))
    return CutClips(tuple(labelled), num_unclear, num_unreadable)


def split_videos(
    names: Mapping[int, str],
    with_event: Collection[int],
    validation_fraction: float,
    test_fraction: float,
) -> dict[str, list[int]]:
    """Deals videos out to the splits, those with and without the event apart.

    Args:
      names: name of each video by its number; the names alone decide what goes where.
      with_event: numbers of the videos that have clips of the event.
      validation_fraction: share for validation, above 0.
      test_fraction: share for testing; the sum of both is below 1.

    Returns:
      The numbers of the videos in "training", "validation" and "test", ascending. Of
      three or more videos of one kind each split gets at least one; fewer are for
      training.
    """
    splits: dict[str, list[int]] = {"training": [], "validation": [], "test": []}
    for kind in (True, False):
        members = [number for number in names if (number in with_event) == kind]
        members = mixed(members, names.__getitem__)
        num_validation, num_test = _held_out(
            len(members), validation_fraction, test_fraction
        )
        splits["test"] += members[:num_test]
        splits["validation"] += members[num_test : num_test + num_validation]
        splits["training"] += members[num_test + num_validation :]
    return {split: sorted(members) for split, members in splits.items()}


def _held_out(count: int, *fractions: float) -> list[int]:
    if count < 3:
        return [0 for _ in fractions]
    sizes = [max(1, round(count * fraction)) for fraction in fractions]
    while sum(sizes) >= count:  # Rounding must not use up what is to be learned from.
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def mixed(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Sorts by a hash of the items' names: as good as random, always the same."""

    def digest(item: T) -> bytes:
        # File names may hold bytes that are no text.
        return hashlib.sha256(name(item).encode(errors="surrogateescape")).digest()

    return sorted(items, key=digest)
