"""What training and evaluation ask of a task, and what all video tasks share."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    MetricSums,
    frame_metrics,
    summarize,
)
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.models.network import Forecast, Variables
from convlstm_jax.tasks.losses import LOSSES
from convlstm_jax.types import PerExample, Video

__all__ = ["Batch", "Forecast", "Outputs", "Task", "Variables", "VideoTask"]

Batch = dict[str, Array]

# Name of an output → what the model gave out, and what that should be.
Outputs = dict[str, tuple[Forecast, Video]]


class Task(Protocol):
    """What is learned from clips, and how it is measured."""

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    @property
    def num_input_frames(self) -> int:
        """Frames the model is given."""
        ...

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """Fresh variables for frames of shape `(H, W, C)`."""
        ...

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """The training loss of each clip, and the variables that are not learned.

        Args:
          variables: the model's variables.
          batch: `{"frames": [B, T, H, W, C]}`, uint8 or in [0, 1]; where the frames are
            noisy, "targets" beside: the same frames as they should be predicted; where
            clips are of classes, "label" `[B]`.
          key: randomness of the step.
          step: steps taken before, for schedules.

        Returns:
          The loss `[B]`, and the collections beside "params" after the step.
        """
        ...

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """Every figure of every clip, `[B, …]`, to be summed over clips.

        Args:
          variables: the model's variables.
          batch: as in `loss_fn`.
          with_baselines: the form of a final evaluation, which measures what needs no
            learning too; without them it is that of a validation, and the model's
            figures include "loss", by which the best checkpoint is chosen.

        Returns:
          Contender → figure → values, with "model" among the contenders.
        """
        ...

    def summarize(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """The figures of a test set from one contender's sums over all its clips."""
        ...


@dataclass(frozen=True)
class VideoTask:
    """A task that gives out frames: what the video tasks share.

    Attributes:
      model: the network.
      num_input_frames: frames the model is given.
      num_output_frames: frames it is scored on.
      loss: a key of `tasks.losses.LOSSES`.
    """

    model: nn.Module
    num_input_frames: int
    num_output_frames: int
    loss: str = "cross_entropy"

    # Outputs whose frames are the inputs, last one first.
    reconstructions: ClassVar[frozenset[str]] = frozenset()

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        raise NotImplementedError

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`."""
        raise NotImplementedError

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """The `num_frames` frames that follow `inputs`, any number."""
        raise NotImplementedError

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip as inputs and target, pixels in [0, 1]."""
        return split_clip(frames, self.num_input_frames, self.num_output_frames)

    def score(self, forecast: Forecast, target: Video) -> PerExample:
        """The loss of a forecast, which validation reports: `[B]`."""
        return LOSSES[self.loss](forecast, target)

    def outputs(self, variables: Variables, inputs: Video, target: Video) -> Outputs:
        """All that the model gives out; "model" is what counts."""
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        return {"model": (forecast, target)}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Task`: per clip and lead time, `[B, T]`.

        An output beside "model" is a contender too, and its loss part of "loss".
        """
        inputs, target = split_batch(self, batch)
        outputs = self.outputs(variables, inputs, target)
        contenders = {
            name: frame_metrics(output.frames, truth, logits=output.logits)
            for name, (output, truth) in outputs.items()
        }
        if with_baselines:
            for name, baseline in BASELINES.items():
                prediction = baseline(inputs, self.num_output_frames)
                contenders[name] = frame_metrics(prediction, target)
        else:
            losses = [self.score(*output) for output in outputs.values()]
            loss = sum(losses[1:], start=losses[0])
            shape = (loss.shape[0], self.num_output_frames)
            contenders["model"]["loss"] = jnp.broadcast_to(loss[:, None], shape)
        return contenders

    def summarize(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """See `Task` and `metrics.accumulate.summarize`."""
        height, width, channels = frame_shape
        return summarize(total, values_per_frame=height * width * channels)


def to_unit_interval(frames: Array) -> Video:
    """Stored frames (uint8, 0 to 255) to pixels in [0, 1], float32.

    Floating-point frames are taken to be in [0, 1] already. Doing this on the device
    leaves a quarter of the bytes to copy there.
    """
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255
    return frames.astype(jnp.float32)


def clip_and_target(batch: Batch) -> tuple[Video, Video]:
    """A batch's clips as they are read, and as they should be predicted, in [0, 1].

    The two differ where the batch has "targets" beside its noisy "frames".
    """
    clip = to_unit_interval(batch["frames"])
    return clip, to_unit_interval(batch["targets"]) if "targets" in batch else clip


def split_batch(task: VideoTask, batch: Batch) -> tuple[Video, Video]:
    """`VideoTask.split` of a batch: inputs as they are read, target without noise."""
    inputs, target = task.split(batch["frames"])
    if "targets" in batch:
        _, target = task.split(batch["targets"])
    return inputs, target


def split_clip(frames: Array, num_inputs: int, num_outputs: int) -> tuple[Video, Video]:
    """The first frames of a clip and the ones after, pixels in [0, 1]."""
    video = to_unit_interval(frames)
    return video[:, :num_inputs], video[:, num_inputs : num_inputs + num_outputs]
