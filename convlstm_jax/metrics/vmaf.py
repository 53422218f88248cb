"""VMAF: the perceived quality of a film, by libvmaf in the ffmpeg of imageio-ffmpeg.

Planes of luma of full range (pixel 0 is luma 0, 1 is 255) with flat chroma keep ffmpeg
from squeezing grey values to 16 … 235.
"""

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm_jax.errors import UserError
from convlstm_jax.metrics.registry import Metric, register

# Below, libvmaf may crash, as its filters reach beyond the frame.
MIN_SIDE = 24
_LUMA = np.array([0.299, 0.587, 0.114])  # of BT.601

register(
    Metric("vmaf", "VMAF", unit="0 to 100", direction="higher", order=40,
        min_side=MIN_SIDE, convention=(
        "VMAF of libvmaf's default model (vmaf_v0.6.1), 0 to 100, of a clip's "
        "predicted frames alone, so that its first frame has no motion (where equal, "
        "97.4); luma of full range, 0 to 255 (of colour that of BT.601), frames in "
        "their own size; averaged over frames and those samples that "
        "data.num_vmaf_sequences counts, evenly spread over the test sequences."))
)  # fmt: skip


@functools.cache
def find_ffmpeg() -> str | None:
    """The path of an ffmpeg with libvmaf; None where there is none."""
    try:
        import imageio_ffmpeg  # Optional.

        path = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: it has none for this platform.
        return None
    # An environment variable may name another ffmpeg.
    command = [path, "-hide_banner", "-filters"]
    filters = subprocess.run(command, capture_output=True, text=True)
    return path if "libvmaf" in filters.stdout else None


def vmaf(
    ffmpeg: str, prediction: NDArray[Any], target: NDArray[Any]
) -> NDArray[np.float64]:
    """VMAF of each frame of a clip `[T, H, W, C]` in [0, 1], `[T]`, from 0 to 100.

    Of three channels the luma of BT.601 is measured, of others their mean; NaN counts
    as 0. H and W must be at least 24. Raises UserError where ffmpeg fails.
    """
    height, width = target.shape[1:3]
    with tempfile.TemporaryDirectory(prefix="vmaf_") as folder:
        command = [ffmpeg, "-hide_banner", "-nostdin", "-v", "error"]
        # The clip that is judged is the first input, the truth the second.
        for name, clip in (("prediction", prediction), ("target", target)):
            (Path(folder) / name).write_bytes(_planes(clip))
            command += ["-f", "rawvideo", "-pix_fmt", "yuv420p"]
            command += ["-video_size", f"{width}x{height}", "-i", name]
        # Names without a path need no quoting inside of a filter.
        command += ["-lavfi", "libvmaf=log_fmt=json:log_path=log", "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise UserError(
                f"'{ffmpeg}' failed to measure VMAF (exit code {done.returncode}, "
                f"saying: {said[-1]}): it must be an ffmpeg with a working libvmaf"
            )
        frames = json.loads((Path(folder) / "log").read_text())["frames"]
    return np.array([frame["metrics"]["vmaf"] for frame in frames])


def _planes(clip: NDArray[Any]) -> bytes:
    """A clip as raw frames of 8-bit luma and two quarter-size planes without colour."""
    values = np.asarray(clip, np.float64)
    values = values @ _LUMA if values.shape[-1] == 3 else values.mean(-1)
    luma = np.rint(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)
    length, height, width = luma.shape
    chroma = 2 * (-(-height // 2) * -(-width // 2))
    flat = np.full((length, chroma), 128, np.uint8)
    return np.concatenate([luma.reshape(length, -1), flat], axis=1).tobytes()
