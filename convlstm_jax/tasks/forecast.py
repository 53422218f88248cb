"""Forecasting: the next frames of a clip from its first ones."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from convlstm_jax.tasks.losses import Forecast
from convlstm_jax.tasks.task import Batch, Variables, VideoTask, split_batch
from convlstm_jax.types import PerExample, Video


@dataclass(frozen=True)
class ForecastTask(VideoTask):
    """Predicts the last frames of a clip at once from the ones before.

    The model's call `(inputs, num_frames)` gives logits.
    """

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return dict(self.model.init(key, inputs, self.num_output_frames))

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `VideoTask`; any number of frames, whatever was trained."""
        logits: Video = self.model.apply(variables, inputs, num_frames)  # type: ignore[assignment]
        return Forecast(jax.nn.sigmoid(logits), logits)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; uses neither randomness nor the step."""
        del key, step
        inputs, target = split_batch(self, batch)
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        return self.score(forecast, target), {}
