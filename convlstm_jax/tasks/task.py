"""What training, evaluation and prediction ask of a task."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array

from convlstm_jax.array_types import PerExample, Video

# {"params": …} and, where a model has them, collections such as "batch_stats" beside.
Variables = dict[str, Any]


class Forecast(NamedTuple):
    """Predicted frames.

    Attributes:
      frames: `[B, T, H, W, C]`, pixels in [0, 1] where the model keeps to them.
      logits: where the frames are the sigmoid of something, that; else `None`.
    """

    frames: Video
    logits: Video | None


class Task(Protocol):
    """What is predicted from what, how it is scored, and how a model learns it."""

    @property
    def num_input_frames(self) -> int:
        """Frames the model is given."""
        ...

    @property
    def num_output_frames(self) -> int:
        """Frames it is scored on."""
        ...

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """Fresh variables for frames of shape `(H, W, C)`."""
        ...

    def loss_fn(
        self, variables: Variables, batch: dict[str, Array], key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """The training loss of each clip, and the variables that are not learned.

        Args:
          variables: the model's variables.
          batch: `{"frames": [B, T, H, W, C]}`, uint8 or in [0, 1]; where the frames are
            noisy, "targets" beside: the same frames as they should be predicted.
          key: randomness of the step.
          step: steps taken before, for schedules.

        Returns:
          The loss `[B]`, and the collections beside "params" after the step.
        """
        ...

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip as inputs and target, pixels in [0, 1]."""
        ...

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """The `num_frames` frames that follow `inputs`."""
        ...

    def score(self, forecast: Forecast, target: Video) -> PerExample:
        """The loss of a forecast, which validation reports: `[B]`."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """A task whose model also gives its inputs back, beside what follows them."""

    def forecast_and_reconstruct(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> tuple[Forecast, Forecast, Video]:
        """The forecast of a `Task`, the reconstruction, and what that should be."""
        ...


def to_unit_interval(frames: Array) -> Video:
    """Stored frames (uint8, 0 to 255) to pixels in [0, 1], float32.

    Floating-point frames are taken to be in [0, 1] already. Doing this on the device
    leaves a quarter of the bytes to copy there.
    """
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255
    return frames.astype(jnp.float32)


def clip_and_target(batch: dict[str, Array]) -> tuple[Video, Video]:
    """A batch's clips as they are read, and as they should be predicted, in [0, 1].

    The two differ where the batch has "targets" beside its noisy "frames".
    """
    clip = to_unit_interval(batch["frames"])
    return clip, to_unit_interval(batch["targets"]) if "targets" in batch else clip


def split_batch(task: Task, batch: dict[str, Array]) -> tuple[Video, Video]:
    """`Task.split` of a batch: inputs from its frames, the target without noise."""
    inputs, target = task.split(batch["frames"])
    if "targets" in batch:
        _, target = task.split(batch["targets"])
    return inputs, target


def split_clip(frames: Array, num_inputs: int, num_outputs: int) -> tuple[Video, Video]:
    """The first frames of a clip and the ones after, pixels in [0, 1]."""
    video = to_unit_interval(frames)
    return video[:, :num_inputs], video[:, num_inputs : num_inputs + num_outputs]
