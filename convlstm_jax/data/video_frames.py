"""Random access to the frames of one video, decoded when they are read.

A video is a video file, a GIF, a `.npy` array or a folder of pictures. Opening one
reads its index; frames are decoded from the nearest place where decoding can begin,
fitted to one size, and kept in a cache of fixed size, so that a small data set is
decoded once and a large one never exhausts the memory.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from convlstm_jax.data.array_frames import ArrayReader
from convlstm_jax.data.clip_files import CLIP_SUFFIXES
from convlstm_jax.data.container_frames import ContainerReader
from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.frame_readers import (
    FolderReader,
    FrameReader,
    GifReader,
)
from convlstm_jax.data.pictures import PICTURE_ERRORS, PICTURE_SUFFIXES, reason
from convlstm_jax.errors import UserError

BadFrames = Literal["refuse", "skip"]

_cache = FrameCache()


@dataclass(frozen=True, eq=False)
class Video:
    """The frames of one video, in one size; made by `open_video`.

    Can be pickled: a copy in another process decodes for itself.

    Attributes:
      path: the file or folder.
      height: H of the frames read, pixels.
      width: W of the frames read, pixels.
      channels: C of the frames read.
      num_frames: frames up to the last one that can be decoded; 0 if none can.
      problem: one sentence on what was left out, "" if nothing.
      holes: frames before `num_frames` that cannot be read; none unless bad frames are
        skipped and some lie in the midst of the video. See `can_read`.
    """

    path: Path
    height: int
    width: int
    channels: int
    num_frames: int
    problem: str = ""
    holes: frozenset[int] = frozenset()
    _reader: FrameReader | None = field(default=None, repr=False)
    _token: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    def can_read(self, start: int, count: int, stride: int = 1) -> bool:
        """Tells whether `read` with these arguments finds all its frames."""
        numbers = range(start, start + count * stride, stride)
        return (
            start >= 0
            and numbers[-1] < self.num_frames
            and self.holes.isdisjoint(numbers)
        )

    def read(self, start: int, count: int, stride: int = 1) -> np.ndarray:
        """Reads frames start, start + stride, ...

        Args:
          start: number of the first frame, at least 0.
          count: how many frames, at least 1.
          stride: distance between two of them, at least 1.

        Returns:
          uint8 [count, height, width, channels].

        Raises:
          UserError: the range reaches out of the video, or a frame cannot be decoded.
        """
        if count < 1 or stride < 1 or not self.can_read(start, count, stride):
            raise UserError(
                f"{count} frames from frame {start} on with a stride of {stride} are "
                f"asked of '{self.path}', of which {self.num_frames} frames can be read"
                + (f" but for {len(self.holes)} in between." if self.holes else ".")
            )
        numbers = range(start, start + count * stride, stride)
        frames = {number: _cache.get(self._token, number) for number in numbers}
        missing = [number for number in numbers if frames[number] is None]
        if missing:
            self._decode(missing, frames)
        clip = np.empty((count, self.height, self.width, self.channels), np.uint8)
        for place, number in enumerate(numbers):
            frame = frames[number]
            if frame is None:
                raise UserError(
                    f"'{self.path}' cannot be read whole (frame {number} of "
                    f"{self.num_frames} cannot be decoded)."
                )
            clip[place] = frame
        return clip

    def _decode(self, missing: list[int], frames: dict[int, np.ndarray | None]) -> None:
        """Puts the missing frames into `frames` and into the cache."""
        assert self._reader is not None  # num_frames is not 0
        frame_bytes = self.height * self.width * self.channels
        wanted = set(missing)
        for number, load in self._reader.frames(missing):
            # Those passed on the way were decoded at a cost: keep them while it costs
            # no other frame.
            if number in wanted or _cache.has_room(self._token, number, frame_bytes):
                frame = fit_frame(load(), self.height, self.width)
                _cache.put(self._token, number, frame)
                if number in wanted:
                    frames[number] = frame


def open_video(
    path: str | Path,
    *,
    height: int,
    width: int,
    channels: int,
    bad_frames: BadFrames = "refuse",
) -> Video:
    """Opens a video: a file (mp4, avi, mkv, mov, webm, gif, npy) or picture folder.

    A folder's pictures (png, jpg, bmp, pgm, also pgm.gz, tif) come in natural order;
    `.npy` arrays are [T, H, W] or [T, H, W, C], uint8 or floats in [0, 1]. Frames of
    another size are resized without keeping their proportions: by means over areas
    where they shrink, linearly where they grow. Colour becomes grey by the BT.601 luma.

    Args:
      path: the file or folder.
      height: H wanted, pixels.
      width: W wanted, pixels.
      channels: C wanted: 1 (grey) or 3 (RGB), for `.npy` also the number it holds.
      bad_frames: what to do about a video that is damaged, cut short or of mixed
        sizes. "refuse" raises an error, here for what the index and the end of the
        file show, when it is read for damage in its midst. "skip" decodes the whole
        video once, here, to find which frames can be read; what is left out stands in
        `problem`, and a video of which nothing can be read has no frames.

    Returns:
      The video.

    Raises:
      UserError: the path is missing or of an unknown kind, an argument is out of its
        range, or the video is to be refused; the message names the file.
    """
    path = Path(path)
    for name, value in (("height", height), ("width", width), ("channels", channels)):
        if value < 1:
            raise UserError(f"{name} is {value}, but must be at least 1.")
    if bad_frames not in ("refuse", "skip"):
        raise UserError(
            f"bad_frames is {bad_frames!r}, but must be 'refuse' or 'skip'."
        )
    strict = bad_frames == "refuse"
    try:
        reader = _open_reader(path, channels, strict)
    except _Unreadable as error:
        if strict:
            raise UserError(str(error)) from error
        return Video(path, height, width, channels, 0, str(error))
    if strict:
        return Video(path, height, width, channels, reader.num_frames, _reader=reader)
    readable, first_error = _readable_frames(reader)
    num_frames = readable[-1] + 1 if readable else 0
    return Video(
        path,
        height,
        width,
        channels,
        num_frames,
        _problem(reader, readable, first_error),
        frozenset(range(num_frames)).difference(readable),
        reader,
    )


def fit_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one frame and makes it bytes.

    Args:
      frame: uint8, or floats in [0, 1], [H, W, C] of any size.
      height: H wanted.
      width: W wanted.

    Returns:
      uint8 [height, width, C]. Shrinking takes means over areas (Pillow's box filter),
      growing interpolates linearly; each axis counts, one that grows decides.
    """
    if frame.dtype != np.uint8:
        frame = np.rint(np.asarray(frame, np.float32) * np.float32(255))
        frame = frame.astype(np.uint8)
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    if frame.shape[-1] == 3:
        return np.asarray(Image.fromarray(frame).resize((width, height), resampling))
    pictures = [
        Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resampling)
        for plane in np.moveaxis(frame, -1, 0)
    ]
    planes = [np.asarray(picture) for picture in pictures]
    return np.stack(planes, axis=-1)


class _Unreadable(UserError):
    """A file that is there and of a known kind, but cannot be read."""


def _open_reader(path: Path, channels: int, strict: bool) -> FrameReader:
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(
            f"There is no video at '{path}'; expected a file "
            f"({', '.join(CLIP_SUFFIXES)}) or a folder of pictures."
        )
    is_folder = path.is_dir()
    if not is_folder and suffix not in CLIP_SUFFIXES:
        raise UserError(
            f"'{path}' is of the kind '{suffix}', but a video must be one of "
            f"{', '.join(CLIP_SUFFIXES)} or a folder of pictures "
            f"({', '.join(PICTURE_SUFFIXES)})."
        )
    if channels not in (1, 3) and (is_folder or suffix != ".npy"):
        raise UserError(
            f"channels is {channels}, but '{path}' can be read with 1 channel (grey) "
            "or 3 (RGB) only."
        )
    try:
        if is_folder:
            return FolderReader.open(path, channels, strict)
        if suffix == ".npy":
            return ArrayReader.open(path, channels, strict)
        if suffix == ".gif":
            return GifReader.open(path, channels, strict)
        return ContainerReader.open(path, channels, strict)
    except UserError as error:
        raise _Unreadable(str(error)) from error


def _readable_frames(reader: FrameReader) -> tuple[list[int], str]:
    """Decodes everything; the numbers that worked, and why the first did not."""
    readable: list[int] = []
    first_error = ""
    try:
        for number, load in reader.frames(range(reader.num_frames)):
            try:
                load()
            except (UserError, *PICTURE_ERRORS) as error:
                first_error = first_error or reason(error)
            else:
                readable.append(number)
    except UserError as error:
        first_error = first_error or reason(error)
    return sorted(set(readable)), first_error


def _problem(reader: FrameReader, readable: Sequence[int], first_error: str) -> str:
    """One sentence on what cannot be read, "" if everything can."""
    count, total = len(readable), reader.num_frames
    if not reader.cut and count == total:
        return ""
    if reader.cut and list(readable) == list(range(count)):
        of_total = f" of {total}" if total > count else ""
        return f"the file ends early: {count}{of_total} frames can be read"
    why = f" ({first_error})" if first_error else ""
    return f"{count} of {total} frames can be read{why}"
