"""Objectives of an LSTM autoencoder: reconstruction, prediction, or both.

The three tasks of Srivastava et al. 2015 (arXiv:1502.04681, sections 2.2 to 2.4).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from convlstm_jax.config import Config, field
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.network import Forecast
from convlstm_jax.objectives.base import (
    Batch,
    DataFacts,
    Variables,
    clip_and_target,
    to_unit_interval,
)
from convlstm_jax.objectives.forecast import FramesConfig, FramesObjective, Outputs
from convlstm_jax.types import PerExample, Video


class AutoencoderConfig(FramesConfig):
    """Fields of the objectives of an autoencoder."""

    network_kind: ClassVar[str] = "decoders"
    decoders: ClassVar[tuple[str, ...]] = ()
    """The decoders that the network must have."""

    loss: Literal["cross_entropy", "mse", "mae", "mse_sum"] = field(
        "cross_entropy",
        "cross_entropy: nats per frame, summed over its pixels; mse, mae: mean over "
        "pixels; mse_sum: squared error summed over the pixels of a frame.",
    )

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "AutoencoderObjective":
        """See `ObjectiveConfig`."""
        objective = {
            "reconstruct": ReconstructObjective,
            "predict": PredictObjective,
            "composite": CompositeObjective,
        }[self.name]
        return objective(
            model.build(decoders=self.decoders),
            self.num_input_frames,
            self.num_output_frames,
            self.loss,
        )


class ReconstructConfig(AutoencoderConfig):
    """Reconstruct: the given frames, last one first."""

    name: Literal["reconstruct"] = "reconstruct"
    decoders: ClassVar[tuple[str, ...]] = ("reconstruction",)

    @property
    def clip_length(self) -> int:
        """Frames that a clip must have: the given ones."""
        return self.num_input_frames

    def check(self) -> Iterator[str]:
        """Yields the problems between fields."""
        if self.num_output_frames > self.num_input_frames:
            yield (
                f"num_output_frames is {self.num_output_frames}: it must be at most "
                f"num_input_frames, which is {self.num_input_frames}, with "
                "name='reconstruct'"
            )


class PredictConfig(AutoencoderConfig):
    """Predict: the frames that follow, by one decoder."""

    name: Literal["predict"] = "predict"
    decoders: ClassVar[tuple[str, ...]] = ("forecast",)


class CompositeConfig(AutoencoderConfig):
    """Composite: the frames that follow and the given ones, by two decoders."""

    name: Literal["composite"] = "composite"
    decoders: ClassVar[tuple[str, ...]] = ("reconstruction", "forecast")


def reversed_frames(video: Video) -> Video:
    """The frames `[B, T, H, W, C]`, last one first.

    Reversing makes training easier: the first target is the last frame read.
    """
    return video[:, ::-1]


@dataclass(frozen=True)
class AutoencoderObjective(FramesObjective):
    """Base of the three objectives; the loss is the sum over the decoders."""

    def targets(self, frames: Array) -> tuple[Video, dict[str, Video]]:
        """A clip as inputs and the true output of each decoder."""
        raise NotImplementedError

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Objective`."""
        num_frames = self.num_input_frames + self.num_output_frames
        inputs, targets = self.targets(jnp.zeros((1, num_frames, *frame_shape)))
        return dict(self.model.init(key, inputs, targets))

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`: the sum of the decoders' losses.

        Conditional decoders read the true frames here, and their own outputs in
        `forecast`. Uses neither randomness nor the step.
        """
        frames, truth = clip_and_target(batch)
        inputs, _ = self.targets(frames)
        _, targets = self.targets(truth)
        logits: Any = self.model.apply(variables, inputs, targets)
        losses = [
            self.score(_forecast(logits[name]), target)
            for name, target in targets.items()
        ]
        return sum(losses[1:], start=losses[0]), {}

    def _generate(
        self, variables: Variables, inputs: Video, num_frames: Mapping[str, int]
    ) -> dict[str, Forecast]:
        logits: Any = self.model.apply(variables, inputs, num_frames, method="generate")
        return {name: _forecast(logits[name]) for name in num_frames}


@dataclass(frozen=True)
class ReconstructObjective(AutoencoderObjective):
    """Gives the inputs back in reverse order: there is no forecast.

    `forecast` is the reconstruction, at most as long as the inputs, of which the last
    `num_output_frames` are scored.
    """

    reconstructions: ClassVar[frozenset[str]] = frozenset({"model"})

    def targets(self, frames: Array) -> tuple[Video, dict[str, Video]]:
        """See `AutoencoderObjective`."""
        inputs, target = self.split(frames)
        return inputs, {"reconstruction": target}

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip as inputs and its last frames in reverse order, in [0, 1]."""
        inputs = to_unit_interval(frames[:, : self.num_input_frames])
        return inputs, reversed_frames(inputs)[:, : self.num_output_frames]

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """The last `num_frames` inputs as the model reconstructs them, last one first.

        Raises:
            ValueError: there are fewer inputs.
        """
        if num_frames > inputs.shape[1]:
            raise ValueError(
                f"num_frames is {num_frames}: it must be at most {inputs.shape[1]}, "
                "the number of frames to reconstruct"
            )
        lengths = {"reconstruction": num_frames}
        return self._generate(variables, inputs, lengths)["reconstruction"]


@dataclass(frozen=True)
class PredictObjective(AutoencoderObjective):
    """Predicts the frames that follow, with one decoder."""

    def targets(self, frames: Array) -> tuple[Video, dict[str, Video]]:
        """See `AutoencoderObjective`."""
        inputs, target = self.split(frames)
        return inputs, {"forecast": target}

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; any number of frames, independent of training."""
        return self._generate(variables, inputs, {"forecast": num_frames})["forecast"]


@dataclass(frozen=True)
class CompositeObjective(PredictObjective):
    """Predicts the frames that follow and gives all inputs back, from one state.

    The metrics of the model are those of the forecast. The reconstruction, which keeps
    the encoder from remembering only the last frames, is scored and drawn as well.
    """

    reconstructions: ClassVar[frozenset[str]] = frozenset({"reconstruction"})

    def targets(self, frames: Array) -> tuple[Video, dict[str, Video]]:
        """See `AutoencoderObjective`."""
        inputs, target = self.split(frames)
        return inputs, {"reconstruction": reversed_frames(inputs), "forecast": target}

    def outputs(self, variables: Variables, inputs: Video, target: Video) -> Outputs:
        """Forecast and reconstruction; the inputs are encoded once."""
        lengths = {
            "forecast": self.num_output_frames,
            "reconstruction": inputs.shape[1],
        }
        outputs = self._generate(variables, inputs, lengths)
        return {
            "model": (outputs["forecast"], target),
            "reconstruction": (outputs["reconstruction"], reversed_frames(inputs)),
        }


def _forecast(logits: Video) -> Forecast:
    return Forecast(jax.nn.sigmoid(logits), logits)
