"""Forecasting: the next frames of a clip from its first ones."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from convlstm_jax.array_types import PerExample, Video
from convlstm_jax.tasks.losses import LOSSES

Parameters = Any


def to_unit_interval(frames: Array) -> Video:
    """Stored frames (uint8, 0 to 255) to pixels in [0, 1], float32.

    Floating-point frames are taken to be in [0, 1] already. Doing this on the device
    leaves a quarter of the bytes to copy there.
    """
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255
    return frames.astype(jnp.float32)


@dataclass(frozen=True)
class ForecastTask:
    """Predicts the last frames of a clip from the ones before, scored by `loss`.

    Attributes:
      model: module whose call `(inputs, num_frames)` gives logits.
      num_input_frames: frames the model is given.
      num_output_frames: frames it is scored on.
      loss: a key of `tasks.losses.LOSSES`.
    """

    model: nn.Module
    num_input_frames: int
    num_output_frames: int
    loss: str = "cross_entropy"

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Parameters:
        """Fresh parameters for frames of shape `(H, W, C)`."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return self.model.init(key, inputs, self.num_output_frames)["params"]

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip `[B, T, H, W, C]` as inputs and target, pixels in [0, 1]."""
        video = to_unit_interval(frames)
        end = self.num_input_frames + self.num_output_frames
        return video[:, : self.num_input_frames], video[:, self.num_input_frames : end]

    def logits(self, params: Parameters, inputs: Video, num_frames: int) -> Any:
        """Logits of the `num_frames` frames that follow `inputs`."""
        return self.model.apply({"params": params}, inputs, num_frames)

    def predict(self, params: Parameters, inputs: Video, num_frames: int) -> Video:
        """The `num_frames` frames that follow `inputs`, pixels in [0, 1]."""
        return jax.nn.sigmoid(self.logits(params, inputs, num_frames))

    def loss_fn(
        self, params: Parameters, batch: dict[str, Array], key: Array
    ) -> tuple[PerExample, dict[str, Array]]:
        """The loss of each clip of a batch `{"frames": [B, T, H, W, C]}`.

        Args:
          params: the model's parameters.
          batch: frames as uint8 or in [0, 1].
          key: randomness of the step; forecasting uses none.

        Returns:
          The loss per clip `[B]`, and no auxiliary values.
        """
        del key
        inputs, target = self.split(batch["frames"])
        logits = self.logits(params, inputs, self.num_output_frames)
        return LOSSES[self.loss](logits, target), {}
