"""Next-frame prediction: learned on shifted clips, forecast by feeding back."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from convlstm_jax.array_types import Frame, PerExample, Video
from convlstm_jax.models.next_frame import NextFramePredictor, PredictorState
from convlstm_jax.tasks.losses import LOSSES
from convlstm_jax.tasks.task import (
    Forecast,
    Variables,
    clip_and_target,
    split_clip,
)


@dataclass(frozen=True)
class NextFrameTask:
    """Learns every next frame of a clip; forecasts by reading its own predictions.

    Training: of a clip of T frames the model reads frames 0 … T−2 and is scored on its
    predictions of frames 1 … T−1. Evaluation: it reads the given frames, predicts the
    next one, reads that, and so on; what validation and evaluation score is this
    roll-out.

    Attributes:
      model: the one-step predictor.
      num_input_frames: frames given before a roll-out.
      num_output_frames: frames rolled out and scored.
      loss: a key of `tasks.losses.LOSSES`.
      num_training_frames: T, of a clip's frames the first ones; 0: all of them.
    """

    model: NextFramePredictor
    num_input_frames: int
    num_output_frames: int
    loss: str = "cross_entropy"
    num_training_frames: int = 0

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`; with batch normalisation there is "batch_stats" beside."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return dict(self.model.init(key, inputs))

    def split(self, frames: Array) -> tuple[Video, Video]:
        """See `Task`."""
        return split_clip(frames, self.num_input_frames, self.num_output_frames)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `Task`; a roll-out of any number of frames."""
        logits = roll_out(self.model, variables, inputs, num_frames)
        return Forecast(jax.nn.sigmoid(logits), logits)

    def score(self, forecast: Forecast, target: Video) -> PerExample:
        """See `Task`."""
        return LOSSES[self.loss](forecast, target)

    def loss_fn(
        self, variables: Variables, batch: dict[str, Array], key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; returns the updated "batch_stats"."""
        del key, step
        clip, clean = clip_and_target(batch)
        last = self.num_training_frames or clip.shape[1]
        logits, model_state = self.model.apply(
            variables, clip[:, : last - 1], train=True, mutable=["batch_stats"]
        )
        forecast = Forecast(jax.nn.sigmoid(logits), logits)
        return self.score(forecast, clean[:, 1:last]), dict(model_state)


def roll_out(
    model: NextFramePredictor, variables: Variables, inputs: Video, num_frames: int
) -> Video:
    """Reads the given frames, then its own predictions, without reading any twice.

    The state that is carried is the layers' and the feature frames that the head looks
    back at. The same as predicting from the whole track again and again and keeping
    the last frame, which is how the Keras examples do it. That holds with a head that
    is not causal, too: for the last frame of a track it sees zeros in the place of the
    future it was trained to see.

    Args:
      model: the predictor.
      variables: its variables; batch normalisation uses its running statistics.
      inputs: `[B, T, H, W, C]`, pixels in [0, 1].
      num_frames: frames to predict, at least 1.

    Returns:
      Logits `[B, num_frames, H, W, C]`.
    """
    state: PredictorState
    logits: Frame
    state, logits = model.apply(variables, inputs, method="read")  # type: ignore[assignment]

    def step(carry, _):
        state, logits = carry
        frame = jax.nn.sigmoid(logits)
        state, logits = model.apply(variables, state, frame, method="step")
        return (state, logits), logits

    _, later = lax.scan(step, (state, logits), length=num_frames - 1)
    return jnp.concatenate([logits[:, None], jnp.moveaxis(later, 0, 1)], axis=1)
