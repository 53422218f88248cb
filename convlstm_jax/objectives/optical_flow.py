"""Extrapolation by optical flow, with pysteps (and OpenCV) where installed.

The baseline that a learned nowcast has to beat: a backward semi-Lagrangian scheme
advects the last frame with the motion field of the given frames (Lucas-Kanade, on
dBZ). pysteps is Pulkkinen et al. 2019, 10.5194/gmd-12-4185-2019.
"""

import contextlib
import importlib.util
import io
import warnings
from typing import Any

import numpy as np

from convlstm_jax.objectives.base import ClipSource
from convlstm_jax.rain import RainScale


def missing_packages() -> list[str]:
    """The packages that `extrapolate` needs and that are not installed."""
    packages = {"pysteps": "pysteps", "cv2": "opencv-python-headless"}
    return [
        package
        for module, package in packages.items()
        if importlib.util.find_spec(module) is None
    ]


def extrapolate(
    inputs: np.ndarray, mask: np.ndarray, num_frames: int, scale: RainScale
) -> np.ndarray:
    """Extrapolates the last frame along the motion of all frames.

    Args:
        inputs: the given frames `[T, H, W]`, at least 2, pixels in [0, 1].
        mask: 1 where there is data, `[T, H, W]`.
        num_frames: frames to predict.
        scale: what the pixels mean.

    Returns:
        float32 `[num_frames, H, W]`, pixels in [0, 1]; no rain flows in over an
        edge. If no motion is found, the last frame is repeated.

    Raises:
        ImportError: a package is missing, see `missing_packages`.
    """
    motion, semilagrangian = _pysteps()
    # Pixels are scaled reflectivities, which is enough to find the motion.
    tracked = np.ma.masked_array(inputs.astype(np.float64), mask == 0)
    flow = np.zeros((2, *inputs.shape[1:]))
    if inputs.any():
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # Few features: the motion is still found.
            flow = motion(scale.dbz(tracked), verbose=False)
    last = np.where(mask[-1] > 0, inputs[-1], 0.0).astype(np.float64)
    carried = semilagrangian(last, flow, num_frames, outval=0.0)
    return np.clip(np.nan_to_num(carried), 0, 1).astype(np.float32)


def _pysteps() -> tuple[Any, Any]:
    with contextlib.redirect_stdout(io.StringIO()):  # Holds its configuration.
        from pysteps import extrapolation, motion
    return motion.get_method("LK"), extrapolation.get_method("semilagrangian")


class WithOpticalFlow:
    """The clips of a radar source, each with an extrapolation of its first frames.

    The first `num_inputs` frames are given; `num_outputs` are extrapolated.
    """

    def __init__(
        self, source: ClipSource, num_inputs: int, num_outputs: int, scale: RainScale
    ) -> None:
        self._source = source
        self._num_inputs = num_inputs
        self._num_outputs = num_outputs
        self._scale = scale

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns the source's clip and "optical_flow", float32 [T_out, H, W, 1]."""
        clip = self._source[index]
        given = slice(self._num_inputs)
        inputs = clip["frames"][given, ..., 0] / np.float32(255)
        mask = clip["mask"][given, ..., 0]
        flow = extrapolate(inputs, mask, self._num_outputs, self._scale)
        return {**clip, "optical_flow": flow[..., np.newaxis]}
