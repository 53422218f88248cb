"""Clips cut from videos by number, and videos dealt out to the splits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convlstm_jax.data.video_frames import Video

SPLITS = ("train", "validation", "test")


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
        self._videos = [part.video for part in parts]
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
            "frames": self._videos[place].read(
                int(self._starts[index]), self._num_frames, self._frame_stride
            )
        }
        if self._conditions[place] >= 0:
            clip["condition"] = np.asarray(self._conditions[place], np.int32)
        return clip


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
) -> tuple[dict[str, list[Part]], bool]:
    """Deals videos out to the splits, by their names alone.

    Args:
      whole: the videos.
      span: frames from the first to the last of a clip; a split that is cut from a
        video gets no fewer.
      test_conditions: the videos of these are the test split and in no other.
      validation_fraction: share for validation, of the videos not held out.
      test_fraction: share for the test where no conditions are held out.

    Returns:
      The stretches of each split, and whether there were so few videos that each was
      cut in time: its beginning to learn from, its end to test on.
    """
    held_out = [part for part in whole if part.condition in test_conditions]
    others = [part for part in whole if part.condition not in test_conditions]
    others.sort(key=lambda part: (name_bits(part.name), part.name))
    # (split, share of the videos), the last ones first.
    shares = [("validation", validation_fraction)]
    if not test_conditions:
        shares.insert(0, ("test", test_fraction))
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    parts["test"] += held_out
    if len(others) > len(shares):
        end = len(others)
        for left, (split, share) in enumerate(shares):
            spare = end - (len(shares) - left)  # One for each split still to fill.
            count = min(max(1, round(share * len(others))), spare)
            parts[split] += others[end - count : end]
            end -= count
        parts["train"] += others[:end]
        return parts, False
    for part in others:
        end = part.end
        for split, share in shares:
            count = max(span, round(share * part.end))
            first = max(0, end - count)
            parts[split].append(Part(part.video, part.name, part.condition, first, end))
            end = first
        parts["train"].append(Part(part.video, part.name, part.condition, 0, end))
    return parts, bool(others)
