"""Writes one clip to a file; the suffix chooses the format."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.film_strip import clip_strip
from convlstm_jax.viz.gif import gif_bytes
from convlstm_jax.viz.pixels import to_pixels

OUTPUT_SUFFIXES = (".npy", ".gif", ".mp4", ".png")


def validate_output_path(
    path: str | Path, suffixes: tuple[str, ...] = OUTPUT_SUFFIXES, what: str = "a clip"
) -> Path:
    """Checks that a file can be written here, before any work begins.

    Suffixes are the allowed ones; `what` is what the file is to hold, for the message.

    Raises:
        UserError: The suffix is none of these, or the path is a folder or leads
            through a file.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        allowed = f"one of {', '.join(suffixes)}" if suffixes[1:] else suffixes[0]
        raise UserError(
            f"'{path}' has the suffix '{path.suffix}': for {what} it must be {allowed}"
        )
    if path.is_dir():
        raise UserError(f"'{path}' is a folder: it must be the name of a file")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise UserError(
                    f"'{path}' cannot be written because '{parent}' is a file: it "
                    "must be a folder"
                )
            break
    return path


def write_clip(
    path: str | Path,
    frames: np.ndarray,
    frames_per_second: float = 10,
) -> None:
    """Writes a clip whole or not at all; missing folders are created.

    By suffix:

    - `.npy`: the frames exactly as given, as float32; speed does not apply.
    - `.gif`: loops forever and keeps all T frames, see `gif_bytes`; grey is exact to
      eight bits.
    - `.mp4`: H.264 in yuv420p, which every player shows. Lossy: the mean error of grey
      frames is below one of 256 levels, with more at sharp edges; colour has half the
      resolution. The format needs even sizes: where H or W is odd, the last row or
      column is repeated once, and the file stays that much larger.
    - `.png`: a film strip of all frames, numbered from 1, in rows of ten; speed does
      not apply.

    Frames are `[T, H, W, C]` or `[T, H, W]`, floats in [0, 1]. In all but `.npy` values
    outside are clipped, NaN is drawn as 0, and of frames with neither one nor three
    channels the first is drawn.

    Raises:
        UserError: The suffix or the shape is not as above, or the file system refuses
            the file.
    """
    path = validate_output_path(path)
    frames = np.asarray(frames)
    pixels = to_pixels(frames)
    suffix = path.suffix.lower()
    if suffix == ".png":
        clip_strip(path, frames, frame_size=max(112, *pixels.shape[1:3]))
    elif suffix == ".npy":
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.save(file, frames.astype(np.float32), allow_pickle=False)
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
            for frame in pixels:
                if frame.shape[-1] == 1:
                    picture = av.VideoFrame.from_ndarray(frame[..., 0], format="gray")
                else:
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise UserError(
            f"'{path}' cannot be encoded as H.264 at {pixels.shape[2]}x"
            f"{pixels.shape[1]} pixels ({error.strerror}): the suffix must be another "
            f"of {', '.join(OUTPUT_SUFFIXES)}"
        ) from error
