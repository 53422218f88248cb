"""Forecasts without learning, with which a model is compared."""

import contextlib
import io
import warnings
from importlib import util
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from convlstm_jax.rain import RainScale
from convlstm_jax.types import Video

PredictedVideo = Float[Array, "B T_out H W C"]
OUTPUTS = ("model", "reconstruction")  # Contenders that are no baselines.
OPTICAL_FLOW = "optical_flow"  # The contender, and the key of a batch.

_LABELS = {
    "reconstruction": "reconstruction of the inputs",
    "copy_last": "copy last frame",
    "zeros": "all zeros",
    "majority": "most frequent class",
}


def contender_label(key: str) -> str:
    """What plots and tables call the model or a baseline."""
    return _LABELS.get(key, key.replace("_", " "))


def forecast_label(key: str) -> str:
    """As `contender_label`, where forecasts stand below what was observed."""
    return "forecast" if key == "model" else contender_label(key)


def copy_last_frame(inputs: Video, num_frames: int) -> PredictedVideo:
    """Repeats the last given frame, in the dtype of the inputs."""
    return jnp.repeat(inputs[:, -1:], num_frames, axis=1)


def zeros(inputs: Video, num_frames: int) -> PredictedVideo:
    """Predicts black frames, which already beats copying on Moving MNIST's MSE."""
    return jnp.zeros_like(copy_last_frame(inputs, num_frames))


BASELINES = {"copy_last": copy_last_frame, "zeros": zeros}


def missing_packages() -> list[str]:
    """The packages that `extrapolate` needs and that are not installed."""
    packages = {"pysteps": "pysteps", "cv2": "opencv-python-headless"}
    return [name for module, name in packages.items() if util.find_spec(module) is None]


def extrapolate(
    inputs: np.ndarray, mask: np.ndarray, num_frames: int, scale: RainScale
) -> np.ndarray:
    """Extrapolates the last radar frame along the motion of the T ≥ 2 given frames.

    Semi-Lagrangian, with the motion field of Lucas-Kanade on dBZ, by pysteps (Pulkkinen
    et al. 2019, 10.5194/gmd-12-4185-2019); no rain flows in over an edge. Inputs
    `[T, H, W]` and result `[num_frames, H, W]` are pixels in [0, 1]; the mask
    `[T, H, W]` is 1 where there is data.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # It prints its configuration.
        from pysteps import extrapolation, motion
    find_motion = motion.get_method("LK")
    semilagrangian = extrapolation.get_method("semilagrangian")
    # Pixels are scaled reflectivities, which is enough to find the motion.
    tracked = np.ma.masked_array(inputs.astype(np.float64), mask == 0)
    flow = np.zeros((2, *inputs.shape[1:]))
    if inputs.any():
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # Few features: the motion is still found.
            flow = find_motion(scale.dbz(tracked), verbose=False)
    last = np.where(mask[-1] > 0, inputs[-1], 0.0).astype(np.float64)
    carried = semilagrangian(last, flow, num_frames, outval=0.0)
    return np.clip(np.nan_to_num(carried), 0, 1).astype(np.float32, copy=False)


class WithOpticalFlow:
    """A radar source whose clips have "optical_flow", float32 `[T_out, H, W, 1]`."""

    def __init__(
        self, source: Any, num_inputs: int, num_outputs: int, scale: RainScale
    ) -> None:
        self._source, self._scale = source, scale
        self._num_inputs, self._num_outputs = num_inputs, num_outputs

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self._source[index]
        inputs = clip["frames"][: self._num_inputs, ..., 0] / np.float32(255)
        mask = clip["mask"][: self._num_inputs, ..., 0]
        flow = extrapolate(inputs, mask, self._num_outputs, self._scale)
        return {**clip, OPTICAL_FLOW: flow[..., np.newaxis]}
