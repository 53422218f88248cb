"""Forecasting: the next frames of a clip from its first ones."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from convlstm_jax.array_types import PerExample, Video
from convlstm_jax.tasks.losses import LOSSES
from convlstm_jax.tasks.task import Forecast, Variables, split_batch, split_clip


@dataclass(frozen=True)
class ForecastTask:
    """Predicts the last frames of a clip at once from the ones before.

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

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return dict(self.model.init(key, inputs, self.num_output_frames))

    def split(self, frames: Array) -> tuple[Video, Video]:
        """See `Task`."""
        return split_clip(frames, self.num_input_frames, self.num_output_frames)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `Task`; any number of frames, whatever was trained."""
        logits: Video = self.model.apply(variables, inputs, num_frames)  # type: ignore[assignment]
        return Forecast(jax.nn.sigmoid(logits), logits)

    def score(self, forecast: Forecast, target: Video) -> PerExample:
        """See `Task`."""
        return LOSSES[self.loss](forecast, target)

    def loss_fn(
        self, variables: Variables, batch: dict[str, Array], key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; uses neither randomness nor the step."""
        del key, step
        inputs, target = split_batch(self, batch)
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        return self.score(forecast, target), {}
