"""Forecasting frame by frame: each prediction is the next input."""

from dataclasses import dataclass, field

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from convlstm_jax.array_types import PerExample, Video
from convlstm_jax.tasks.losses import LOSSES
from convlstm_jax.tasks.sampling import Sampling, forecast_takes_truth
from convlstm_jax.tasks.task import (
    Forecast,
    Variables,
    clip_and_target,
    split_clip,
)


@dataclass(frozen=True)
class RecurrentTask:
    """Predicts every next frame of a clip, from true frames or earlier predictions.

    Training, evaluation and prediction are one roll-out, the model's call; they differ
    in which true frames it reads. Predicted frames are linear outputs and are neither
    fed back nor scored clipped; OpenSTL, too, clips them to [0, 1] for SSIM and PSNR
    alone.

    Attributes:
      model: module whose call `(frames, takes_truth)` gives every next frame.
      num_input_frames: frames a forecast is given.
      num_output_frames: frames it is scored on.
      loss: a key of `tasks.losses.LOSSES`; in training it is taken over all next
        frames of the clip, those of the given frames too.
      sampling: which frames are read in training.
    """

    model: nn.Module
    num_input_frames: int
    num_output_frames: int
    loss: str = "mse"
    sampling: Sampling = field(default_factory=Sampling)

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        frames = jnp.zeros((1, 1, *frame_shape))
        return dict(self.model.init(key, frames, jnp.ones((1, 1), bool)))

    def split(self, frames: Array) -> tuple[Video, Video]:
        """See `Task`."""
        return split_clip(frames, self.num_input_frames, self.num_output_frames)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `Task`; any number of frames. The state is carried on, never remade."""
        batch, num_inputs = inputs.shape[:2]
        takes_truth = forecast_takes_truth(batch, num_inputs, num_frames)
        next_frames: Video = self.model.apply(variables, inputs, takes_truth)  # type: ignore[assignment]
        return Forecast(next_frames[:, num_inputs - 1 :], None)

    def score(self, forecast: Forecast, target: Video) -> PerExample:
        """See `Task`."""
        return LOSSES[self.loss](forecast, target)

    def loss_fn(
        self, variables: Variables, batch: dict[str, Array], key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; draws which true frames are read, by the step's schedule."""
        num_frames = self.num_input_frames + self.num_output_frames
        clip, target = (video[:, :num_frames] for video in clip_and_target(batch))
        takes_truth = self.sampling.takes_truth(
            key, step, len(clip), self.num_input_frames, self.num_output_frames
        )
        next_frames: Video = self.model.apply(variables, clip[:, :-1], takes_truth)  # type: ignore[assignment]
        return self.score(Forecast(next_frames, None), target[:, 1:]), {}
