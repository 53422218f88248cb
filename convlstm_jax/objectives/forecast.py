"""Forecasting: the next frames of a clip from its first ones."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from convlstm_jax.config import Config, field
from convlstm_jax.errors import UserError
from convlstm_jax.metrics import frame_metrics
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, summarize
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.network import Forecast, ForecastingNetwork, TrainingStep
from convlstm_jax.objectives.base import (
    Batch,
    Contenders,
    DataFacts,
    Drawn,
    FrameShape,
    Objective,
    ObjectiveConfig,
    Pictures,
    Pixels,
    Variables,
    WriteGif,
    to_unit_interval,
)
from convlstm_jax.objectives.losses import (
    FRAME_LOSSES,
    OwnLoss,
    frame_loss,
    own_loss,
)
from convlstm_jax.types import Frame, PerExample, Video
from convlstm_jax.viz.clip_writer import ClipLook, write_clip
from convlstm_jax.viz.film_strip import film_strip
from convlstm_jax.viz.gif import comparison_gif, gif_bytes
from convlstm_jax.viz.pixels import outcome_name
from convlstm_jax.viz.player import PlayerClip, forecast_clip
from convlstm_jax.viz.plots import draw_space_time_correlation, metric_curves

Outputs = dict[str, tuple[Forecast, Video]]  # name → the output and its target


class FramesConfig(ObjectiveConfig):
    """Fields of the objectives that ask for frames."""

    num_output_frames: int = field(10, "Frames the network predicts.", ge=1)

    @property
    def clip_length(self) -> int:
        """Frames that a clip must have: given and predicted ones."""
        return self.num_input_frames + self.num_output_frames


class PixelLossConfig(FramesConfig):
    """Fields of the objectives that score every pixel of a frame."""

    loss: str = field(
        "cross_entropy",
        "cross_entropy: nats per frame, summed over its pixels; mse, mae, huber: mean "
        "over pixels (huber: squared errors up to 0.1, absolute ones beyond); mse_sum: "
        "squared error summed over the pixels of a frame; MODULE:FUNCTION: your own, "
        "of prediction and target `[B, T, H, W, C]`.",
        must=(
            f"be one of {', '.join(FRAME_LOSSES)}, or MODULE:FUNCTION",
            lambda loss: loss in FRAME_LOSSES or 0 < loss.find(":") < len(loss) - 1,
        ),
    )

    def check_code(self) -> Iterator[str]:
        """See `ObjectiveConfig`: a loss of the user's own must exist."""
        if ":" in self.loss:
            try:
                own_loss(self.loss)
            except UserError as error:
                yield f"loss is {self.loss!r}: {error}"


class ForecastConfig(PixelLossConfig):
    """Forecast: the frames that follow the given ones."""

    name: Literal["forecast"] = "forecast"

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "ForecastObjective":
        """See `ObjectiveConfig`."""
        lengths = self.num_input_frames, self.num_output_frames
        return ForecastObjective(model.build(), *lengths, self.loss, training)


@dataclass(frozen=True)
class Example:
    """The outputs of a network for one clip."""

    condition: int | None  # index of its condition, if clips have any
    # Output → inputs, truth and prediction, each `[T, H, W, C]`.
    outputs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class FramesObjective(Objective):
    """An objective that asks for frames; `loss` is one of `losses.frame_loss`."""

    num_output_frames: int
    loss: str | OwnLoss = "cross_entropy"

    with_vmaf: ClassVar[bool] = True

    # Outputs whose frames are the inputs, last one first.
    reconstructions: ClassVar[frozenset[str]] = frozenset()

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """The `num_frames` frames that follow `inputs`, any number."""
        return self.forecast_from(variables, self.read(variables, inputs), num_frames)

    def forecast_from(
        self, variables: Variables, state: Any, num_frames: int
    ) -> Forecast:
        """The frames that follow those the network has read, any number."""
        raise NotImplementedError

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip as inputs and target, pixels in [0, 1]."""
        video, first = to_unit_interval(frames), self.num_input_frames
        return video[:, :first], video[:, first : first + self.num_output_frames]

    def split_batch(self, batch: Batch) -> tuple[Video, Video]:
        """The inputs of a batch, with noise if any, and its target without."""
        inputs, target = self.split(batch["frames"])
        if "targets" in batch:
            _, target = self.split(batch["targets"])
        return inputs, target

    def target_mask(self, batch: Batch) -> Video | None:
        """1 where the target of a batch has data; None: everywhere."""
        return None

    def score(self, forecast: Forecast, target: Video, mask: Any = None) -> PerExample:
        """The loss of a forecast, `[B]`; radar has a mask, 1 where there is data."""
        return frame_loss(self.loss, forecast, target)

    def outputs(self, variables: Variables, inputs: Video, target: Video) -> Outputs:
        """All outputs of the network; "model" is the one that is ranked."""
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        return {"model": (forecast, target)}

    def metrics(self, forecast: Forecast, target: Video, mask: Any) -> dict[str, Array]:
        """The metrics of one contender, `[B, T]` each."""
        return frame_metrics(forecast.frames, target, logits=forecast.logits)

    def baselines(self, inputs: Video, batch: Batch) -> dict[str, Video]:
        """The predictions that the model is compared with."""
        return {k: of(inputs, self.num_output_frames) for k, of in BASELINES.items()}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Objective`; every output is a contender, and adds to the loss."""
        inputs, target = self.split_batch(batch)
        mask = self.target_mask(batch)
        outputs = self.outputs(variables, inputs, target)
        measured = dict(outputs)
        if with_baselines:
            for name, frames in self.baselines(inputs, batch).items():
                measured[name] = Forecast(frames, None), target
        contenders = {k: self.metrics(*of, mask) for k, of in measured.items()}
        if not with_baselines:
            losses = [self.score(*output, mask) for output in outputs.values()]
            loss, shape = jnp.stack(losses).sum(0), target.shape[:2]
            contenders["model"]["loss"] = jnp.broadcast_to(loss[:, None], shape)
        return contenders

    def summarize(self, total: MetricSums, frame_shape: FrameShape) -> MetricSummary:
        """See `Objective` and `metrics.accumulate.summarize`."""
        return summarize(total, values_per_frame=math.prod(frame_shape))

    def shown(self, variables: Variables, batch: Batch) -> Any:
        """See `Objective`: output → inputs, truth and prediction."""
        inputs, target = self.split_batch(batch)
        outputs = self.outputs(variables, inputs, target)
        return {
            name: (inputs, truth, output.frames)
            for name, (output, truth) in outputs.items()
        }

    def example(self, clip: dict[str, Any], shown: Any) -> Any:
        """See `Objective`."""
        condition = clip.get("condition")
        return Example(None if condition is None else int(condition), shown)

    def draw_validation(
        self, examples: Sequence[Example], step: int, write_gif: WriteGif, folder: Path
    ) -> None:
        """One film strip on disk, and a GIF of each clip: truth | prediction."""
        clips = [example.outputs["model"] for example in examples]
        film_strip(
            folder / f"validation_{step:07d}.png",
            *clips[0],
            title=f"step {step}",
            reconstruction="model" in self.reconstructions,
        )
        for index, (inputs, *outcomes) in enumerate(clips):
            films = [np.concatenate([inputs, outcome]) for outcome in outcomes]
            gif = gif_bytes(np.concatenate(films, axis=2), 5)
            write_gif(step, f"truth_and_prediction/{index}", gif)

    def draw(
        self, drawn: Sequence[Drawn], contenders: Contenders, folder: Path
    ) -> Pictures:
        """Draws the clips, their space–time correlation and curves by lead time."""
        curves = folder / "lead_time.png"
        metric_curves(curves, {k: c.per_lead_time for k, c in contenders.items()})
        pictures = [("Metrics by lead time", curves)]
        if not drawn:
            return pictures
        if self.num_output_frames > 1:
            picture = folder / "space_time_correlation.png"
            _, truth, prediction = _stacked(drawn, "model")
            films = {"truth": truth, "prediction": prediction}
            draw_space_time_correlation(picture, films)
            caption = "Space–time correlation of the test sequences below, by distance"
            pictures.append((f"{caption} in space and time", picture))
        for output in drawn[0].example.outputs:
            pictures += self._draw_output(drawn, output, folder)
        return pictures

    def _draw_output(
        self, drawn: Sequence[Drawn], output: str, folder: Path
    ) -> Pictures:
        reconstruction = output in self.reconstructions
        words = ": its inputs in reverse order, and their reconstruction"
        suffix = words if reconstruction else ""
        prefix = "test" if output == "model" else output
        grid = folder / f"{prefix}.gif"
        comparison_gif(grid, *_stacked(drawn, output), reconstruction=reconstruction)
        caption = f"Test sequences: truth and {outcome_name(reconstruction)}"
        pictures = [(caption, grid)]
        for place, one in enumerate(drawn):
            strip = folder / f"{prefix}_{place:02d}.png"
            clips = one.example.outputs[output]
            # Enough columns for the roll-outs of every experiment.
            film_strip(strip, *clips, reconstruction=reconstruction, max_columns=24)
            gif, alone = strip.with_suffix(".gif"), _stacked([one], output)
            comparison_gif(gif, *alone, frame_size=256, reconstruction=reconstruction)
            pictures.append((f"{one.name}{suffix}", strip))
        return pictures

    def played(self, drawn: Sequence[Drawn]) -> list[PlayerClip]:
        """See `Objective`: input, truth, prediction and error."""
        return [
            forecast_clip(
                str(one.name) + ("" if output == "model" else f", {output}"),
                *one.example.outputs[output],
                group=one.group,
                note=one.note,
                reconstruction=output in self.reconstructions,
            )
            for output in (drawn[0].example.outputs if drawn else ())
            for one in drawn
        ]

    def describe(self, variables: Variables, inputs: Video) -> dict[str, Array]:
        """See `Objective`."""
        length = self.num_input_frames + self.num_output_frames
        _, target = self.split(jnp.zeros((1, length, *inputs.shape[2:])))
        return {
            f"{'output' if name == 'model' else name}: [B, T, H, W, C]": output.frames
            for name, (output, _) in self.outputs(variables, inputs, target).items()
        }

    def write_prediction(
        self,
        output: Path,
        inputs: Pixels,
        mask: Pixels | None,
        prediction: Pixels,
        look: ClipLook,
    ) -> None:
        """Writes frames `[T, H, W, C]` that were predicted from others."""
        if output.suffix.lower() == ".png":
            reconstructs = "model" in self.reconstructions
            film_strip(output, inputs, None, prediction, reconstruction=reconstructs)
        else:
            write_clip(output, prediction, look.frames_per_second or 10, look.scale)

    def predict_from(
        self, variables: Variables, state: Any, num_frames: int | None
    ) -> Video:
        """See `Objective`: the predicted frames."""
        count = num_frames or self.num_output_frames
        return self.forecast_from(variables, state, count).frames

    def exported_words(self, num_frames: int | None) -> str:
        """See `Objective`."""
        return f"frames [B, {num_frames or self.num_output_frames}, H, W, C]"


def _stacked(drawn: Sequence[Drawn], output: str) -> list[np.ndarray]:
    """Inputs, truth and prediction of all clips, `[N, T, H, W, C]`."""
    clips = (one.example.outputs[output] for one in drawn)
    return [np.stack(parts) for parts in zip(*clips, strict=True)]


@dataclass(frozen=True)
class ForecastObjective(FramesObjective):
    """Predicts the last frames of a clip from the ones before."""

    model: ForecastingNetwork
    training: Config | None = None  # how the network is trained, where it says

    def init(self, key: Array, frame_shape: FrameShape) -> Variables:
        """See `Objective`."""
        return self.model.init_forecaster(key, frame_shape)

    def forecast_from(
        self, variables: Variables, state: Any, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; any number of frames, independent of training."""
        forecast: Any = self.model.apply(
            variables, state, num_frames, method="forecast_from"
        )
        return self.adjusted(forecast, getattr(state, "last_frame", None))

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`: the loss of the frames the network predicts in training."""
        clip = to_unit_interval(batch["frames"])
        forecast, first, model_state, penalty = self.model.predict_for_training(
            variables,
            clip[:, : self.num_input_frames + self.num_output_frames],
            self.num_input_frames,
            TrainingStep(key, step, self.training),
        )
        forecast = self.adjusted(forecast, clip[:, self.num_input_frames - 1])
        frames = slice(first, first + forecast.frames.shape[1])
        target = to_unit_interval(batch.get("targets", batch["frames"])[:, frames])
        mask = batch["mask"][:, frames] if "mask" in batch else None
        return self.score(forecast, target, mask) + penalty, model_state

    def adjusted(self, forecast: Forecast, last_frame: Frame | None) -> Forecast:
        """What the network's output stands for; itself by default.

        `last_frame` is the last one read; `None` for networks that read their own
        predictions.
        """
        return forecast
