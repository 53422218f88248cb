"""Next-frame prediction: learned on shifted clips, forecast by feeding back."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from convlstm_jax.models.next_frame import NextFramePredictor, PredictorState
from convlstm_jax.tasks.losses import Forecast
from convlstm_jax.tasks.task import Batch, Variables, VideoTask, clip_and_target
from convlstm_jax.types import Frame, PerExample, Video


@dataclass(frozen=True)
class NextFrameTask(VideoTask):
    """Learns every next frame of a clip; forecasts by reading its own predictions.

    Training: of a clip of T frames the model reads frames 0 … T−2 and is scored on its
    predictions of frames 1 … T−1, or of those alone that follow the given ones.
    Evaluation: it reads the given frames, predicts the next one, reads that, and so on;
    what validation and evaluation score is this roll-out.

    Attributes:
      num_training_frames: T, of a clip's frames the first ones; 0: all of them.
      score_inputs: whether training scores the predictions of given frames too.
    """

    model: NextFramePredictor
    num_training_frames: int = 0
    score_inputs: bool = True

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`; with batch normalisation there is "batch_stats" beside."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return dict(self.model.init(key, inputs))

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `VideoTask`; a roll-out of any number of frames."""
        logits = roll_out(self.model, variables, inputs, num_frames)
        return Forecast(jax.nn.sigmoid(logits), logits)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; returns the updated "batch_stats"."""
        del key, step
        clip, clean = clip_and_target(batch)
        last = self.num_training_frames or clip.shape[1]
        first = 1 if self.score_inputs else self.num_input_frames
        logits, model_state = self.model.apply(
            variables, clip[:, : last - 1], train=True, mutable=["batch_stats"]
        )
        # Output t predicts frame t+1.
        logits = logits[:, first - 1 :]
        forecast = Forecast(jax.nn.sigmoid(logits), logits)
        return self.score(forecast, clean[:, first:last]), dict(model_state)


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
