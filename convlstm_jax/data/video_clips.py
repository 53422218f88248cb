"""Clips cut from videos by number, and videos dealt out to the splits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from convlstm_jax.data.video_frames import Video
from convlstm_jax.errors import UserError

SPLITS = ("train", "validation", "test")
SplitBy = Literal["file", "condition", "time"]


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of one video that belongs to one split.

    Attributes:
      video: the video.
      name: its name, see `FoundVideo`.
      condition: what it was taken under; "" where there are no conditions.
      first: number of its first frame in the split.
      end: number of the frame after its last.
    """

    video: Video
    name: str
    condition: str
    first: int
    end: int


class VideoClips:
    """A random-access source of clips cut from stretches of videos.

    The clips come in an order of their own, drawn from the videos' names alone, so that
    the first few of them are a fair sample, and the same ones however many follow.

    Args:
      parts: the stretches; several may lie in one video.
      num_frames: frames per clip, T.
      frame_stride: distance of two frames of a clip, in frames of the video.
      clip_stride: distance of the first frames of two clips, in frames of the video.
      conditions: names of the conditions; () adds no "condition" to the clips.
      most_clips: upper limit of the length of the source.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        num_frames: int,
        frame_stride: int,
        clip_stride: int,
        conditions: tuple[str, ...],
        most_clips: int,
    ) -> None:
        self._num_frames = num_frames
        self._frame_stride = frame_stride
        self._parts = tuple(parts)
        self._conditions = [
            conditions.index(part.condition) if conditions else -1 for part in parts
        ]
        span = clip_span(num_frames, frame_stride)
        starts = [clip_starts(part, span, clip_stride) for part in parts]
        places = np.repeat(np.arange(len(parts)), [len(first) for first in starts])
        joined = np.concatenate([*starts, np.empty(0, np.int64)])
        names = np.array([name_bits(part.name) for part in parts], np.uint64)
        order = np.argsort(
            _mix(names[places] + joined.astype(np.uint64)), kind="stable"
        )[:most_clips]
        self._places, self._starts = places[order], joined[order]

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one clip.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, H, W, C]} and, where there are conditions, "condition":
          int32 [].

        Raises:
          IndexError: the index is out of range.
          UserError: the video cannot be read; the message names it.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"Clip {index} is out of range: the source holds {len(self)} clips."
            )
        place = int(self._places[index])
        clip = {
            "frames": self._parts[place].video.read(
                int(self._starts[index]), self._num_frames, self._frame_stride
            )
        }
        if self._conditions[place] >= 0:
            clip["condition"] = np.asarray(self._conditions[place], np.int32)
        return clip

    def blank_clips(self) -> list[str]:
        """Names of the videos of clips that are known to show nothing, once for each.

        Known are those all of whose frames have one value in all pixels, see
        `Video.blank`.
        """
        steps = np.arange(self._num_frames) * self._frame_stride
        return [
            self._parts[place].name
            for place, start in zip(self._places, self._starts, strict=True)
            if (blank := self._parts[place].video.blank)
            and blank.issuperset((start + steps).tolist())
        ]


def clip_span(num_frames: int, frame_stride: int) -> int:
    """Frames of a video from the first to the last frame of a clip."""
    return (num_frames - 1) * frame_stride + 1


def clip_starts(part: Part, span: int, clip_stride: int) -> np.ndarray:
    """First frames of the clips of a stretch, which reach over no hole; int64."""
    holes = [hole for hole in sorted(part.video.holes) if part.first <= hole < part.end]
    begins = [part.first, *(hole + 1 for hole in holes)]
    return np.concatenate(
        [
            np.arange(begin, end - span + 1, clip_stride, dtype=np.int64)
            for begin, end in zip(begins, [*holes, part.end], strict=True)
        ]
    )


def name_bits(name: str) -> int:
    """64 bits that depend on a name alone, on any machine."""
    encoded = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def _mix(bits: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit integers, one to one (the output function of SplitMix64)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def split_videos(
    whole: Sequence[Part],
    span: int,
    test_conditions: set[str],
    validation_fraction: float,
    test_fraction: float,
    split_by: SplitBy = "file",
) -> tuple[dict[str, list[Part]], bool]:
    """Deals videos out to the splits, by their names alone.

    Args:
      whole: the videos.
      span: frames from the first to the last of a clip; a split that is cut from a
        video gets no fewer.
      test_conditions: the videos of these are the test split and in no other.
      validation_fraction: share for validation, of the videos not held out.
      test_fraction: share for the test where no conditions are held out.
      split_by: what is dealt out: "file" videos, "condition" all videos of a condition
        together, "time" parts of each video.

    Returns:
      The stretches of each split, and whether each video was cut in time, its beginning
      to learn from, its end to test on: as asked for, or because there were so few.

    Raises:
      UserError: there are fewer conditions to deal out than splits.
    """
    held_out = [part for part in whole if part.condition in test_conditions]
    others = [part for part in whole if part.condition not in test_conditions]
    # (split, share of the videos), the last ones first.
    shares = [("validation", validation_fraction)]
    if not test_conditions:
        shares.insert(0, ("test", test_fraction))
    groups = _groups(others, by_condition=split_by == "condition")
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    parts["test"] += held_out
    if split_by != "time" and len(groups) > len(shares):
        end = len(groups)
        for left, (split, share) in enumerate(shares):
            spare = end - (len(shares) - left)  # One for each split still to fill.
            count = min(max(1, round(share * len(groups))), spare)
            for group in groups[end - count : end]:
                parts[split] += group
            end -= count
        for group in groups[:end]:
            parts["train"] += group
        return parts, False
    if split_by == "condition":
        raise UserError(
            f"split_by is 'condition', but of the {len(groups)} conditions that are "
            f"not held out each of {len(shares) + 1} splits needs one: use 'file' or "
            "'time', or another condition."
        )
    for (part,) in groups:
        end = part.end
        for split, share in shares:
            count = max(span, round(share * part.end))
            first = max(0, end - count)
            parts[split].append(Part(part.video, part.name, part.condition, first, end))
            end = first
        parts["train"].append(Part(part.video, part.name, part.condition, 0, end))
    return parts, bool(others)


def _groups(parts: Sequence[Part], *, by_condition: bool) -> list[list[Part]]:
    """Videos that stay together, in an order of their own drawn from their names."""
    groups: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda part: (name_bits(part.name), part.name)):
        key = part.condition if by_condition else part.name
        groups.setdefault(key, []).append(part)
    return [
        groups[key] for key in sorted(groups, key=lambda key: (name_bits(key), key))
    ]
