"""Objectives of an LSTM autoencoder: reconstruction, prediction, or both.

The three tasks of Srivastava et al. 2015 (arXiv:1502.04681, sections 2.2 to 2.4).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jax import Array

from convlstm_jax.config import Config
from convlstm_jax.errors import UserError
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.network import Forecast, forecast_from_logits
from convlstm_jax.objectives.base import Batch, DataFacts, Variables
from convlstm_jax.objectives.forecast import FramesObjective, Outputs, PixelLossConfig
from convlstm_jax.types import PerExample, Video


class AutoencoderConfig(PixelLossConfig):
    """Fields of the objectives of an autoencoder."""

    network_kind: ClassVar[str] = "decoders"
    decoders: ClassVar[tuple[str, ...]] = ()  # that the network must have

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "AutoencoderObjective":
        """See `ObjectiveConfig`."""
        network = model.build(decoders=self.decoders)
        lengths = self.num_input_frames, self.num_output_frames
        return AutoencoderObjective(network, *lengths, self.loss, self.decoders)


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
        yield from super().check()
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


@dataclass(frozen=True)
class AutoencoderObjective(FramesObjective):
    """Predicts the frames that follow, reconstructs the inputs in reverse, or both.

    "model" is the forecast, or without one the last `num_output_frames` inputs; beside
    a forecast, all inputs are reconstructed. The loss is the sum over the decoders.
    """

    decoders: tuple[str, ...] = ("forecast",)

    @property
    def _ranked(self) -> str:
        """The decoder whose output is that of the "model"."""
        return "forecast" if "forecast" in self.decoders else "reconstruction"

    @property
    def reconstructions(self) -> frozenset[str]:  # type: ignore[override]
        """See `FramesObjective`."""
        if self._ranked == "reconstruction":
            return frozenset({"model"})
        return frozenset(self.decoders) & {"reconstruction"}

    def targets(self, frames: Array) -> tuple[Video, dict[str, Video]]:
        """A clip as inputs and the true output of each decoder."""
        inputs, following = super().split(frames)
        backwards = inputs[:, ::-1]
        if self._ranked == "reconstruction":
            backwards = backwards[:, : self.num_output_frames]
        targets = {"reconstruction": backwards, "forecast": following}
        return inputs, {name: targets[name] for name in self.decoders}

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip as inputs and what the model is scored on, in [0, 1]."""
        inputs, targets = self.targets(frames)
        return inputs, targets[self._ranked]

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Objective`."""
        num_frames = self.num_input_frames + self.num_output_frames
        inputs, targets = self.targets(jnp.zeros((1, num_frames, *frame_shape)))
        return dict(self.model.init(key, inputs, targets))

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`; conditional decoders read the true frames here."""
        inputs, targets = self.targets(batch["frames"])
        if "targets" in batch:
            _, targets = self.targets(batch["targets"])
        logits: Any = self.model.apply(variables, inputs, targets)
        forecasts = {name: forecast_from_logits(logits[name]) for name in targets}
        losses = [self.score(forecasts[name], of) for name, of in targets.items()]
        return sum(losses[1:], start=losses[0]), {}

    def forecast_from(
        self, variables: Variables, state: Any, num_frames: int
    ) -> Forecast:
        """The frames that follow, any number; without a forecast, the last inputs."""
        name = self._ranked
        return self._decode(variables, state, {name: num_frames})[name]

    def outputs(self, variables: Variables, inputs: Video, target: Video) -> Outputs:
        """See `FramesObjective`; the inputs are encoded once."""
        lengths = {"reconstruction": inputs.shape[1]} if len(self.decoders) > 1 else {}
        lengths[self._ranked] = self.num_output_frames
        outputs = self._decode(variables, self.read(variables, inputs), lengths)
        found = {"model": (outputs.pop(self._ranked), target)}
        return found | {name: (out, inputs[:, ::-1]) for name, out in outputs.items()}

    def _decode(
        self, variables: Variables, state: Any, num_frames: Mapping[str, int]
    ) -> dict[str, Forecast]:
        logits: Any = self.model.apply(variables, state, num_frames, method="decode")
        return {name: forecast_from_logits(logits[name]) for name in num_frames}

    def check_num_frames(self, num_frames: int | None) -> None:
        """See `Objective`: a reconstruction has at most the frames read."""
        if self._ranked == "forecast" or (num_frames or 0) <= self.num_input_frames:
            return
        raise UserError(
            f"--num_frames is {num_frames}: it must be at most "
            f"{self.num_input_frames}, the frames that this network reads and "
            "reconstructs, as it predicts none"
        )
