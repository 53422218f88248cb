"""Forecasts of whole areas by networks that learned from crops of them."""

from typing import Any

import jax
import numpy as np
from jax import Array

from convlstm_jax.objectives.base import Pixels, Variables


class WholeArea:
    """The frames that follow others of any height and width.

    Areas are filled up to a multiple of `patch_size`, with what a mask would call no
    data. It is compiled once for each size and number of frames.
    """

    def __init__(self, objective: Any, variables: Variables, patch_size: int = 1):
        def predict(variables: Variables, inputs: Array, num_frames: int) -> Array:
            frames: Array = objective.forecast(variables, inputs, num_frames).frames
            return frames

        self._predict = jax.jit(predict, static_argnums=2)
        self._variables, self._patch_size = variables, patch_size

    def __call__(
        self, frames: Pixels, num_frames: int, mask: Pixels | None = None
    ) -> Pixels:
        """Frames `[num_frames, H, W, C]` after `[T, H, W, C]`, pixels in [0, 1].

        The mask, if there is one, is 1 where there is data.
        """
        height, width = frames.shape[1:3]
        patch, unknown = self._patch_size, 0.0
        if mask is not None:  # As `NowcastObjective.read` takes it.
            unknown = np.nan
            frames = np.where(mask > 0, frames, np.float32(unknown))
        padding = ((0, 0), (0, -height % patch), (0, -width % patch), (0, 0))
        inputs = np.pad(frames, padding, constant_values=unknown)[np.newaxis]
        outputs = self._predict(self._variables, inputs, num_frames)
        return np.asarray(outputs[0, :, :height, :width])
