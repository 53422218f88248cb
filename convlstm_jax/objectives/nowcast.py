"""Nowcasting: the next radar frames, scored as rain, where there is data."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convlstm_jax.config import Config, field
from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    MetricSums,
    num_samples,
)
from convlstm_jax.metrics.baselines import copy_last_frame
from convlstm_jax.metrics.forecast_skill import skill_sums, summarize_skill
from convlstm_jax.metrics.pixel import absolute_error, squared_error
from convlstm_jax.metrics.registry import none_if_nan, score_name
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.network import Forecast
from convlstm_jax.objectives.base import (
    Batch,
    ClipSource,
    DataFacts,
    Pictures,
    Results,
    Variables,
    clip_and_target,
)
from convlstm_jax.objectives.forecast import ForecastObjective, FramesConfig
from convlstm_jax.objectives.losses import rain_loss, rain_weight
from convlstm_jax.objectives.optical_flow import WithOpticalFlow, missing_packages
from convlstm_jax.types import PerExample, Video
from convlstm_jax.viz.curves import metric_curves
from convlstm_jax.viz.player import ClipName, PlayerClip, nowcast_clip
from convlstm_jax.viz.radar import radar_strip

_log = logging.getLogger(__name__)

OPTICAL_FLOW = "optical_flow"
"""Key of a batch for the baseline that is extrapolated on the host."""

# Pixels closer to 0 or 1 have logits with vanishing gradients.
_FAINTEST = 0.02
# Number of rain rates, from the lowest, with curves: more are hard to read.
_DRAWN_RATES = 3
_WEIGHTED = {"loss": ("b_mse", "b_mae")}


class NowcastConfig(FramesConfig):
    """Nowcast: the radar frames that follow, scored as rain where there is data."""

    data_kind: ClassVar[str] = "rain"

    name: Literal["nowcast"] = "nowcast"
    loss: Literal["cross_entropy", "mse", "mae", "b_mse", "b_mae"] = field(
        "cross_entropy",
        "Mean over the pixels with data; b_mse and b_mae give heavy rain more weight.",
    )
    rain_weight_rates: tuple[float, ...] = field(
        (2.0, 5.0, 10.0, 30.0),
        "Rain rates from which on a pixel counts more; below the first it counts 1.",
        unit="mm/h",
        gt=0,
        min_length=1,
        increasing=True,
        example="(0.5,2,5)",
        when=_WEIGHTED,
    )
    rain_weights: tuple[float, ...] = field(
        (2.0, 5.0, 10.0, 30.0),
        "Weight of a pixel from each of these rates on.",
        gt=0,
        min_length=1,
        increasing=True,
        example="(0.5,2,5)",
        when=_WEIGHTED,
    )
    from_last_frame: bool = field(
        False, "Whether the network predicts the change from the last given frame."
    )

    def check(self) -> Iterator[str]:
        """Yields the problems between fields."""
        if len(self.rain_weights) != len(self.rain_weight_rates):
            yield (
                f"rain_weights is {self.rain_weights}: it must have as many entries as "
                f"rain_weight_rates, which is {self.rain_weight_rates}"
            )

    def check_network(self, model: ModelConfig) -> Iterator[str]:
        """See `ObjectiveConfig`; one that reads its own frames predicts no changes."""
        if self.from_last_frame and model.reads_own_predictions:
            yield (
                "config.task.from_last_frame is True: it must be False with "
                f"config.model.name={model.name!r}, which reads its own predictions"
            )

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "NowcastObjective":
        """See `ObjectiveConfig`."""
        # With a first logit of 0 the network begins at persistence.
        extra = {"first_logit": 0.0} if self.from_last_frame else {}
        return NowcastObjective(
            model.build(**extra),
            self.num_input_frames,
            self.num_output_frames,
            self.loss,
            training,
            config=self,
            facts=facts,
        )


@dataclass(frozen=True)
class Nowcast:
    """A clip as rain rates `[T, H, W]`, mm/h, and its forecasts.

    Attributes:
        observed: All frames of the clip.
        mask: 1 where there is data.
        forecasts: Contender → its forecast.
    """

    observed: np.ndarray
    mask: np.ndarray
    forecasts: dict[str, np.ndarray]


@dataclass(frozen=True)
class NowcastObjective(ForecastObjective):
    """Predicts the last frames of a radar clip from the ones before.

    Batches have "frames" and a "mask", 1 where there is data; only these pixels count
    in loss and metrics.

    Attributes:
        config: The fields of the config's section.
        facts: The rain scale, and what is measured.
    """

    config: NowcastConfig = dataclasses.field(default_factory=NowcastConfig)
    facts: DataFacts = dataclasses.field(default_factory=DataFacts)

    with_vmaf: ClassVar[bool] = False

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; any number of frames, independent of training."""
        forecast = super().forecast(variables, inputs, num_frames)
        return self._from_last_frame(forecast, inputs)

    def _from_last_frame(self, forecast: Forecast, inputs: Video) -> Forecast:
        """Adds the logits of the last given frame, where changes are predicted."""
        if not self.config.from_last_frame or forecast.logits is None:
            return forecast
        last = jnp.clip(inputs[:, -1:], _FAINTEST, 1 - _FAINTEST)
        logits = forecast.logits + jnp.log(last) - jnp.log1p(-last)
        return Forecast(jax.nn.sigmoid(logits), logits)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`: over the pixels with data."""
        clip, clean = clip_and_target(batch)
        forecast, first, model_state = self.predict_for_training(
            variables, clip, key, step
        )
        forecast = self._from_last_frame(forecast, clip[:, : self.num_input_frames])
        frames = slice(first, first + forecast.frames.shape[1])
        mask = batch["mask"].astype(jnp.float32)[:, frames]
        return self._loss(forecast, clean[:, frames], mask), model_state

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Objective`; the baselines are persistence and optical flow."""
        inputs, target = self.split_batch(batch)
        mask = self.split(batch["mask"].astype(jnp.float32))[1]
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        contenders = {"model": self._metrics(forecast.frames, target, mask)}
        if with_baselines:
            persistence = copy_last_frame(inputs, self.num_output_frames)
            contenders["persistence"] = self._metrics(persistence, target, mask)
            if OPTICAL_FLOW in batch:
                flow = batch[OPTICAL_FLOW]
                contenders[OPTICAL_FLOW] = self._metrics(flow, target, mask)
        else:
            loss = self._loss(forecast, target, mask)
            shape = (loss.shape[0], self.num_output_frames)
            contenders["model"]["loss"] = jnp.broadcast_to(loss[:, None], shape)
        return contenders

    def _loss(self, forecast: Forecast, target: Video, mask: Video) -> PerExample:
        weight = rain_weight(
            self.facts.rain_scale.rain_mm_per_h(target),
            self.config.rain_weight_rates,
            self.config.rain_weights,
        )
        return rain_loss(self.loss, forecast, target, mask, weight)

    def _metrics(self, prediction: Video, target: Video, mask: Video) -> dict[str, Any]:
        # Without data both are no rain, so there is no difference.
        prediction = jnp.where(mask > 0, prediction, 0.0)
        target = jnp.where(mask > 0, target, 0.0)
        scale = self.facts.rain_scale
        skill = skill_sums(
            scale.rain_mm_per_h(prediction),
            scale.rain_mm_per_h(target),
            mask,
            thresholds_mm_per_h=self.facts.rain_thresholds,
            window_sizes=self.facts.fss_window_sizes,
        )
        return {
            "mse": squared_error(prediction, target),
            "mae": absolute_error(prediction, target),
            **skill,
        }

    def summarize(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """See `Objective` and `metrics.forecast_skill.summarize_skill`.

        "mse" and "mae" are summed over the pixels of a frame that hold data, those
        per pixel divided by their number.
        """
        count = num_samples(total)
        sums = {
            name: np.asarray(value, np.float64) for name, value in total["sums"].items()
        }
        skill = summarize_skill(
            total,
            thresholds_mm_per_h=self.facts.rain_thresholds,
            window_sizes=self.facts.fss_window_sizes,
        )
        num_pixels = sums["moments"][:, 0].sum()
        metrics: dict[str, float | None] = {}
        per_lead_time: dict[str, list[float | None]] = {}
        for name in ("mse", "mae", "loss"):
            if name in sums:
                metrics[name] = float(sums[name].mean() / count)
                per_lead_time[name] = (sums[name] / count).tolist()
        for name in ("mse", "mae"):
            per_pixel = sums[name].sum() / num_pixels if num_pixels else np.nan
            metrics[f"{name}_per_pixel"] = none_if_nan(per_pixel)
        return dataclasses.replace(
            skill,
            total={**metrics, **skill.total},
            per_lead_time={**per_lead_time, **skill.per_lead_time},
        )

    def with_baselines(self, source: ClipSource) -> ClipSource:
        """The clips with an extrapolation of each, if pysteps is installed."""
        missing = missing_packages()
        if missing:
            _log.info(
                "no baseline 'optical_flow', as %s not installed: pip install -r "
                "requirements-radar.txt",
                " and ".join(missing) + (" is" if len(missing) == 1 else " are"),
            )
            return source
        return WithOpticalFlow(
            source,
            self.num_input_frames,
            self.num_output_frames,
            self.facts.rain_scale,
        )

    def examples(
        self,
        variables: Variables,
        source: ClipSource,
        indices: Sequence[int],
        mesh: Mesh,
    ) -> list[Any]:
        """See `Objective`: `Nowcast`s."""
        if not indices:
            return []
        clips = [source[index] for index in indices]
        batch = {
            name: jnp.asarray(np.stack([clip[name] for clip in clips]))
            for name in {"frames", "mask", OPTICAL_FLOW} & clips[0].keys()
        }

        def run(variables: Variables, batch: Batch) -> Any:
            inputs, target = self.split_batch(batch)
            forecast = self.forecast(variables, inputs, self.num_output_frames)
            pixels = {
                "observed": jnp.concatenate([inputs, target], axis=1),
                "model": forecast.frames,
                "persistence": copy_last_frame(inputs, self.num_output_frames),
            }
            if OPTICAL_FLOW in batch:
                pixels[OPTICAL_FLOW] = batch[OPTICAL_FLOW]
            scale = self.facts.rain_scale
            return {
                name: scale.rain_mm_per_h(frames)[..., 0]
                for name, frames in pixels.items()
            }

        everywhere = NamedSharding(mesh, PartitionSpec())
        rain = jax.device_get(jax.jit(run, out_shardings=everywhere)(variables, batch))
        observed = rain.pop("observed")
        length = observed.shape[1]
        return [
            Nowcast(
                observed[row],
                clips[row]["mask"][:length, ..., 0],
                {name: frames[row] for name, frames in rain.items()},
            )
            for row in range(len(indices))
        ]

    def draw_validation(
        self, examples: Sequence[Any], step: int, writer: Any, folder: Path
    ) -> None:
        """See `Objective`: a strip of the first clip."""
        self._strip(examples[0], folder / f"validation_{step:07d}.png")

    def draw(
        self,
        examples: Sequence[Any],
        names: Sequence[ClipName],
        results: Results,
        folder: Path,
    ) -> Pictures:
        """Draws the test clips and the skill by lead time."""
        pictures = []
        for place, (nowcast, name) in enumerate(zip(examples, names, strict=True)):
            picture = folder / f"test_{place:02d}.png"
            self._strip(nowcast, picture)
            pictures.append((f"{name}: observed above forecast", picture))
        drawn = {"mse", "rainfall_mse", "correlation"}
        for rate in self.facts.rain_thresholds[:_DRAWN_RATES]:
            drawn |= {score_name(score, rate) for score in ("csi", "pod", "far")}
            drawn |= {
                score_name("fss", rate, size)
                for size in self.facts.fss_window_sizes[:1]
            }
        curves = folder / "lead_time.png"
        metric_curves(
            curves,
            {
                name: {key: values for key, values in metrics.items() if key in drawn}
                for name, metrics in results.per_lead_time.items()
            },
            minutes_per_frame=self.facts.minutes_per_frame,
        )
        return [*pictures, ("Skill by lead time", curves)]

    def _strip(self, nowcast: Nowcast, picture: Path) -> None:
        order = ("model", OPTICAL_FLOW, "persistence")
        radar_strip(
            picture,
            nowcast.observed,
            {
                name: nowcast.forecasts[name]
                for name in order
                if name in nowcast.forecasts
            },
            nowcast.mask,
            num_inputs=self.num_input_frames,
            minutes_per_frame=self.facts.minutes_per_frame,
        )

    def played(
        self,
        examples: Sequence[Any],
        names: Sequence[ClipName],
        *,
        group: str,
        notes: Sequence[str],
    ) -> list[PlayerClip]:
        """See `Objective`: observed rain, each forecast, and the error."""
        return [
            nowcast_clip(
                str(name),
                nowcast.observed,
                nowcast.forecasts,
                nowcast.mask,
                minutes_per_frame=self.facts.minutes_per_frame,
                group=group,
                note=note,
            )
            for nowcast, name, note in zip(examples, names, notes, strict=True)
        ]
