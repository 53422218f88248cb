"""Video files, decoded in sequence and presentation order by FFmpeg (PyAV)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from convlstm_jax.data.files import check_budget, reason
from convlstm_jax.data.video.fit import Bad, Opened, Raw
from convlstm_jax.errors import UserError

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts",
    ".mts", ".m2ts", ".wmv", ".flv", ".ogv",
)  # fmt: skip

# A playlist named .mp4 must not open other files or the network.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,"
    "mpegvideo,asf,flv,ogg,m4v,h264,hevc,dv,ivf",
}
_DEEP_GREY = tuple(f"gray{bits}le" for bits in (9, 10, 12, 14, 16))
_EBML_HEADER, _MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def open_container(path: Path, channels: int) -> Opened:
    """Opens a video file for 1 channel (grey) or 3 (RGB), ignoring cover pictures."""
    try:
        cut, size = "", path.stat().st_size
        announced = announced_size(path)
        if announced is not None and size < announced:
            cut = f"the file is cut short: {size} of {announced} bytes"
        with _opened(path) as container:
            stream = _film_stream(container)
            check_budget(path, stream.frames, 3 * stream.width * stream.height)
            rate = float(stream.average_rate) if stream.average_rate else None
            total = stream.frames or None
    except UserError:
        raise
    except Exception as error:  # Of a damaged file, FFmpeg may raise anything.
        why = f"{reason(error)}; {cut}" if cut else reason(error)
        raise UserError(f"'{path}' cannot be read as a video ({why})") from error
    return Opened(_frames(path, channels), total if cut else None, rate, cut)


def _opened(path: Path) -> av.container.InputContainer:
    # FFmpeg would take the beginning of `take:2.mp4` for a protocol.
    return av.open(str(path.absolute()), options=_OPTIONS)


def _film_stream(container: av.container.InputContainer) -> av.VideoStream:
    stream = container.streams.best("video")  # Never a cover picture.
    if not isinstance(stream, av.VideoStream):
        raise ValueError("it has no video stream")
    return stream


def _frames(path: Path, channels: int) -> Iterator[Raw | Bad]:
    """All frames; a damaged packet counts as one at its time, or at its place."""
    lost: list[int] = []
    why = "it cannot be decoded"
    with _opened(path) as container:
        stream = _film_stream(container)
        stream.thread_type = "SLICE"  # So that errors come with their packet.
        converter = VideoReformatter()  # Its set-up costs more than a conversion.
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None  # A damaged end.
            if packet is not None and packet.size == 0:
                continue  # A frame that was dropped while recording, or the end.
            decoded: list[av.VideoFrame] = []
            try:
                if packet is not None and packet.is_corrupt:
                    raise ValueError("its packet is damaged")
                decoded = stream.decode(packet)
            except Exception as error:
                why = f"it cannot be decoded: {reason(error)}"
                if packet is None or packet.pts is None:
                    yield Bad(why)
                else:
                    lost.append(packet.pts)
            for frame in decoded:
                while lost and frame.pts is not None and min(lost) < frame.pts:
                    lost.remove(min(lost))
                    yield Bad(why)
                try:
                    if frame.is_corrupt:
                        raise ValueError("it is damaged")
                    yield _raw(frame, channels, converter)
                except Exception as error:
                    yield Bad(reason(error))
            if packet is None:
                yield from (Bad(why) for _ in lost)
                return


def _raw(frame: av.VideoFrame, channels: int, converter: VideoReformatter) -> Raw:
    """The pixels of a frame as displayed."""
    form, white = frame.format, 255
    if form.name.replace("be", "le") in _DEEP_GREY:
        pixels = frame.to_ndarray()[..., np.newaxis]
        white = 2 ** form.components[0].bits - 1
    elif form.is_rgb and max(component.bits for component in form.components) > 8:
        # FFmpeg scales to the full range of 16 bits.
        pixels = converter.reformat(frame, format="rgb48le").to_ndarray()
        white = 65535
    else:
        # FFmpeg's "gray" has full range: it maps 16..235 to 0..255.
        kind = "gray" if channels == 1 else "rgb24"
        pixels = converter.reformat(frame, format=kind).to_ndarray()
        pixels = pixels.reshape(*pixels.shape[:2], -1)
    return Raw(_as_shown(pixels, frame), white)


def _as_shown(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotates and mirrors a frame by its display matrix."""
    if Type.DISPLAYMATRIX not in frame.side_data:
        return pixels
    data: Any = frame.side_data[Type.DISPLAYMATRIX]  # type: ignore[typeddict-item]
    # A pixel of (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5] / 65536
    if max(abs(b), abs(c)) < 0.01 * max(abs(a), abs(d)):
        horizontal, vertical = a < 0, d < 0
    elif max(abs(a), abs(d)) < 0.01 * max(abs(b), abs(c)):
        pixels = pixels.swapaxes(0, 1)
        horizontal, vertical = c < 0, b < 0
    else:
        raise ValueError("its rotation is not a multiple of 90 degrees")
    return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def announced_size(path: Path) -> int | None:
    """The size of a video file in bytes according to its headers; None: unknown.

    Decoders read a truncated file up to its end without an error.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF" and len(head) >= 12:
        riff_size = int.from_bytes(head[4:8], "little")
        # After a crash of the recorder: 0 or all ones.
        return None if riff_size in (0, 0xFFFFFFFF) else riff_size + 8
    if head[:4] == _EBML_HEADER:
        header_size, position = _variable_integer(head, 4)
        position += header_size or 0
        if header_size is None or head[position : position + 4] != _MATROSKA_SEGMENT:
            return None
        size, position = _variable_integer(head, position + 4)
        return None if size is None else position + size
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _mp4_size(path)
    return None


def _mp4_size(path: Path) -> int | None:
    """The sum of the top-level boxes; the last may exceed the file."""
    file_size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < file_size:
            file.seek(position)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            length = 16 if size == 1 else 8
            if len(header) < length:
                return position + length  # The next box was cut.
            if size == 1:
                size = int.from_bytes(header[8:], "big")
            if size < 8:  # 0: to the end of the file.
                return None
            position += size
    return position


def _variable_integer(data: bytes, position: int) -> tuple[int | None, int]:
    """An EBML variable-size integer, None if unknown, and the position after it."""
    if position >= len(data) or data[position] == 0:
        return None, position
    length = 9 - data[position].bit_length()
    raw = int.from_bytes(data[position : position + length], "big")
    mask = (1 << (7 * length)) - 1
    return (None if raw & mask == mask else raw & mask), position + length
