"""Clips cut from a folder of videos, split so that no frame is on two sides."""

from functools import partial
from typing import Any, get_args

from convlstm_jax.data.pictures import natural_order
from convlstm_jax.data.prepared import is_prepared
from convlstm_jax.data.prepared_videos import PreparedVideos
from convlstm_jax.data.sources import Sources, check_seed_and_counts
from convlstm_jax.data.video_clips import (
    SPLITS,
    SplitBy,
    VideoClips,
    clip_span,
    split_videos,
)
from convlstm_jax.data.video_frames import BadFrames, open_video
from convlstm_jax.data.video_opening import (
    conditions_of,
    open_videos,
    told_left_out,
    told_videos,
)
from convlstm_jax.data.video_search import find_videos
from convlstm_jax.errors import UserError


def video_folder_sources(
    *,
    path: str,
    num_frames: int,
    height: int,
    width: int,
    channels: int = 1,
    crop_box: tuple[int, ...] = (),
    value_range: tuple[float, ...] = (),
    variable: str = "",
    frame_stride: int = 1,
    clip_stride: int = 0,
    condition: str = "",
    split_by: SplitBy = "file",
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

    A folder that `prepare_videos` wrote gives what the folder it was made
    from gives, bit for bit.

    Args:
      path: the folder, searched as `find_videos` does; or one video; or a prepared
        folder.
      num_frames: frames per clip, input and output together.
      height: H of the clips, pixels; frames of another size are resized.
      width: W of the clips, pixels.
      channels: 1 (grey) or 3 (RGB).
      crop_box: part of the frames that is used, see `open_video`.
      value_range: values of arrays that become 0 and 1, see `open_video`.
      variable: name of the array in files that hold several, see `open_video`.
      frame_stride: takes every so many-th frame of the videos.
      clip_stride: frames of the video from one clip's start to the next one's; 0: one
        clip starts after the other's end.
      condition: what conditions the clips are told apart by, see `condition_pattern`.
      split_by: what is dealt out to the splits: each video ("file"), all videos of a
        condition together ("condition"), or parts of each video ("time").
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
    if split_by not in get_args(SplitBy):
        raise UserError(
            f"split_by is {split_by!r}, but must be one of {get_args(SplitBy)}."
        )
    if split_by == "condition" and not condition:
        raise UserError(
            "split_by is 'condition', but condition is '', which gives the videos "
            "none: set it to 'folder' or to a regular expression."
        )
    span = clip_span(num_frames, frame_stride)
    how_read: dict[str, Any] = {
        "height": height,
        "width": width,
        "channels": channels,
        "crop_box": crop_box,
        "value_range": value_range,
        "variable": variable,
    }
    if is_prepared(path):
        prepared = PreparedVideos(path, {**how_read, "bad_files": bad_files})
        found, open_one = prepared.found, prepared.open_video
    else:
        found = find_videos(path)
        open_one = partial(open_video, **how_read, bad_frames=bad_files)
    if not found:
        raise UserError(f"The folder '{path}' holds no video and no pictures.")
    whole, left_out = open_videos(
        found, open_one, conditions_of(found, condition, bad_files), span
    )
    if not whole:
        raise UserError(f"No video of '{path}' can be used{told_left_out(left_out)}.")
    names = {part.condition for part in whole if part.condition}
    conditions = tuple(sorted(names, key=lambda name: (natural_order(name), name)))
    for name in test_conditions:
        if name not in conditions:
            raise UserError(
                f"test_conditions names {name!r}, but the videos of '{path}' have the "
                f"conditions {', '.join(map(repr, conditions)) or 'none'}."
            )
    parts, cut_in_time = split_videos(
        whole, span, set(test_conditions), validation_fraction, test_fraction,
        split_by,
    )  # fmt: skip
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
                f"{told_videos(len(whole))}: {told_clips}{told_left_out(left_out)}); "
                "add videos, ask for fewer frames or change the fractions or "
                "test_conditions."
            )
    how = "split by condition" if split_by == "condition" else "split by video"
    how = "each cut in time" if cut_in_time else how
    videos = ", ".join(f"{len(parts[split])} {split}" for split in SPLITS)
    description = (
        f"Videos of '{path}': {told_videos(len(whole))}, {how} ({videos}); clips of "
        f"{num_frames} frames at {height}x{width}: {told_clips}."
    )
    if conditions:
        description += f" Conditions: {', '.join(conditions)}"
        held = ", ".join(test_conditions)
        description += f"; held out for the test: {held}." if held else "."
    blank = [name for split in SPLITS for name in clips[split].blank_clips()]
    if blank:
        count = f"{len(blank)} {'clip' if len(blank) == 1 else 'clips'}"
        description += f" Nothing is to be seen in {count} (first: {blank[0]})."
    if left_out:
        description += f" Left out{told_left_out(left_out)}."
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
