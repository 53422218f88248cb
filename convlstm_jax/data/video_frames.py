"""Random access to the frames of one video, decoded when they are read.

A video is a video file, a GIF, an array file or a folder of pictures. Opening one
reads its index; frames are decoded from the nearest place where decoding can begin,
fitted to one size, and kept in a cache of fixed size, so that a small data set is
decoded once and a large one never exhausts the memory.
"""

import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.frame_fitting import fit_frame
from convlstm_jax.data.frame_readers import FrameReader
from convlstm_jax.data.video_readers import (
    UnreadableVideo,
    decode_frames,
    open_reader,
    told_problem,
)
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
      blank: frames known to have one value in all pixels, as a camera with its cover on
        gives; none unless bad frames are skipped, which looks at every frame.
      crop_box: part of each frame that is read, see `open_video`.
    """

    path: Path
    height: int
    width: int
    channels: int
    num_frames: int
    problem: str = ""
    holes: frozenset[int] = frozenset()
    blank: frozenset[int] = frozenset()
    crop_box: tuple[int, ...] = ()
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
                frame = fit_frame(load(), self.height, self.width, self.crop_box)
                _cache.put(self._token, number, frame)
                if number in wanted:
                    frames[number] = frame


def open_video(
    path: str | Path,
    *,
    height: int,
    width: int,
    channels: int,
    crop_box: tuple[int, ...] = (),
    value_range: tuple[float, ...] = (),
    variable: str = "",
    bad_frames: BadFrames = "refuse",
) -> Video:
    """Opens a video.

    Video files are mp4, avi, mkv, mov, webm and gif. A folder's pictures (png, jpg,
    bmp, pgm, also pgm.gz, tif) come in natural order. Arrays are `.npy`, `.npz`, and
    with xarray NetCDF (`.nc`) and Zarr (`.zarr`), [T, H, W] or [T, H, W, C], uint8 or
    floats in [0, 1] unless `value_range` says otherwise. Frames of another size are
    resized without keeping their proportions: by means over areas where they shrink,
    linearly where they grow. Colour becomes grey by the BT.601 luma.

    Args:
      path: the file or folder.
      height: H wanted, pixels.
      width: W wanted, pixels.
      channels: C wanted: 1 (grey) or 3 (RGB), for arrays also the number they hold.
      crop_box: (top, left, height, width) of the part of each frame that is used, in
        pixels of the file; () for all of it.
      value_range: the values of an array that become 0 and 1, what lies beyond being
        clipped; () for uint8 and floats in [0, 1]. Of no effect on other videos.
      variable: the array to be read in a `.npz` file, NetCDF or Zarr; "" for the only
        one there is. Of no effect on other videos.
      bad_frames: what to do about a video that is damaged, cut short, of mixed sizes or
        with values that are not finite. "refuse" raises an error, here for what the
        index and the end of the file show, when it is read for what is in its midst.
        "skip" decodes the whole video once, here, to find which frames can be read;
        what is left out stands in `problem`, and a video of which nothing can be read
        has no frames.

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
    if value_range and not value_range[0] < value_range[1]:
        raise UserError(
            f"value_range is {value_range}, but must be two values, the lower first."
        )
    if bad_frames not in ("refuse", "skip"):
        raise UserError(
            f"bad_frames is {bad_frames!r}, but must be 'refuse' or 'skip'."
        )
    strict = bad_frames == "refuse"
    made = partial(Video, path, height, width, channels, crop_box=crop_box)
    try:
        reader = open_reader(
            path,
            channels,
            strict=strict,
            crop_box=crop_box,
            value_range=value_range,
            variable=variable,
        )
    except UnreadableVideo as error:
        if strict:
            raise UserError(str(error)) from error
        return made(0, str(error))
    if strict:
        return made(reader.num_frames, _reader=reader)
    readable: list[int] = []
    blank: list[int] = []

    def look_at(number: int, frame: np.ndarray) -> None:
        readable.append(number)
        if is_blank(frame):
            blank.append(number)

    why = decode_frames(
        reader,
        range(reader.num_frames),
        lambda frame: fit_frame(frame, height, width, crop_box),
        look_at,
    )
    readable.sort()
    num_frames = readable[-1] + 1 if readable else 0
    return made(
        num_frames,
        told_problem(reader.cut, reader.num_frames, readable, why),
        frozenset(range(num_frames)).difference(readable),
        frozenset(blank),
        _reader=reader,
    )


def is_blank(frame: np.ndarray) -> bool:
    """Tells whether all pixels of a frame have one value."""
    return bool(frame.min() == frame.max())
