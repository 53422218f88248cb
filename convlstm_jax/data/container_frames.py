"""Frames by number from a video file: an index of times, seeking, decoding forward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from convlstm_jax.data.container_size import announced_size
from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.data.pictures import reason
from convlstm_jax.errors import UserError

_AV_ERRORS = (av.FFmpegError, OSError, ValueError, EOFError)


@dataclass(frozen=True, eq=False)
class ContainerReader:
    """The frames of a video file, numbered in the order in which they are shown.

    Attributes:
      path: the file.
      size: (width, height), pixels, as it is shown.
      channels: 1 or 3.
      num_frames: frames it has, or should have.
      times: presentation times in the stream's units, ascending; int64 [frames at
        hand]. Empty where the file does not tell them apart: such a file is decoded
        from its start, counting.
      keys: numbers of the frames where decoding can begin, ascending.
      cut: why the file ends early, or "".
      quarter_turns: how often frames are turned by 90° counterclockwise to be shown,
        as those of a telephone held upright are.
    """

    path: Path
    size: tuple[int, int]
    channels: int
    num_frames: int
    times: np.ndarray = field(repr=False)
    keys: np.ndarray = field(repr=False)
    cut: str = ""
    quarter_turns: int = 0

    @classmethod
    def open(cls, path: Path, channels: int, strict: bool) -> "ContainerReader":
        """Reads the index: demuxes the file once; decodes the first frame alone.

        Args:
          path: the file.
          channels: 1 or 3.
          strict: whether to refuse a file that is cut short; the part from its last
            key frame on is decoded to find out.

        Raises:
          UserError: the file cannot be read, or (strict) is cut short.
        """
        try:
            cut, size = "", path.stat().st_size
            announced = announced_size(path)
            if announced is not None and size < announced:
                cut = f"the file is cut short: {size} of {announced} bytes"
                if strict:
                    raise EOFError(cut)
            reader = cls._index(path, channels, cut)
        except _AV_ERRORS as error:
            raise UserError(
                f"'{path}' cannot be read as a video ({reason(error)})."
            ) from error
        if reader.num_frames == 0:
            raise UserError(f"'{path}' holds no frame, but a clip needs at least one.")
        reader = reader._as_shown()
        if strict:
            tail = range(int(reader.keys[-1]), reader.num_frames)
            decoded = {number for number, _ in reader.frames(tail)}
            for number in tail:
                if number not in decoded:
                    raise UserError(
                        f"'{path}' cannot be read as a video (frame {number} of "
                        f"{reader.num_frames} cannot be decoded)."
                    )
        return reader

    @classmethod
    def _index(cls, path: Path, channels: int, cut: str) -> "ContainerReader":
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("it has no video stream")
            stream = container.streams.video[0]
            width, height = stream.width, stream.height
            times: list[int | None] = []
            key_times: list[int | None] = []
            for packet in _packets(container, stream):
                if packet is None or packet.is_discard or packet.is_corrupt:
                    continue
                times.append(packet.pts)
                if packet.is_keyframe:
                    key_times.append(packet.pts)
            announced = stream.frames if cut else 0
        if None in times or len(set(times)) < len(times):
            empty, start = np.empty(0, np.int64), np.zeros(1, np.int64)
            reader = cls(path, (width, height), channels, 2**62, empty, start, cut)
            num_frames = sum(1 for _ in reader.frames(range(reader.num_frames)))
            return replace(reader, num_frames=max(num_frames, announced))
        order = np.sort(np.array(times, np.int64))
        keys = np.searchsorted(order, np.sort(np.array(key_times, np.int64)))
        if not keys.size or keys[0] != 0:
            keys = np.concatenate([np.zeros(1, keys.dtype), keys])
        num_frames = max(len(order), announced)
        return cls(path, (width, height), channels, num_frames, order, keys, cut)

    def _as_shown(self) -> "ContainerReader":
        """With the rotation that the first frame asks for."""
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            for packet in _packets(container, stream):
                for frame in _decoded(stream, packet):
                    turns = quarter_turns(frame)
                    size = self.size[::-1] if turns % 2 else self.size
                    return replace(self, size=size, quarter_turns=turns)
        return self

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`."""
        first, last = wanted[0], wanted[-1]
        key = int(self.keys[np.searchsorted(self.keys, first, side="right") - 1])
        if key > 0 and key < len(self.times):
            walk = self._decode(key)
            number, load = next(walk, (self.num_frames, None))
            # Some files seek too far, and are then read from their start.
            if load is not None and number <= first:
                yield number, load
                for number, load in walk:
                    if number > last:
                        return
                    yield number, load
                return
        for number, load in self._decode(0):
            if number > last:
                return
            yield number, load

    def _decode(self, key: int) -> Iterator[tuple[int, LoadFrame]]:
        """Decodes from a key frame to the end, leaving out what is damaged."""
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                if key > 0:
                    container.seek(int(self.times[key]), stream=stream, backward=True)
                # One for all frames: setting up a conversion costs more than doing it.
                converter = VideoReformatter()
                count = 0
                for packet in _packets(container, stream):
                    for frame in _decoded(stream, packet):
                        number = self._number(frame, count)
                        count += 1
                        if number is not None and not frame.is_corrupt:
                            yield number, partial(self._load, frame, converter)
        except _AV_ERRORS as error:
            raise UserError(
                f"'{self.path}' cannot be read as a video ({reason(error)})."
            ) from error

    def _number(self, frame: av.VideoFrame, count: int) -> int | None:
        """The frame's place in the order of times, None if it is not in the index."""
        if not self.times.size:
            return count
        if frame.pts is None:
            return None
        place = int(np.searchsorted(self.times, frame.pts))
        known = place < len(self.times) and self.times[place] == frame.pts
        return place if known else None

    def _load(self, frame: av.VideoFrame, converter: VideoReformatter) -> np.ndarray:
        # FFmpeg's own "gray" is of full range: it stretches 16..235 to 0..255.
        kind = "gray" if self.channels == 1 else "rgb24"
        pixels = converter.reformat(frame, format=kind).to_ndarray()
        if pixels.ndim == 2:
            pixels = pixels[..., np.newaxis]
        pixels = np.rot90(pixels, self.quarter_turns)
        height, width, _ = pixels.shape
        if (width, height) != self.size:
            raise UserError(
                f"'{self.path}' cannot be read as a video (the frame size changes "
                "within the clip)."
            )
        return pixels


def quarter_turns(frame: av.VideoFrame) -> int:
    """How often a frame has to be turned by 90° counterclockwise to be shown."""
    return round(frame.rotation / 90) % 4


def _packets(container: Any, stream: av.VideoStream) -> Iterator[av.Packet | None]:
    """The stream's packets up to where the file ends, then None to flush with."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            packet = None  # A damaged end.
        if packet is None or packet.size == 0:
            yield None
            return
        yield packet


def _decoded(stream: av.VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
    """The frames that come out of the decoder for a packet, none for a damaged one."""
    if packet is not None and packet.is_corrupt:
        return []
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        return []
