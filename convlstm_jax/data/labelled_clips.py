"""Clips with a class each, cut from videos by the intervals of an annotated event."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from convlstm_jax.data.annotated_videos import AnnotatedVideo, open_annotated_videos
from convlstm_jax.data.clip_cutting import CutClips, cut_clips, mixed, split_videos
from convlstm_jax.data.prepared import is_prepared
from convlstm_jax.data.prepared_annotations import open_prepared_annotated_videos
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.video_frames import BadFrames, Video
from convlstm_jax.errors import UserError

NO_EVENT = "normal"
"""The class of clips without the event; its label is 0, that of the event 1."""

_SHOWN_PROBLEMS = 3


class LabelledClips:
    """A random-access source of clips that lie in videos.

    Args:
      videos: the videos.
      clips: (index of the video, first frame, label) of each clip.
      num_frames: frames per clip, T.
      frame_stride: distance between two of them in the video.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clips: Sequence[tuple[int, int, int]],
        num_frames: int,
        frame_stride: int,
    ) -> None:
        self._videos = tuple(videos)
        self._clips = np.asarray(clips, np.int64).reshape(-1, 3)
        self._num_frames = num_frames
        self._frame_stride = frame_stride

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one clip.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, H, W, C], "label": int32 []}.

        Raises:
          IndexError: the index is out of range.
          UserError: the video turns out to be damaged there.
        """
        if not 0 <= index < len(self):
            raise IndexError(
                f"Clip {index} is out of range: the source holds {len(self)} clips."
            )
        video, start, label = (int(value) for value in self._clips[index])
        frames = self._videos[video].read(start, self._num_frames, self._frame_stride)
        return {"frames": frames, "label": np.asarray(label, np.int32)}


def class_names(event_labels: Sequence[str]) -> tuple[str, str]:
    """The classes of clips: without the event, and with it.

    Args:
      event_labels: the labels of the annotations that make an event.

    Returns:
      "normal" and the labels joined by "+".

    Raises:
      UserError: there is no label, an empty one, or "normal" itself.
    """
    event = "+".join(event_labels)
    if not all(event_labels) or event in ("", NO_EVENT):
        raise UserError(
            f"event_labels is {tuple(event_labels)}, but must hold at least one label "
            f"of the annotations, other than {NO_EVENT!r} alone."
        )
    return NO_EVENT, event


def labelled_clips_sources(
    *,
    path: str,
    event_labels: Sequence[str],
    num_frames: int,
    seed: int,
    height: int,
    width: int,
    channels: int = 3,
    crop_box: tuple[int, ...] = (),
    frame_stride: int = 1,
    clip_stride: int = 0,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    bad_files: BadFrames = "refuse",
    num_train_sequences: int = 10_000_000,
    num_validation_sequences: int = 10_000_000,
    num_test_sequences: int = 10_000_000,
) -> Sources:
    """Clips from a folder of videos with "CVAT for video 1.1" annotations.

    A clip is of the event if at least half of its frames lie in the intervals in which
    a track of one of the labels is to be seen, normal if none does; those in between
    tell neither and are left out. Only frames that were annotated are used.

    Every video belongs to one split, by its name alone. Videos with and without clips
    of the event are dealt out apart, so that each split gets its share of both. The
    clips of a split are in a mixed order, the same every time, so that its first ones
    are a fair sample; a split of fewer clips holds the first of these.

    Args:
      path: the folder, see `open_annotated_videos`, or a prepared one.
      event_labels: the labels of the annotations that make an event.
      num_frames: frames per clip, T.
      seed: not used: the order of training is the input pipeline's.
      height: H, pixels; videos of another size are resized.
      width: W, pixels.
      channels: C, 1 (grey) or 3 (colour).
      crop_box: part of the frames that is used, see `open_video`.
      frame_stride: every n-th frame of the video is used.
      clip_stride: frames, of those used, from the start of one clip to that of the
        next; 0 stands for num_frames, so that clips do not overlap.
      validation_fraction: share of the videos for validation, at least one of those
        with the event and one of those without where there are three.
      test_fraction: likewise for the test split.
      bad_files: what to do about videos that are damaged or without sound annotations:
        "refuse" them, or "skip" what cannot be used.
      num_train_sequences: most clips of the training split.
      num_validation_sequences: most clips of the validation split.
      num_test_sequences: most clips of the test split.

    Returns:
      The splits, with `classes` and `class_counts`.

    Raises:
      UserError: an argument is out of its range, the files are not as they should be,
        no track has one of the labels, or a split would hold no clip of a class.
    """
    classes = class_names(event_labels)
    limits = (num_train_sequences, num_validation_sequences, num_test_sequences)
    _check_numbers(
        num_frames=num_frames,
        frame_stride=frame_stride,
        num_train_sequences=num_train_sequences,
        num_validation_sequences=num_validation_sequences,
        num_test_sequences=num_test_sequences,
    )
    if clip_stride < 0:
        raise UserError(f"clip_stride is {clip_stride}, but must be at least 0.")
    if min(validation_fraction, test_fraction) <= 0 or (
        validation_fraction + test_fraction >= 1
    ):
        raise UserError(
            f"validation_fraction and test_fraction are {validation_fraction} and "
            f"{test_fraction}, but both must be above 0 and their sum below 1."
        )
    if bad_files not in get_args(BadFrames):
        raise UserError(f"bad_files is {bad_files!r}, but must be 'refuse' or 'skip'.")
    prepared = is_prepared(path)
    open_all = open_prepared_annotated_videos if prepared else open_annotated_videos
    videos, left_out = open_all(
        path,
        height=height,
        width=width,
        channels=channels,
        crop_box=crop_box,
        bad_files=bad_files,
    )
    _check_labels(videos, event_labels, path)
    cut = [
        cut_clips(
            video,
            event_labels,
            num_frames=num_frames,
            frame_stride=frame_stride,
            clip_stride=clip_stride or num_frames,
        )
        for video in videos
    ]
    used = [number for number, clips in enumerate(cut) if clips.labelled]
    numbers = split_videos(
        {number: videos[number].name for number in used},
        {n for n in used if any(label for _, label in cut[n].labelled)},
        validation_fraction,
        test_fraction,
    )
    splits = {}
    for (split, members), limit in zip(numbers.items(), limits, strict=True):
        clips = [
            (number, start, label)
            for number in members
            for start, label in cut[number].labelled
        ]
        # Not one video after the other: the first clips stand for all.
        clips = mixed(clips, lambda clip: f"{videos[clip[0]].name}\0{clip[1]}")
        splits[split] = clips[:limit]
    counts = {
        split: tuple(Counter(label for *_, label in clips)[n] for n in range(2))
        for split, clips in splits.items()
    }
    _check_classes(counts, classes, cut, path)
    sources = {
        split: LabelledClips(
            [video.video for video in videos], clips, num_frames, frame_stride
        )
        for split, clips in splits.items()
    }
    return Sources(
        train=sources["training"],
        validation=sources["validation"],
        test=sources["test"],
        description=_description(path, classes, numbers, counts, cut, left_out),
        height=height,
        width=width,
        channels=channels,
        classes=classes,
        class_counts=counts["training"],
    )


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name} is {number}, but must be at least 1.")


def _check_labels(
    videos: Sequence[AnnotatedVideo], event_labels: Sequence[str], path: str
) -> None:
    """Raises a `UserError` if no track has one of the labels: a slip of the pen."""
    found = {track.label for video in videos for track in video.annotations.tracks}
    for label in event_labels:
        if label not in found:
            raise UserError(
                f"event_labels holds {label!r}, but no track in '{path}' has that "
                f"label; there are {sorted(found)}."
            )


def _check_classes(
    counts: Mapping[str, Sequence[int]],
    classes: Sequence[str],
    cut: Sequence[CutClips],
    path: str,
) -> None:
    for split, numbers in counts.items():
        for label, number in enumerate(numbers):
            if number == 0:
                having = sum(
                    any(found == label for _, found in clips.labelled) for clips in cut
                )
                raise UserError(
                    f"The {split} split of '{path}' would hold no clip of the class "
                    f"{classes[label]!r}, which {having} of {len(cut)} videos have: "
                    "each split needs such a video (see validation_fraction, "
                    "test_fraction, clip_stride)."
                )


def _description(
    path: str,
    classes: Sequence[str],
    numbers: Mapping[str, Sequence[int]],
    counts: Mapping[str, Sequence[int]],
    cut: Sequence[CutClips],
    left_out: Sequence[str],
) -> str:
    """What is used, split by split, and what is not."""
    splits = "; ".join(
        f"{split} {len(numbers[split])} videos with "
        + ", ".join(f"{n} {name}" for n, name in zip(count, classes, strict=True))
        for split, count in counts.items()
    )
    text = f"{len(cut)} videos with CVAT annotations in {path}, as clips: {splits}."
    numbers_of_clips = {
        "that only touch an event": sum(clips.num_unclear for clips in cut),
        "that cannot be read": sum(clips.num_unreadable for clips in cut),
    }
    missing = [
        f"{number} clips {why}" for why, number in numbers_of_clips.items() if number
    ]
    num_short = sum(not clips.labelled for clips in cut)
    if num_short:
        missing.append(f"{num_short} videos without a clip of either class")
    missing += left_out[:_SHOWN_PROBLEMS]
    if len(left_out) > _SHOWN_PROBLEMS:
        missing.append(f"{len(left_out) - _SHOWN_PROBLEMS} more files")
    return f"{text} Left out: {'; '.join(missing)}." if missing else text
