"""Reads one clip of video from a file or a folder of pictures.

Supported are `.npy` arrays, `.gif`, the video files that PyAV (FFmpeg) decodes and
folders of numbered pictures. Whatever the source, a clip is float32 [T, H, W, C] with
values in [0, 1].
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

from convlstm_jax.data.container_frames import quarter_turns
from convlstm_jax.data.container_size import announced_size, is_whole_gif
from convlstm_jax.data.pictures import (
    PICTURE_ERRORS,
    PICTURE_SUFFIXES,
    luma,
    picture_array,
    picture_paths,
    read_picture,
    reason,
)
from convlstm_jax.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
CLIP_SUFFIXES = (".npy", ".gif", *VIDEO_SUFFIXES)
OPENED_SUFFIXES = (*CLIP_SUFFIXES, ".npz", ".nc", ".zarr")
"""What `video_frames.open_video` reads, which adds arrays of other kinds."""


def read_clip(
    path: str | Path,
    *,
    channels: int | None = None,
    max_frames: int | None = None,
) -> np.ndarray:
    """Reads a clip.

    Array files (`.npy`) hold [T, H, W] or [T, H, W, C], either uint8 or floats in
    [0, 1]. A folder is read in the natural order of its picture names (`2.png` before
    `10.png`); other files and hidden ones in it are passed over. Eight-bit values are
    divided by 255, sixteen-bit pictures by 65535. Transparent pixels lie on black.
    Video of limited range (16..235, the habit of yuv420p) comes back over the full
    [0, 1].

    Colour becomes grey by the BT.601 luma 0.299 R + 0.587 G + 0.114 B (video: by the
    luma that the file carries); what is grey already is not changed by it.

    Args:
      path: File or folder.
      channels: Number of channels wanted: 1 (grey) or 3 (RGB), or for `.npy` also the
        number that the file holds. None keeps what is there; pictures and videos then
        have one channel if no frame has any colour and three otherwise.
      max_frames: Reads no more than the first so many frames. None reads all.

    Returns:
      float32 [T, H, W, C], values in [0, 1], T at least 1.

    Raises:
      UserError: The path is missing, of an unknown kind, unreadable, cut short or
        empty, or the values, sizes or channels are not as above.
    """
    path = Path(path)
    if channels is not None and channels < 1:
        raise UserError(f"channels is {channels}, but must be 1 (grey) or 3 (RGB).")
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}, but must be at least 1.")
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(
            f"There is no clip at '{path}'; expected a file "
            f"({', '.join(CLIP_SUFFIXES)}) or a folder of pictures."
        )
    if not path.is_dir() and suffix not in CLIP_SUFFIXES:
        raise UserError(
            f"'{path}' is of the kind '{suffix}', but a clip must be one of "
            f"{', '.join(CLIP_SUFFIXES)} or a folder of pictures "
            f"({', '.join(PICTURE_SUFFIXES)})."
        )
    if suffix == ".npy" and not path.is_dir():
        return _read_array(path, channels, max_frames)
    if channels not in (None, 1, 3):
        raise UserError(
            f"channels is {channels}, but '{path}' can be read with 1 channel (grey) "
            "or 3 (RGB) only."
        )
    if path.is_dir():
        frames = _folder_frames(path, channels)
    elif suffix == ".gif":
        frames = _gif_frames(path, channels)
    else:
        frames = _video_frames(path, channels)
    return _stack(list(islice(frames, max_frames)), path, channels)


def _stack(frames: list[np.ndarray], path: Path, channels: int | None) -> np.ndarray:
    """Joins frames [H, W, C] of one size; grey if allowed and no frame has colour."""
    if not frames:
        raise UserError(f"'{path}' holds no frame, but a clip needs at least one.")
    count = frames[0].shape[-1]
    if channels is None and count == 3 and all(_is_grey(frame) for frame in frames):
        count = 1
    clip = np.empty((len(frames), *frames[0].shape[:2], count), np.float32)
    frames.reverse()
    for index in range(len(frames)):
        frame = frames.pop()  # frees each frame once it has been copied
        clip[index] = frame[..., :count]
        if frame.dtype == np.uint8:
            clip[index] /= np.float32(255)
    return clip


def _is_grey(frame: np.ndarray) -> bool:
    red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
    return bool(np.array_equal(red, green) and np.array_equal(green, blue))


def _read_array(path: Path, channels: int | None, max_frames: int | None) -> np.ndarray:
    try:
        # Mapped, not loaded: the first frames of a large file cost only themselves.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(
            f"'{path}' cannot be read as a .npy array of numbers ({reason(error)})."
        ) from error
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(
            f"'{path}' has the shape {array.shape}, but a clip must be [T, H, W] or "
            "[T, H, W, C] with no empty axis."
        )
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UserError(
            f"'{path}' has the type {array.dtype}, but a clip must be uint8 or floats "
            "in [0, 1]."
        )
    array = array[:max_frames]
    if array.ndim == 3:
        array = array[..., np.newaxis]
    held = array.shape[-1]
    count = held if channels is None else channels
    if count != held and (held, count) not in ((1, 3), (3, 1)):
        raise UserError(
            f"'{path}' has {held} channels: it must have "
            f"{'1 or 3' if count in (1, 3) else count}."
        )
    clip = np.empty((*array.shape[:3], count), np.float32)
    for index, frame in enumerate(array):
        values = np.asarray(frame, np.float32)
        if frame.dtype == np.uint8:
            values = values / np.float32(255)
        # Written so that NaN, which compares false, is refused as well.
        elif not (values.min() >= 0 and values.max() <= 1):
            raise UserError(
                f"'{path}' has values from {values.min():g} to {values.max():g} in "
                f"frame {index}, but floats must lie in [0, 1] (or use uint8)."
            )
        clip[index] = luma(values) if (held, count) == (3, 1) else values
    return clip


def _folder_frames(folder: Path, channels: int | None) -> Iterator[np.ndarray]:
    paths = picture_paths(folder)
    first_size: tuple[int, int] | None = None
    for path in paths:
        frame = read_picture(path, channels)
        size = (frame.shape[1], frame.shape[0])
        first_size = first_size or size
        if size != first_size:
            raise UserError(
                f"'{path}' is {size[0]}x{size[1]} pixels, but all frames of a clip "
                f"must have one size and '{paths[0].name}' is "
                f"{first_size[0]}x{first_size[1]}."
            )
        yield frame


def _gif_frames(path: Path, channels: int | None) -> Iterator[np.ndarray]:
    try:
        with Image.open(path, formats=("GIF",)) as picture:
            # Pillow takes the end of a cut file for the end of the clip.
            if not is_whole_gif(path.read_bytes()):
                raise EOFError("the file is cut short")
            for index in range(getattr(picture, "n_frames", 1)):
                picture.seek(index)
                yield picture_array(picture, channels)
    except PICTURE_ERRORS as error:
        raise UserError(
            f"'{path}' cannot be read as a GIF ({reason(error)})."
        ) from error


def _video_frames(path: Path, channels: int | None) -> Iterator[np.ndarray]:
    try:
        size = path.stat().st_size
        announced = announced_size(path)
        if announced is not None and size < announced:
            raise EOFError(f"the file is cut short: {size} of {announced} bytes")
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            shape: tuple[int, ...] | None = None
            for decoded in container.decode(stream):
                # FFmpeg's own "gray" is of full range: it stretches 16..235 to 0..255.
                if channels == 1:
                    frame = decoded.to_ndarray(format="gray")[..., np.newaxis]
                else:
                    frame = decoded.to_ndarray(format="rgb24")
                frame = np.rot90(frame, quarter_turns(decoded))
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise ValueError("the frame size changes within the clip")
                yield frame
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        raise UserError(
            f"'{path}' cannot be read as a video ({reason(error)})."
        ) from error
