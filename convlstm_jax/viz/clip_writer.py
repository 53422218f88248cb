"""Writes one clip to a file; the suffix chooses the format."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import av
import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.film_strip import clip_strip
from convlstm_jax.viz.gif import gif_bytes
from convlstm_jax.viz.pixels import enlarge, to_pixels


class ClipLook(NamedTuple):
    """How a clip is written: frames per second, and pixels that each of its pixels has.

    Without a rate it is that of the kind of clip. Of a nowcast, `times` are those of
    its frames, `given` those of the composites it was made from, and `grid` where they
    lie, as pysteps names it.
    """

    frames_per_second: float | None = None
    scale: int = 1
    times: Sequence[datetime] = ()
    given: Sequence[datetime] = ()
    grid: Mapping[str, Any] = MappingProxyType({})


OUTPUT_SUFFIXES = (".npy", ".gif", ".mp4", ".png")


def validate_output_path(
    path: str | Path, suffixes: tuple[str, ...] = OUTPUT_SUFFIXES, what: str = "a clip"
) -> Path:
    """Raises UserError where `what` cannot be written here, before any work begins."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        allowed = f"one of {', '.join(suffixes)}" if suffixes[1:] else suffixes[0]
        raise UserError(
            f"'{path}' has the suffix '{path.suffix}': for {what} it must be {allowed}"
        )
    if path.is_dir():
        raise UserError(f"'{path}' is a folder: it must be the name of a file")
    parent = next(parent for parent in path.parents if parent.exists())
    if not parent.is_dir():
        raise UserError(
            f"'{path}' cannot be written because '{parent}' is a file: it must be a "
            "folder"
        )
    return path


def write_clip(
    path: str | Path,
    frames: np.ndarray,
    frames_per_second: float = 10,
    scale: int = 1,
) -> None:
    """Writes a clip whole or not at all; missing folders are created.

    Frames are `[T, H, W, C]` or `[T, H, W]`, floats in [0, 1], drawn as `to_pixels` has
    it. `.npy` holds them exactly, as float32; `.gif` see `gif_bytes`; `.png` is a film
    strip in rows of ten; `.mp4` H.264 in yuv420p, which every player shows: colour has
    half the resolution, and an odd last row or column is repeated once. In GIF and MP4
    each pixel becomes `scale` × `scale`.
    """
    path = validate_output_path(path)
    frames = np.asarray(frames)
    pixels = to_pixels(frames)
    suffix = path.suffix.lower()
    if scale > 1 and suffix in (".gif", ".mp4"):
        frames, pixels = enlarge(frames, scale), enlarge(pixels, scale)
    if suffix == ".png":
        clip_strip(path, frames)
    elif suffix == ".npy":
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.save(file, frames.astype(np.float32, copy=False), allow_pickle=False)
    elif suffix == ".gif":
        content = gif_bytes(frames, frames_per_second)
        with atomic_file(path) as partial:
            partial.write_bytes(content)
    else:
        _write_mp4(path, pixels, frames_per_second)


def _write_mp4(path: Path, pixels: np.ndarray, frames_per_second: float) -> None:
    height, width = pixels.shape[1:3]
    padding = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    pixels = np.pad(pixels, padding, mode="edge")
    rate = Fraction(frames_per_second).limit_denominator(1001)
    try:
        with atomic_file(path) as partial, av.open(str(partial), "w") as container:
            stream = container.add_stream("h264", rate=rate)
            stream.height, stream.width = pixels.shape[1:3]
            stream.pix_fmt = "yuv420p"
            # Quality 10 of 0..51: sharp edges on black show coarser settings at once.
            stream.options = {"crf": "10"}
            grey = pixels.shape[-1] == 1
            for frame in pixels[..., 0] if grey else pixels:
                kind = "gray" if grey else "rgb24"
                picture = av.VideoFrame.from_ndarray(frame, format=kind)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise UserError(
            f"'{path}' cannot be encoded as H.264 at {pixels.shape[2]}x"
            f"{pixels.shape[1]} pixels ({error.strerror}): the suffix must be another "
            f"of {', '.join(OUTPUT_SUFFIXES)}"
        ) from error
