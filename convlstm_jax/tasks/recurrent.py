"""Forecasting frame by frame: each prediction is the next input."""

from dataclasses import dataclass, field

import jax.numpy as jnp
from jax import Array

from convlstm_jax.tasks.losses import Forecast
from convlstm_jax.tasks.sampling import Sampling, forecast_takes_truth
from convlstm_jax.tasks.task import Batch, Variables, VideoTask, clip_and_target
from convlstm_jax.types import PerExample, Video


@dataclass(frozen=True)
class RecurrentTask(VideoTask):
    """Predicts every next frame of a clip, from true frames or earlier predictions.

    Training, evaluation and prediction are one roll-out, the model's call; they differ
    in which true frames it reads. Predicted frames are linear outputs and are neither
    fed back nor scored clipped; OpenSTL, too, clips them to [0, 1] for SSIM and PSNR
    alone. In training the loss is taken over all next frames of the clip, those of the
    given frames too. The model's call `(frames, takes_truth)` gives every next frame.

    Attributes:
      sampling: which frames are read in training.
    """

    loss: str = "mse"
    sampling: Sampling = field(default_factory=Sampling)

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        frames = jnp.zeros((1, 1, *frame_shape))
        return dict(self.model.init(key, frames, jnp.ones((1, 1), bool)))

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `VideoTask`; any number of frames. The state is carried on."""
        batch, num_inputs = inputs.shape[:2]
        takes_truth = forecast_takes_truth(batch, num_inputs, num_frames)
        next_frames: Video = self.model.apply(variables, inputs, takes_truth)  # type: ignore[assignment]
        return Forecast(next_frames[:, num_inputs - 1 :], None)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; draws which true frames are read, by the step's schedule."""
        num_frames = self.num_input_frames + self.num_output_frames
        clip, target = (video[:, :num_frames] for video in clip_and_target(batch))
        takes_truth = self.sampling.takes_truth(
            key, step, len(clip), self.num_input_frames, self.num_output_frames
        )
        next_frames: Video = self.model.apply(variables, clip[:, :-1], takes_truth)  # type: ignore[assignment]
        return self.score(Forecast(next_frames, None), target[:, 1:]), {}
