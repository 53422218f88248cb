"""Opens the videos of a folder, and tells those that can be used from the others."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from convlstm_jax.data.video_clips import Part, clip_starts
from convlstm_jax.data.video_frames import BadFrames, Video
from convlstm_jax.data.video_search import (
    FoundVideo,
    condition_of,
    condition_pattern,
)
from convlstm_jax.errors import UserError


def conditions_of(
    found: Sequence[FoundVideo], condition: str, bad_files: BadFrames
) -> list[str] | None:
    """The condition of each video, "" for one without.

    Args:
      found: the videos.
      condition: see `condition_pattern`.
      bad_files: whether a video without a condition is to be refused.

    Returns:
      The conditions; None if there are none at all.

    Raises:
      UserError: a video has no condition and is to be refused.
    """
    pattern = condition_pattern(condition)
    if pattern is None:
        return None
    names = [condition_of(pattern, one.name) for one in found]
    for one, name in zip(found, names, strict=True):
        if not name and bad_files == "refuse":
            raise UserError(
                f"'{one.path}' has no condition: condition is {condition!r}, to which "
                f"its name '{one.name}' does not answer."
            )
    return names


def open_videos(
    found: Sequence[FoundVideo],
    open_one: Callable[[Path], Video],
    conditions: Sequence[str] | None,
    span: int,
) -> tuple[list[Part], dict[str, list[str]]]:
    """Opens videos, several at a time.

    Args:
      found: the videos.
      open_one: opens one by its path.
      conditions: the condition of each, see `conditions_of`.
      span: frames of a video from the first to the last of a clip.

    Returns:
      Those with a clip in them, whole; and what was left out, by the reason why.

    Raises:
      UserError: a video is to be refused.
    """
    whole: list[Part] = []
    left_out: dict[str, list[str]] = {}
    names = [""] * len(found) if conditions is None else conditions
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        videos = pool.map(open_one, [one.path for one in found])
        for one, name, video in zip(found, names, videos, strict=True):
            if not video.num_frames:
                left_out.setdefault("that cannot be read", []).append(video.problem)
                continue
            part = Part(video, one.name, name, 0, video.num_frames)
            if conditions is not None and not name:
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


def told_videos(count: int) -> str:
    """A number of videos in words."""
    return f"{count} {'video' if count == 1 else 'videos'}"


def told_left_out(left_out: dict[str, list[str]]) -> str:
    """What was left out by its reason, counted, with the first of each."""
    told = [
        f"{told_videos(len(names))} {why} (first: {names[0].rstrip('.')})"
        for why, names in left_out.items()
    ]
    return f": {'; '.join(told)}" if told else ""
