"""VMAF: how good a film looks to viewers, by Netflix's libvmaf.

Li, Aaron, Katsavounidis, Moorthy, Manohara: Toward a practical perceptual video quality
metric. Netflix Technology Blog, 2016. The library is run by the ffmpeg that the package
imageio-ffmpeg brings along; nothing else of the project needs either.

One convention throughout: libvmaf's default model (vmaf_v0.6.1, 0 to 100), frames in
their own size, luma alone, of full range: pixel 0 is luma 0 and pixel 1 is luma 255.
Handing over planes of luma with flat chroma beside keeps ffmpeg from squeezing grey
values to 16 … 235, which changes the figures by some points. A frame's motion is that
from the frame before, so a clip's first frame has none: where the clips are equal it
gets 97.4 and the others 100.
"""

import functools
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convlstm_jax.errors import UserError

SMALLEST_SIDE = 24
"""Pixels below which libvmaf may crash, as its filters reach beyond the frame."""

INSTALL_HINT = "pip install imageio-ffmpeg"
"""What gives a machine the program that measures it."""

# BT.601: what of each colour the eye takes for brightness.
_LUMA = np.array([0.299, 0.587, 0.114])


@functools.cache
def find_ffmpeg() -> str | None:
    """The path of an ffmpeg with libvmaf; None where there is none."""
    try:
        import imageio_ffmpeg  # Optional.

        path = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: it has none for this platform.
        return None
    # An environment variable may name another ffmpeg.
    filters = subprocess.run(
        [path, "-hide_banner", "-filters"], capture_output=True, text=True, check=False
    )
    return path if "libvmaf" in filters.stdout else None


def vmaf(ffmpeg: str, prediction: NDArray, target: NDArray) -> NDArray[np.float64]:
    """VMAF of each frame of a clip.

    Args:
      ffmpeg: from `find_ffmpeg`.
      prediction: Predicted frames `[T, H, W, C]` in [0, 1], H and W at least 24. Of
        three channels the luma of BT.601 is measured, of others their mean; NaN as 0.
      target: True frames of the same shape.

    Returns:
      `[T]`, from 0 to 100.

    Raises:
      ValueError: The shapes differ or frames are too small.
      UserError: ffmpeg failed.
    """
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise ValueError(
            f"prediction has shape {prediction.shape} and target {target.shape}; VMAF "
            "needs two clips of one shape [T, H, W, C]"
        )
    height, width = target.shape[1:3]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"frames are of {height}×{width} pixels (height×width); VMAF needs at "
            f"least {SMALLEST_SIDE} of both"
        )
    with tempfile.TemporaryDirectory(prefix="vmaf_") as folder:
        command = [ffmpeg, "-hide_banner", "-nostdin", "-v", "error"]
        # The clip that is judged is the first input, the truth the second.
        for name, clip in (("prediction", prediction), ("target", target)):
            (Path(folder) / name).write_bytes(_planes(clip))
            command += ["-f", "rawvideo", "-pix_fmt", "yuv420p"]
            command += ["-video_size", f"{width}x{height}", "-i", name]
        # Names without a path need no quoting inside of a filter.
        command += ["-lavfi", "libvmaf=log_fmt=json:log_path=log", "-f", "null", "-"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise UserError(
                f"'{ffmpeg}' failed to measure VMAF (exit code {done.returncode}, "
                f"saying: {said[-1]}); an ffmpeg with a working libvmaf is needed."
            )
        frames = json.loads((Path(folder) / "log").read_text())["frames"]
    return np.array([frame["metrics"]["vmaf"] for frame in frames])


def _planes(clip: NDArray) -> bytes:
    """A clip as raw frames of 8-bit luma and two quarter-size planes without colour."""
    values = np.asarray(clip, np.float64)
    values = values @ _LUMA if values.shape[-1] == 3 else values.mean(-1)
    luma = np.rint(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)
    length, height, width = luma.shape
    chroma = 2 * (-(-height // 2) * -(-width // 2))
    flat = np.full((length, chroma), 128, np.uint8)
    return np.concatenate([luma.reshape(length, -1), flat], axis=1).tobytes()
