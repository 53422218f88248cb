"""Forecasting: the next frames of a clip from its first ones."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convlstm_jax.config import Config, field
from convlstm_jax.errors import UserError
from convlstm_jax.metrics import frame_metrics
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, summarize
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.network import (
    Forecast,
    ForecastingNetwork,
    TrainingPrediction,
)
from convlstm_jax.objectives.base import (
    Batch,
    ClipSource,
    DataFacts,
    GifWriter,
    Objective,
    ObjectiveConfig,
    Pictures,
    Results,
    Variables,
    clip_and_target,
    split_clip,
)
from convlstm_jax.objectives.losses import LOSSES
from convlstm_jax.types import PerExample, Video
from convlstm_jax.viz.curves import metric_curves
from convlstm_jax.viz.film_strip import film_strip
from convlstm_jax.viz.gif import comparison_gif, comparison_grid_gif, gif_bytes
from convlstm_jax.viz.player import ClipName, PlayerClip, forecast_clip
from convlstm_jax.viz.space_time_correlation import draw_space_time_correlation

Outputs = dict[str, tuple[Forecast, Video]]
"""Name of an output → the network's output and its target."""

# Batch size of forecasts for pictures: constant, so there is one compilation.
_EXAMPLES_TOGETHER = 4
# Frames in a row of a film strip: enough for the roll-outs of every experiment.
_MAX_COLUMNS = 24


class FramesConfig(ObjectiveConfig):
    """Fields of the objectives that ask for frames."""

    num_output_frames: int = field(10, "Frames the network predicts.", ge=1)

    @property
    def clip_length(self) -> int:
        """Frames that a clip must have: given and predicted ones."""
        return self.num_input_frames + self.num_output_frames


class ForecastConfig(FramesConfig):
    """Forecast: the frames that follow the given ones."""

    name: Literal["forecast"] = "forecast"
    loss: Literal["cross_entropy", "mse", "mae", "mse_sum"] = field(
        "cross_entropy",
        "cross_entropy: nats per frame, summed over its pixels; mse, mae: mean over "
        "pixels; mse_sum: squared error summed over the pixels of a frame.",
    )

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "ForecastObjective":
        """See `ObjectiveConfig`."""
        return ForecastObjective(
            model.build(),
            self.num_input_frames,
            self.num_output_frames,
            self.loss,
            training,
        )


@dataclass(frozen=True)
class Example:
    """The outputs of a network for one clip.

    Attributes:
        condition: Index of its condition; None where clips have none.
        outputs: Output → inputs, truth and prediction, each `[T, H, W, C]`.
    """

    condition: int | None
    outputs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class FramesObjective(Objective):
    """An objective that asks for frames.

    Attributes:
        num_output_frames: Frames the network is scored on.
        loss: A key of `objectives.losses.LOSSES`.
    """

    num_output_frames: int
    loss: str = "cross_entropy"

    reconstructions: ClassVar[frozenset[str]] = frozenset()
    """Outputs whose frames are the inputs, last one first."""
    with_vmaf: ClassVar[bool] = True
    """Whether an evaluation measures VMAF if it is installed."""

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """The `num_frames` frames that follow `inputs`, any number."""
        raise NotImplementedError

    def split(self, frames: Array) -> tuple[Video, Video]:
        """A clip as inputs and target, pixels in [0, 1]."""
        return split_clip(frames, self.num_input_frames, self.num_output_frames)

    def split_batch(self, batch: Batch) -> tuple[Video, Video]:
        """The inputs of a batch, with noise if any, and its target without."""
        inputs, target = self.split(batch["frames"])
        if "targets" in batch:
            _, target = self.split(batch["targets"])
        return inputs, target

    def score(self, forecast: Forecast, target: Video) -> PerExample:
        """The loss of a forecast: `[B]`."""
        return LOSSES[self.loss](forecast, target)

    def outputs(self, variables: Variables, inputs: Video, target: Video) -> Outputs:
        """All outputs of the network; "model" is the one that is ranked."""
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        return {"model": (forecast, target)}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Objective`: per clip and lead time, `[B, T]`.

        Each further output is a contender too, and its loss is added to "loss".
        """
        inputs, target = self.split_batch(batch)
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
        """See `Objective` and `metrics.accumulate.summarize`."""
        height, width, channels = frame_shape
        return summarize(total, values_per_frame=height * width * channels)

    def examples(
        self,
        variables: Variables,
        source: ClipSource,
        indices: Sequence[int],
        mesh: Mesh,
    ) -> list[Example]:
        """See `Objective`."""
        forecast = _compiled_outputs(self, mesh)
        examples = []
        for start in range(0, len(indices), _EXAMPLES_TOGETHER):
            chosen = indices[start : start + _EXAMPLES_TOGETHER]
            clips = [source[index] for index in chosen]
            clips += clips[-1:] * (_EXAMPLES_TOGETHER - len(clips))
            batch = {
                key: jnp.asarray(np.stack([clip[key] for clip in clips]))
                for key in clips[0].keys() & {"frames", "targets"}
            }
            inputs, outputs = jax.device_get(forecast(variables, batch))
            for row in range(len(chosen)):
                condition = clips[row].get("condition")
                parts = {
                    name: (inputs[row], truth[row], prediction[row])
                    for name, (truth, prediction) in outputs.items()
                }
                examples.append(
                    Example(None if condition is None else int(condition), parts)
                )
        return examples

    def draw_validation(
        self, examples: Sequence[Example], step: int, writer: GifWriter, folder: Path
    ) -> None:
        """One film strip on disk, and a GIF of each clip: truth | prediction."""
        clips = [example.outputs["model"] for example in examples]
        film_strip(
            folder / f"validation_{step:07d}.png",
            *clips[0],
            title=f"step {step}",
            reconstruction="model" in self.reconstructions,
        )
        for index, (inputs, truth, prediction) in enumerate(clips):
            frames = np.concatenate(
                [
                    np.concatenate([inputs, inputs], axis=2),
                    np.concatenate([truth, prediction], axis=2),
                ]
            )
            name = f"truth_and_prediction/{index}"
            writer.write_gif(step, name, gif_bytes(frames, 5))

    def draw(
        self,
        examples: Sequence[Example],
        names: Sequence[ClipName],
        results: Results,
        folder: Path,
    ) -> Pictures:
        """Draws the clips, their space–time correlation and curves by lead time."""
        curves = folder / "lead_time.png"
        metric_curves(curves, results.per_lead_time)
        pictures = [("Metrics by lead time", curves)]
        if not examples:
            return pictures
        if self.num_output_frames > 1:
            correlation = folder / "space_time_correlation.png"
            _, truth, prediction = _stacked(examples, "model")
            draw_space_time_correlation(
                correlation, {"truth": truth, "prediction": prediction}
            )
            caption = (
                "Space–time correlation of the test sequences below, by distance in "
                "space and time"
            )
            pictures.append((caption, correlation))
        for output in examples[0].outputs:
            pictures += self._draw_output(examples, names, output, folder)
        return pictures

    def _draw_output(
        self,
        examples: Sequence[Example],
        names: Sequence[ClipName],
        output: str,
        folder: Path,
    ) -> Pictures:
        reconstruction = output in self.reconstructions
        what = "reconstruction" if reconstruction else "prediction"
        prefix = "test" if output == "model" else output
        grid = folder / f"{prefix}.gif"
        clips = _stacked(examples, output)
        comparison_grid_gif(grid, *clips, reconstruction=reconstruction)
        pictures = [(f"Test sequences: truth and {what}", grid)]
        for place, (example, name) in enumerate(zip(examples, names, strict=True)):
            clip = example.outputs[output]
            caption = str(name)
            if reconstruction:
                caption += ": its inputs in reverse order, and their reconstruction"
            strip = folder / f"{prefix}_{place:02d}.png"
            film_strip(
                strip, *clip, reconstruction=reconstruction, max_columns=_MAX_COLUMNS
            )
            comparison_gif(
                strip.with_suffix(".gif"), *clip, reconstruction=reconstruction
            )
            pictures.append((caption, strip))
        return pictures

    def played(
        self,
        examples: Sequence[Example],
        names: Sequence[ClipName],
        *,
        group: str,
        notes: Sequence[str],
    ) -> list[PlayerClip]:
        """See `Objective`: input, truth, prediction and error."""
        if not examples:
            return []
        return [
            forecast_clip(
                str(name) + ("" if output == "model" else f", {output}"),
                *example.outputs[output],
                group=group,
                note=note,
                reconstruction=output in self.reconstructions,
            )
            for output in examples[0].outputs
            for example, name, note in zip(examples, names, notes, strict=True)
        ]

    def describe(self, variables: Variables, inputs: Video) -> dict[str, Array]:
        """See `Objective`."""
        length = self.num_input_frames + self.num_output_frames
        _, target = self.split(jnp.zeros((1, length, *inputs.shape[2:])))
        return {
            f"{'output' if name == 'model' else name}: [B, T, H, W, C]": output.frames
            for name, (output, _) in self.outputs(variables, inputs, target).items()
        }

    def check_num_frames(self, num_frames: int | None) -> None:
        """See `Objective`: a reconstruction has at most the frames read."""
        reconstructs = "model" in self.reconstructions
        if reconstructs and num_frames and num_frames > self.num_input_frames:
            raise UserError(
                f"--num_frames is {num_frames}: it must be at most "
                f"{self.num_input_frames}, the frames that this network reads and "
                "gives back, as it predicts none"
            )

    def exported(
        self, variables: Variables, num_frames: int | None, clips: Video
    ) -> Any:
        """See `Objective`: the predicted frames."""
        length = num_frames or self.num_output_frames
        return self.forecast(variables, clips, length).frames

    def exported_words(self, num_frames: int | None) -> str:
        """See `Objective`."""
        return f"frames [B, {num_frames or self.num_output_frames}, H, W, C]"


@functools.cache
def _compiled_outputs(objective: FramesObjective, mesh: Mesh) -> Any:
    def forecast(variables: Variables, batch: Batch) -> Any:
        inputs, target = objective.split_batch(batch)
        outputs = objective.outputs(variables, inputs, target)
        return inputs, {
            name: (truth, output.frames) for name, (output, truth) in outputs.items()
        }

    return jax.jit(forecast, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _stacked(
    examples: Sequence[Example], output: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, truth and prediction of all examples, `[N, T, H, W, C]`."""
    inputs, truth, prediction = (
        np.stack([example.outputs[output][part] for example in examples])
        for part in range(3)
    )
    return inputs, truth, prediction


@dataclass(frozen=True)
class ForecastObjective(FramesObjective):
    """Predicts the last frames of a clip from the ones before.

    Attributes:
        training: How the network is trained, where it has such fields: which true
            frames a recurrent predictor reads, for example.
    """

    model: ForecastingNetwork
    training: Config | None = None

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Objective`."""
        return self.model.init_forecaster(key, frame_shape)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; any number of frames, independent of training."""
        return self.model.forecast(variables, inputs, num_frames)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`: the loss of the frames the network predicts in training."""
        clip, clean = clip_and_target(batch)
        forecast, first, model_state = self.predict_for_training(
            variables, clip, key, step
        )
        target = clean[:, first : first + forecast.frames.shape[1]]
        return self.score(forecast, target), model_state

    def predict_for_training(
        self, variables: Variables, clip: Video, key: Array, step: Array
    ) -> TrainingPrediction:
        """What the network predicts of a clip in training."""
        length = self.num_input_frames + self.num_output_frames
        return self.model.predict_for_training(
            variables,
            clip[:, :length],
            self.num_input_frames,
            key=key,
            step=step,
            training=self.training,
        )
