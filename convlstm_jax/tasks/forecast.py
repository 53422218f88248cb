"""Forecasting: the next frames of a clip from its first ones."""

from dataclasses import dataclass

from jax import Array

from convlstm_jax.models.network import ForecastingNetwork
from convlstm_jax.tasks.task import (
    Batch,
    Forecast,
    Variables,
    VideoTask,
    clip_and_target,
)
from convlstm_jax.types import PerExample, Video


@dataclass(frozen=True)
class ForecastTask(VideoTask):
    """Predicts the last frames of a clip from the ones before.

    What is predicted in training is the network's choice, see `ForecastingNetwork`.

    Attributes:
        training: Settings of the network's `training_config`, if it has one.
    """

    model: ForecastingNetwork
    training: object = None

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        return self.model.init_forecaster(key, frame_shape)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `VideoTask`; any number of frames, whatever was trained."""
        return self.model.forecast(variables, inputs, num_frames)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`."""
        num_frames = self.num_input_frames + self.num_output_frames
        clip, target = (video[:, :num_frames] for video in clip_and_target(batch))
        forecast, first, model_state = self.model.predict_for_training(
            variables,
            clip,
            self.num_input_frames,
            key=key,
            step=step,
            training=self.training,
        )
        target = target[:, first : first + forecast.frames.shape[1]]
        return self.score(forecast, target), model_state
