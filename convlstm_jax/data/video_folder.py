"""Clips cut from a folder of videos, split so that no frame is on two sides."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from convlstm_jax.data.pictures import natural_order
from convlstm_jax.data.sources import Sources, check_seed_and_counts
from convlstm_jax.data.video_clips import (
    SPLITS,
    Part,
    VideoClips,
    clip_span,
    clip_starts,
    split_videos,
)
from convlstm_jax.data.video_frames import BadFrames, Video, open_video
from convlstm_jax.data.video_search import (
    FoundVideo,
    condition_of,
    condition_pattern,
    find_videos,
)
from convlstm_jax.errors import UserError


def video_folder_sources(
    *,
    path: str,
    num_frames: int,
    height: int,
    width: int,
    channels: int = 1,
    frame_stride: int = 1,
    clip_stride: int = 0,
    condition: str = "",
    test_conditions: tuple[str, ...] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    bad_files: BadFrames = "refuse",
    seed: int = 0,
    num_train_sequences: int,
    num_validation_sequences: int,
    num_test_sequences: int,
) -> Sources:
    """Clips from the videos and folders of pictures below a folder.

    Splits are by video: which one a video is in depends on the names of the videos, not
    on the seed or the file system. Where there are fewer videos than splits, each is
    cut in time instead: the first part to learn from, the last to test on.

    Args:
      path: the folder, searched as `find_videos` does; or one video.
      num_frames: frames per clip, input and output together.
      height: H of the clips, pixels; frames of another size are resized.
      width: W of the clips, pixels.
      channels: 1 (grey) or 3 (RGB).
      frame_stride: takes every so many-th frame of the videos.
      clip_stride: frames of the video from one clip's start to the next one's; 0: one
        clip starts after the other's end.
      condition: what conditions the clips are told apart by, see `condition_pattern`.
      test_conditions: the videos of these conditions are the test split and in no
        other; `test_fraction` then means nothing.
      validation_fraction: share of the videos for validation, in (0, 1).
      test_fraction: share of the videos for the test, in (0, 1).
      bad_files: whether a video that cannot be read whole or has no condition is to be
        refused, or used as far as it can be read and counted; see `open_video`.
      seed: the training seed; of no effect here, where nothing is drawn.
      num_train_sequences: upper limit of clips to learn from.
      num_validation_sequences: upper limit of clips for validation.
      num_test_sequences: upper limit of clips for the test.

    Returns:
      The splits.

    Raises:
      UserError: an argument is out of its range, a video is to be refused, or no clip
        is left in a split.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )
    _check_cutting(num_frames, frame_stride, clip_stride)
    if bad_files not in ("refuse", "skip"):
        raise UserError(f"bad_files is {bad_files!r}, but must be 'refuse' or 'skip'.")
    if test_conditions:
        _check_fractions(validation_fraction=validation_fraction)
    else:
        _check_fractions(
            validation_fraction=validation_fraction, test_fraction=test_fraction
        )
    if test_conditions and not condition:
        raise UserError(
            f"test_conditions is {test_conditions}, but condition is '', which gives "
            "the videos none: set it to 'folder' or to a regular expression."
        )
    span = clip_span(num_frames, frame_stride)
    found = find_videos(path)
    if not found:
        raise UserError(f"The folder '{path}' holds no video and no pictures.")
    whole, left_out = _open_all(
        found, condition, bad_files, span, height, width, channels
    )
    if not whole:
        raise UserError(f"No video of '{path}' can be used{_told_left_out(left_out)}.")
    names = {part.condition for part in whole if part.condition}
    conditions = tuple(sorted(names, key=lambda name: (natural_order(name), name)))
    for name in test_conditions:
        if name not in conditions:
            raise UserError(
                f"test_conditions names {name!r}, but the videos of '{path}' have the "
                f"conditions {', '.join(map(repr, conditions)) or 'none'}."
            )
    parts, cut_in_time = split_videos(
        whole, span, set(test_conditions), validation_fraction, test_fraction
    )
    limits = (num_train_sequences, num_validation_sequences, num_test_sequences)
    train, validation, test = (
        VideoClips(
            parts[split],
            num_frames,
            frame_stride,
            clip_stride or span,
            conditions,
            most,
        )
        for split, most in zip(SPLITS, limits, strict=True)
    )
    clips = dict(zip(SPLITS, (train, validation, test), strict=True))
    told_clips = ", ".join(f"{len(clips[split])} {split}" for split in SPLITS)
    for split in SPLITS:
        if not len(clips[split]):
            raise UserError(
                f"The {split} split of '{path}' is empty (clips of {span} frames from "
                f"{_videos(len(whole))}: {told_clips}{_told_left_out(left_out)}); add "
                "videos, ask for fewer frames or change the fractions or "
                "test_conditions."
            )
    how = "each cut in time" if cut_in_time else "split by video"
    videos = ", ".join(f"{len(parts[split])} {split}" for split in SPLITS)
    description = (
        f"Videos of '{path}': {_videos(len(whole))}, {how} ({videos}); clips of "
        f"{num_frames} frames at {height}x{width}: {told_clips}."
    )
    if conditions:
        description += f" Conditions: {', '.join(conditions)}"
        held = ", ".join(test_conditions)
        description += f"; held out for the test: {held}." if held else "."
    if left_out:
        description += f" Left out{_told_left_out(left_out)}."
    return Sources(
        train=train,
        validation=validation,
        test=test,
        description=description,
        height=height,
        width=width,
        channels=channels,
        conditions=conditions,
    )


def _check_cutting(num_frames: int, frame_stride: int, clip_stride: int) -> None:
    for name, value, least in (
        ("num_frames", num_frames, 1),
        ("frame_stride", frame_stride, 1),
        ("clip_stride", clip_stride, 0),
    ):
        if value < least:
            raise UserError(f"{name} is {value}, but must be at least {least}.")


def _check_fractions(**fractions: float) -> None:
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise UserError(f"{name} is {fraction}, but must be above 0 and below 1.")
    if sum(fractions.values()) >= 1:
        told = " and ".join(f"{name} {value}" for name, value in fractions.items())
        raise UserError(f"With {told} no video is left to learn from.")


def _videos(count: int) -> str:
    return f"{count} {'video' if count == 1 else 'videos'}"


def _told_left_out(left_out: dict[str, list[str]]) -> str:
    """What was left out by its reason, counted, with the first of each."""
    told = [
        f"{_videos(len(names))} {why} (first: {names[0].rstrip('.')})"
        for why, names in left_out.items()
    ]
    return f": {'; '.join(told)}" if told else ""


def _open_all(
    found: Sequence[FoundVideo],
    condition: str,
    bad_files: BadFrames,
    span: int,
    height: int,
    width: int,
    channels: int,
) -> tuple[list[Part], dict[str, list[str]]]:
    """Opens the videos; those with a clip in them, and what was left out and why."""
    pattern = condition_pattern(condition)
    conditions = [condition_of(pattern, one.name) if pattern else "" for one in found]
    for one, name in zip(found, conditions, strict=True):
        if pattern and not name and bad_files == "refuse":
            raise UserError(
                f"'{one.path}' has no condition: condition is {condition!r}, to which "
                f"its name '{one.name}' does not answer."
            )

    def opened(one: FoundVideo) -> Video:
        return open_video(
            one.path,
            height=height,
            width=width,
            channels=channels,
            bad_frames=bad_files,
        )

    whole: list[Part] = []
    left_out: dict[str, list[str]] = {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for one, name, video in zip(
            found, conditions, pool.map(opened, found), strict=True
        ):
            if not video.num_frames:
                left_out.setdefault("that cannot be read", []).append(video.problem)
                continue
            part = Part(video, one.name, name, 0, video.num_frames)
            if pattern and not name:
                left_out.setdefault("without a condition", []).append(one.name)
            elif not len(clip_starts(part, span, span)):
                left_out.setdefault(f"without {span} frames", []).append(one.name)
            else:
                whole.append(part)
                if video.problem:
                    left_out.setdefault("in part", []).append(
                        f"{one.name}: {video.problem}"
                    )
    finally:
        pool.shutdown(cancel_futures=True)
    return whole, left_out
