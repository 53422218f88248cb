"""Forecasts without learning, with which a model is compared."""

import logging
from collections.abc import Callable, Mapping
from importlib import util
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from convlstm_jax.quiet import quiet
from convlstm_jax.rain import DRY_BELOW_MM_PER_H, RainScale
from convlstm_jax.types import Video

_log = logging.getLogger(__name__)

PredictedVideo = Float[Array, "B T_out H W C"]
OUTPUTS = ("model", "reconstruction")  # Contenders that are no baselines.
OPTICAL_FLOW = "optical_flow"  # The contender, and the key of a batch.
S_PROG = "s_prog"
STEPS = "steps"
_DRY_DB = -15.0  # Of no rain, below 0.1 mm/h, as in the examples of pysteps.

_LABELS = {
    "reconstruction": "reconstruction of the inputs",
    "copy_last": "copy last frame",
    "zeros": "all zeros",
    "majority": "most frequent class",
    S_PROG: "S-PROG",
    STEPS: "STEPS",
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

    Rain rates semi-Lagrangian, with the motion field of Lucas-Kanade on dBZ, by pysteps
    (Pulkkinen et al. 2019, 10.5194/gmd-12-4185-2019); no rain flows in over an edge.
    Inputs `[T, H, W]` and result `[num_frames, H, W]` are pixels in [0, 1]; the mask
    `[T, H, W]` is 1 where there is data.
    """
    with quiet():
        from pysteps import extrapolation

        move = extrapolation.get_method("semilagrangian")
        motion = _motion(inputs, mask, scale)
        carried = move(_rain(inputs, mask, scale)[-1], motion, num_frames, outval=0.0)
    return scale.pixels_of_rain(np.nan_to_num(carried)).astype(np.float32)


def s_prog(
    inputs: np.ndarray, mask: np.ndarray, num_frames: int, scale: RainScale
) -> np.ndarray:
    """As `extrapolate`, by S-PROG: what is small in scale fades as it moves.

    By pysteps, on 10 log10 of rain rates from 0.1 mm/h on; its autoregression is of
    order 2, or 1 of two given frames. Of no rain it is none; where it fails, as of very
    little rain, it is the extrapolation, which is logged.

    Seed 2003, 10.1175/1520-0450(2003)042<0381:ADASAF>2.0.CO;2.
    """
    return _by_scale("sprog", inputs, mask, num_frames, scale)[0]


def steps(
    inputs: np.ndarray,
    mask: np.ndarray,
    num_frames: int,
    scale: RainScale,
    *,
    num_members: int = 24,
    km_per_pixel: float = 1.0,
    minutes_per_frame: float = 5.0,
    seed: int = 0,
) -> np.ndarray:
    """As `s_prog`, an ensemble by STEPS: noise like rain in place of what has faded.

    Members `[num_frames, H, W, num_members]`, also with different motion. The settings
    are pysteps' own: nonparametric noise, an incremental mask, the distribution of the
    last field. Where there is no rain, or it fails, members are what S-PROG is then.

    Bowler et al. 2006, 10.1256/qj.04.100.
    """
    members = _by_scale(
        "steps", inputs, mask, num_frames, scale, n_ens_members=num_members,
        kmperpixel=km_per_pixel, timestep=minutes_per_frame, seed=seed,
    )  # fmt: skip
    return np.stack(members * (num_members // len(members)), axis=-1)


def _by_scale(
    method: str,
    inputs: np.ndarray,
    mask: np.ndarray,
    num_frames: int,
    scale: RainScale,
    **settings: Any,
) -> list[np.ndarray]:
    """The members by a method of pysteps; one where it has none, see `s_prog`."""
    rain = _rain(inputs, mask, scale)
    if not (rain[-1] >= DRY_BELOW_MM_PER_H).any():
        return [np.zeros((num_frames, *rain.shape[1:]), np.float32)]
    with quiet():
        from pysteps import nowcasts
        from pysteps.utils import transformation

        order = min(2, len(rain) - 1)
        levels = int(np.clip(np.log2(min(rain.shape[1:])) - 1, 3, 6))
        db, facts = transformation.dB_transform(
            rain[-order - 1 :], threshold=DRY_BELOW_MM_PER_H, zerovalue=_DRY_DB
        )
        lowest = facts["threshold"]
        try:
            found = nowcasts.get_method(method)(
                db, _motion(inputs, mask, scale), num_frames, ar_order=order,
                precip_thr=lowest, n_cascade_levels=levels, **settings,
            )  # fmt: skip
        except (ValueError, IndexError, np.linalg.LinAlgError) as error:
            _log.info("%s fails, so it is the extrapolation: %s", method, error)
            return [extrapolate(inputs, mask, num_frames, scale)]
    members = found.reshape(-1, num_frames, *rain.shape[1:])
    # NaN, from beyond the frame, is no rain.
    rates = (np.where(one >= lowest, 10 ** (one / 10), 0.0) for one in members)
    return [scale.pixels_of_rain(rate).astype(np.float32) for rate in rates]


def _rain(inputs: np.ndarray, mask: np.ndarray, scale: RainScale) -> np.ndarray:
    known = np.where(mask > 0, inputs, 0.0).astype(np.float64)
    return np.asarray(scale.rain_mm_per_h(known))


def _motion(inputs: np.ndarray, mask: np.ndarray, scale: RainScale) -> np.ndarray:
    """The motion field, pixels in a time step, `[2, H, W]`."""
    from pysteps import motion

    if not inputs.any():
        return np.zeros((2, *inputs.shape[1:]))
    tracked = np.ma.masked_array(inputs.astype(np.float64), mask == 0)
    return np.asarray(motion.get_method("LK")(scale.dbz(tracked), verbose=False))


class WithOpticalFlow:
    """A radar source whose clips have "optical_flow", float32 `[T_out, H, W, 1]`.

    Or other methods, functions such as `extrapolate` by the name that clips have; of an
    ensemble such as `steps` `[T_out, H, W, M]`.
    """

    def __init__(
        self,
        source: Any,
        num_inputs: int,
        num_outputs: int,
        scale: RainScale,
        methods: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType(
            {OPTICAL_FLOW: extrapolate}
        ),
    ) -> None:
        self._source, self._scale, self._methods = source, scale, methods
        self._num_inputs, self._num_outputs = num_inputs, num_outputs

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self._source[index]
        inputs = clip["frames"][: self._num_inputs, ..., 0] / np.float32(255)
        mask = clip["mask"][: self._num_inputs, ..., 0]
        found = {
            name: method(inputs, mask, self._num_outputs, self._scale)
            for name, method in self._methods.items()
        }
        members = {k: of.reshape(*of.shape[:3], -1) for k, of in found.items()}
        return {**clip, **members}
