"""Nowcasting: the next radar frames, scored as rain, where there is data."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlstm_jax.config import Config, field
from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    MetricSums,
    float64_sums,
    summarize,
)
from convlstm_jax.metrics.baselines import (
    OPTICAL_FLOW,
    WithOpticalFlow,
    copy_last_frame,
    missing_packages,
)
from convlstm_jax.metrics.forecast_skill import skill_sums, summarize_skill
from convlstm_jax.metrics.pixel import absolute_error, squared_error
from convlstm_jax.metrics.registry import none_if_nan, ratio, score_name
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.network import Forecast
from convlstm_jax.objectives.base import (
    Batch,
    ClipSource,
    Contenders,
    DataFacts,
    Drawn,
    FrameShape,
    Pictures,
    Pixels,
    Variables,
    WriteGif,
)
from convlstm_jax.objectives.forecast import ForecastObjective, FramesConfig
from convlstm_jax.objectives.losses import rain_loss, rain_weight
from convlstm_jax.types import Frame, PerExample, Video
from convlstm_jax.viz.clip_writer import OUTPUT_SUFFIXES, ClipLook
from convlstm_jax.viz.film_strip import radar_strip
from convlstm_jax.viz.maps import MAP_SUFFIXES
from convlstm_jax.viz.nowcast_files import write_nowcast
from convlstm_jax.viz.player import PlayerClip, nowcast_clip
from convlstm_jax.viz.plots import metric_curves

_log = logging.getLogger(__name__)

_WEIGHTED: dict[str, Any] = {
    "gt": 0, "min_length": 1, "increasing": True, "example": "(0.5,2,5)",
    "when": {"loss": ("b_mse", "b_mae")},
}  # fmt: skip


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
        "Rain rates from which a pixel has a larger weight; below the first it has 1.",
        unit="mm/h",
        **_WEIGHTED,
    )
    rain_weights: tuple[float, ...] = field(
        (2.0, 5.0, 10.0, 30.0),
        "Weight of a pixel from each of these rates upwards.",
        **_WEIGHTED,
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
        lengths = self.num_input_frames, self.num_output_frames
        return NowcastObjective(
            model.build(**extra), *lengths, self.loss, training, self, facts
        )


class Nowcast(NamedTuple):
    """A clip as rain rates `[T, H, W]`, mm/h, and its forecasts."""

    observed: np.ndarray  # all frames of the clip
    mask: np.ndarray  # 1 where there is data
    forecasts: dict[str, np.ndarray]  # by contender


@dataclass(frozen=True)
class NowcastObjective(ForecastObjective):
    """Predicts radar frames; pixels without data count in no loss and metric."""

    config: NowcastConfig = dataclasses.field(default_factory=NowcastConfig)
    facts: DataFacts = dataclasses.field(default_factory=DataFacts)

    suffixes: ClassVar[tuple[str, ...]] = (*OUTPUT_SUFFIXES, *MAP_SUFFIXES)
    takes_whole_area: ClassVar[bool] = True
    with_vmaf: ClassVar[bool] = False

    def adjusted(self, forecast: Forecast, last_frame: Frame | None) -> Forecast:
        """Adds the logits of the last given frame, where changes are predicted."""
        if not self.config.from_last_frame or forecast.logits is None:
            return forecast
        assert last_frame is not None  # `check_network` refuses such a network.
        # Closer to 0 or 1, gradients would vanish.
        last = jnp.clip(last_frame[:, None], 0.02, 0.98)
        logits = forecast.logits + jnp.log(last) - jnp.log1p(-last)
        return Forecast(jax.nn.sigmoid(logits), logits)

    def score(self, forecast: Forecast, target: Video, mask: Any = None) -> PerExample:
        """See `FramesObjective`: over the pixels with data."""
        weight = rain_weight(
            self.facts.rain_scale.rain_mm_per_h(target),
            self.config.rain_weight_rates,
            self.config.rain_weights,
        )
        return rain_loss(self.config.loss, forecast, target, mask, weight)

    def baselines(self, inputs: Video, batch: Batch) -> dict[str, Video]:
        """Persistence and, where it is installed, optical flow."""
        persistence = copy_last_frame(inputs, self.num_output_frames)
        flow = {OPTICAL_FLOW: batch[OPTICAL_FLOW]} if OPTICAL_FLOW in batch else {}
        return {"persistence": persistence, **flow}

    def metrics(self, forecast: Forecast, target: Video, mask: Any) -> dict[str, Array]:
        """See `FramesObjective` and `metrics.forecast_skill.skill_sums`."""
        # Without data both are no rain, so there is no difference.
        prediction = jnp.where(mask > 0, forecast.frames, 0.0)
        target = jnp.where(mask > 0, target, 0.0)
        scale = self.facts.rain_scale
        rain = scale.rain_mm_per_h(prediction), scale.rain_mm_per_h(target)
        skill = skill_sums(*rain, mask, **self._at)
        mse, mae = squared_error(prediction, target), absolute_error(prediction, target)
        return {"mse": mse, "mae": mae, **skill}

    def summarize(self, total: MetricSums, frame_shape: FrameShape) -> MetricSummary:
        """See `Objective`; MSE and MAE are over the pixels with data."""
        sums, skill = float64_sums(total), summarize_skill(total, **self._at)
        errors: Any = {k: v for k, v in sums.items() if k in ("mse", "mae", "loss")}
        plain = summarize({"sums": errors, "count": total["count"]}, values_per_frame=1)
        pixels = sums["moments"][:, 0].sum()
        for name in ("mse", "mae"):
            per_pixel = none_if_nan(ratio(sums[name].sum(), pixels))
            plain.total[f"{name}_per_pixel"] = per_pixel
        return MetricSummary(
            plain.total | skill.total,
            plain.per_lead_time | skill.per_lead_time,
            skill.mean_over_lead_times,
        )

    @property
    def _at(self) -> dict[str, Any]:
        """Where skill is measured: the rates and the windows."""
        return {
            "thresholds_mm_per_h": self.facts.rain_thresholds,
            "window_sizes": self.facts.fss_window_sizes,
        }

    def with_baselines(self, source: ClipSource) -> ClipSource:
        """The clips with an extrapolation of each, if pysteps is installed."""
        missing = missing_packages()
        if missing:
            words = "no baseline 'optical_flow', which needs %s: pip install -r %s"
            _log.info(words, " and ".join(missing), "requirements-radar.txt")
            return source
        lengths = self.num_input_frames, self.num_output_frames
        return WithOpticalFlow(source, *lengths, self.facts.rain_scale)

    def shown(self, variables: Variables, batch: Batch) -> Any:
        """See `Objective`: rain of all frames "observed" and of each contender."""
        inputs, target = self.split_batch(batch)
        pixels = {
            "observed": jnp.concatenate([inputs, target], axis=1),
            "model": self.forecast(variables, inputs, self.num_output_frames).frames,
            **self.baselines(inputs, batch),
        }
        scale = self.facts.rain_scale
        return {
            name: scale.rain_mm_per_h(frames)[..., 0] for name, frames in pixels.items()
        }

    def example(self, clip: dict[str, Any], shown: Any) -> Any:
        """See `Objective`; `jit` returns the model first, in the order of the names."""
        observed = shown.pop("observed")
        return Nowcast(observed, clip["mask"][: len(observed), ..., 0], shown)

    def draw_validation(
        self, examples: Sequence[Any], step: int, write_gif: WriteGif, folder: Path
    ) -> None:
        """See `Objective`: a strip of the first clip."""
        self._strip(examples[0], folder / f"validation_{step:07d}.png")

    def draw(
        self, drawn: Sequence[Drawn], contenders: Contenders, folder: Path
    ) -> Pictures:
        """Draws the test clips and the skill by lead time."""
        pictures = []
        for place, one in enumerate(drawn):
            picture = folder / f"test_{place:02d}.png"
            self._strip(one.example, picture)
            pictures.append((f"{one.name}: observed above forecast", picture))
        keys = {"mse", "rainfall_mse", "correlation"}
        for rate in self.facts.rain_thresholds[:3]:
            keys |= {score_name(score, rate) for score in ("csi", "pod", "far")}
            keys.add(score_name("fss", rate, self.facts.fss_window_sizes[0]))
        curves = folder / "lead_time.png"
        by_lead_time = {
            name: {k: v for k, v in of.per_lead_time.items() if k in keys}
            for name, of in contenders.items()
        }
        minutes = self.facts.minutes_per_frame
        metric_curves(curves, by_lead_time, minutes_per_frame=minutes)
        return [*pictures, ("Skill by lead time", curves)]

    def _strip(self, nowcast: Nowcast, picture: Path) -> None:
        radar_strip(
            picture, nowcast.observed, nowcast.forecasts, nowcast.mask,
            num_inputs=self.num_input_frames,
            minutes_per_frame=self.facts.minutes_per_frame,
        )  # fmt: skip

    def write_prediction(
        self,
        output: Path,
        inputs: Pixels,
        mask: Pixels | None,
        prediction: Pixels,
        look: ClipLook,
    ) -> None:
        """See `write_nowcast`; frames whose mask is unknown are written as they are."""
        if mask is None:
            super().write_prediction(output, inputs, mask, prediction, look)
            return
        of = self.facts.rain_scale.rain_mm_per_h
        rain = of(inputs[..., 0]), of(prediction[..., 0])
        write_nowcast(output, *rain, mask[..., 0], look)

    def exported_unit(self) -> str:
        """See `Objective`: how pixels become reflectivity and rain."""
        scale = self.facts.rain_scale
        return (
            f"pixels: 0 is {scale.dbz_min:g} dBZ, 1 is {scale.dbz_max:g} dBZ, with "
            f"dBZ = 10 log10({scale.zr_a:g} R^{scale.zr_b:g}), R in mm/h"
        )

    def played(self, drawn: Sequence[Drawn]) -> list[PlayerClip]:
        """See `Objective`: observed rain, each forecast, and the error."""
        minutes = self.facts.minutes_per_frame
        return [
            nowcast_clip(
                str(name), nowcast.observed, nowcast.forecasts, nowcast.mask,
                minutes_per_frame=minutes, group=group, note=note,
            )
            for nowcast, name, group, note in drawn
        ]  # fmt: skip
