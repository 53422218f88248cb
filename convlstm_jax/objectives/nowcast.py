"""Nowcasting: the next radar frames, scored as rain, where there is data."""

import dataclasses
import functools
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
    S_PROG,
    STEPS,
    WithOpticalFlow,
    copy_last_frame,
    missing_packages,
)
from convlstm_jax.metrics.ensemble import crps, ensemble_sums, summarize_ensemble
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
    to_unit_interval,
)
from convlstm_jax.objectives.forecast import ForecastObjective, FramesConfig, Outputs
from convlstm_jax.objectives.losses import masked_mean, rain_loss, rain_weight
from convlstm_jax.objectives.moving_frame import MovingFrame, matched_mean
from convlstm_jax.ops.advection import inner
from convlstm_jax.ops.tiles import by_tiles
from convlstm_jax.types import Frame, PerExample, Video
from convlstm_jax.viz.clip_writer import OUTPUT_SUFFIXES, ClipLook
from convlstm_jax.viz.ensemble_plots import (
    draw_power_spectra,
    ensemble_diagrams,
    power_spectrum,
)
from convlstm_jax.viz.film_strip import radar_strip
from convlstm_jax.viz.maps import MAP_SUFFIXES
from convlstm_jax.viz.nowcast_files import write_nowcast
from convlstm_jax.viz.player import PlayerClip, nowcast_clip
from convlstm_jax.viz.plots import metric_curves

_log = logging.getLogger(__name__)

_TRAINED_MEMBERS = 4  # At most, that a training draws of a clip.
_FAIRNESS = 0.95  # Of the almost fair CRPS.
_RATE_WEIGHT = 0.2  # Of the CRPS of rates in mm/h, beside that of pixels.
_SHOWN_MEMBERS = 3  # In pictures.
_GIVEN = (OPTICAL_FLOW, S_PROG, STEPS)  # The baselines that a batch may hold.

_WEIGHTED: dict[str, Any] = {
    "gt": 0, "min_length": 1, "increasing": True, "example": "(0.5,2,5)",
    "when": {"loss": ("b_mse", "b_mae")},
}  # fmt: skip

_MOVING: dict[str, Any] = {
    "ge": 0, "le": 1, "when": {"motion": ("optical_flow",)}, "may_change": True,
}  # fmt: skip


class NowcastConfig(FramesConfig):
    """Nowcast: the radar frames that follow, scored as rain where there is data."""

    data_kind: ClassVar[str] = "rain"

    name: Literal["nowcast"] = "nowcast"
    loss: Literal["cross_entropy", "mse", "mae", "b_mse", "b_mae"] = field(
        "cross_entropy",
        "Mean over the pixels with data; b_mse and b_mae give heavy rain more weight. "
        "An ensemble's loss is the almost fair CRPS (Lang et al. 2024) of pixels plus "
        "0.2 times that of rates in mm/h.",
        when={"num_members": (1,)},
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
    num_members: int = field(
        1,
        "Members of the ensemble, equally likely forecasts from the same frames; 1 is "
        "a single forecast.",
        ge=1,
        le=1000,
    )
    motion: Literal["none", "optical_flow"] = field(
        "none",
        "optical_flow: the motion of the given frames is found, the network predicts "
        "growth and decay in the moving frame, and the rain is carried on along the "
        "motion; none: the network learns how rain moves.",
    )
    probability_matching: float = field(
        0.0,
        "Share of a forecast that gets the distribution of the last given field, as in "
        "S-PROG: 0 has the smallest squared error, 1 as much heavy rain as there was.",
        **_MOVING,
    )
    last_frame_share: float = field(
        0.4,
        "Share of the last given field in the order by which a single forecast gets "
        "that distribution, halved every two frames: with more of it heavy rain is "
        "where it was, with less where the forecast, which is smooth, has most.",
        **_MOVING,
    )
    change_share: float = field(
        0.25,
        "Share of the change that the network predicts which a single forecast takes. "
        "1 is for rain like that of the training; less is better on other rain.",
        **_MOVING,
    )
    from_last_frame: bool = field(
        False,
        "Whether the network predicts the change from the last given frame.",
        when={"motion": ("none",)},
    )

    def check(self) -> Iterator[str]:
        """Yields the problems between fields."""
        if len(self.rain_weights) != len(self.rain_weight_rates):
            yield (
                f"rain_weights is {self.rain_weights}: it must have as many entries as "
                f"rain_weight_rates, which is {self.rain_weight_rates}"
            )
        if self.num_members > 1 and self.motion == "none":
            yield (
                f"num_members is {self.num_members}: it must be 1 with motion='none', "
                "as ensembles are made in the moving frame"
            )

    def check_network(self, model: ModelConfig) -> Iterator[str]:
        """See `ObjectiveConfig`; one that reads its own frames predicts no changes."""
        if self.motion != "none" and not model.takes_any_channels:
            yield (
                f"config.task.motion is {self.motion!r}: it must be 'none' with "
                f"config.model.name={model.name!r}, as the encoder_forecaster alone "
                "predicts changes in the moving frame"
            )
        if self.from_last_frame and model.reads_own_predictions:
            yield (
                "config.task.from_last_frame is True: it must be False with "
                f"config.model.name={model.name!r}, which reads its own predictions"
            )

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "NowcastObjective":
        """See `ObjectiveConfig`."""
        extra: dict[str, Any] = {}
        if self.motion != "none" or self.from_last_frame:
            # It begins at persistence, in the moving frame without a change.
            extra["first_logit"] = 0.0
        if self.motion != "none":
            extra["output_channels"] = MovingFrame.num_outputs(self.num_members)
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
    """Predicts radar frames; pixels without data count in no loss and metric.

    Frames that are read may be NaN where there is no data. An ensemble's members are
    the last axis of its frames.
    """

    config: NowcastConfig = dataclasses.field(default_factory=NowcastConfig)
    facts: DataFacts = dataclasses.field(default_factory=DataFacts)

    suffixes: ClassVar[tuple[str, ...]] = (*OUTPUT_SUFFIXES, *MAP_SUFFIXES)
    takes_whole_area: ClassVar[bool] = True
    with_vmaf: ClassVar[bool] = False

    def init(self, key: Array, frame_shape: FrameShape) -> Variables:
        """See `Objective`; in the moving frame the network reads the mask as well."""
        if self._moves:
            frame_shape = (*frame_shape[:2], 2)
        return super().init(key, frame_shape)

    @property
    def _moves(self) -> bool:
        return self.config.motion != "none"

    @property
    def num_members(self) -> int:
        """How many forecasts are made of the same frames."""
        return self.config.num_members if self._moves else 1

    @property
    def _moving_frame(self) -> MovingFrame:
        return MovingFrame(
            self.model,
            self.facts.rain_scale,
            self.num_input_frames,
            self.num_members,
            self.config.probability_matching,
            self.config.change_share,
            self.config.last_frame_share,
        )

    def with_config(self, **fields: Any) -> "NowcastObjective":
        """The objective with other values of some fields of its config."""
        config = self.config.model_copy(update=fields)
        return dataclasses.replace(self, config=config)

    @property
    def _as_trained(self) -> "NowcastObjective":
        few = min(self.config.num_members, _TRAINED_MEMBERS)
        return self.with_config(num_members=few, probability_matching=0.0)

    def read(self, variables: Variables, frames: Array, state: Any = None) -> Any:
        """See `Objective`; in the moving frame the state is the last frames."""
        video = to_unit_interval(frames)
        known = ~jnp.isnan(video)
        video = jnp.where(known, video, 0.0)
        if not self._moves:
            return super().read(variables, video, state)
        return self._moving_frame.read(video, known, state)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; of a large area by tiles."""
        whole = functools.partial(super().forecast, variables, num_frames=num_frames)
        if self._moves:  # Its network alone forecasts by tiles.
            return whole(inputs)
        found: Forecast = by_tiles(
            whole,
            inputs,
            overlap=self.model.reach(inputs.shape[1] + num_frames),
            multiple=getattr(self.model, "patch_size", 1),
        )
        return found

    def forecast_from(
        self, variables: Variables, state: Any, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; of an ensemble `[B, T, H, W, M]`."""
        if not self._moves:
            return super().forecast_from(variables, state, num_frames)
        return Forecast(self._moving_frame.forecast(variables, state, num_frames), None)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`; in the moving frame, targets are carried back."""
        margin, length = self.facts.margin, self.config.clip_length
        frames, mask = to_unit_interval(batch["frames"]), batch["mask"]
        if not self._moves:
            cut = {"frames": inner(frames, margin), "mask": inner(mask, margin)}
            return super().loss_fn(variables, {**batch, **cut}, key, step)
        clip = frames[:, :length], mask[:, :length].astype(frames.dtype)
        frame = self._as_trained._moving_frame
        found, target, there = frame.training_pair(variables, *clip, key, margin)
        return self.score(Forecast(found, None), target, there), {}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Objective`; validations measure what is trained: unmatched, of few."""
        objective = self if with_baselines else self._as_trained
        measured = super(NowcastObjective, objective).measure
        return measured(variables, batch, with_baselines=with_baselines)

    def split_batch(self, batch: Batch) -> tuple[Video, Video]:
        """The inputs, NaN where there is no data, with margin; the target without."""
        inputs, target = super().split_batch(batch)
        known = batch["mask"][:, : self.num_input_frames] > 0
        margin = 0 if self._moves else self.facts.margin
        inputs = inner(jnp.where(known, inputs, jnp.nan), margin)
        return inputs, inner(target, self.facts.margin)

    def target_mask(self, batch: Batch) -> Video | None:
        """See `FramesObjective`."""
        mask = self.split(batch["mask"].astype(float))[1]
        return inner(mask, self.facts.margin)

    def outputs(self, variables: Variables, inputs: Video, target: Video) -> Outputs:
        """See `FramesObjective`; frames and logits without the margin."""
        (forecast, _) = super().outputs(variables, inputs, target)["model"]
        cut = jax.tree.map(self._without_margin, forecast)
        return {"model": (cut, target)}

    def _without_margin(self, frames: Video) -> Video:
        """Frames made from the inputs of `split_batch`, of the size of the target."""
        return inner(frames, self.facts.margin if self._moves else 0)

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
        if self.num_members > 1:
            of = self.facts.rain_scale.rain_mm_per_h
            pixels = crps(forecast.frames, target, fairness=_FAIRNESS)
            rates = crps(of(forecast.frames), of(target), fairness=_FAIRNESS)
            return masked_mean(pixels + _RATE_WEIGHT * rates, mask)
        weight = rain_weight(
            self.facts.rain_scale.rain_mm_per_h(target),
            self.config.rain_weight_rates,
            self.config.rain_weights,
        )
        return rain_loss(self.config.loss, forecast, target, mask, weight)

    def baselines(self, inputs: Video, batch: Batch) -> dict[str, Video]:
        """Persistence; advection, where a nowcast begins; what the batch holds."""
        last = copy_last_frame(jnp.nan_to_num(inputs), self.num_output_frames)
        found = {"persistence": last}
        if self._moves:
            state = self.read({}, inputs)
            count = self.num_output_frames
            found["advection"] = self._moving_frame.advected(state, count)
        found = {name: self._without_margin(of) for name, of in found.items()}
        given = {name: batch[name] for name in _GIVEN if name in batch}
        return found | {k: inner(of, self.facts.margin) for k, of in given.items()}

    def metrics(self, forecast: Forecast, target: Video, mask: Any) -> dict[str, Array]:
        """See `FramesObjective`, `forecast_skill.skill_sums` and `ensemble_sums`.

        As one forecast, an ensemble is its probability-matched mean.
        """
        scale = self.facts.rain_scale
        # Without data both are no rain, so there is no difference.
        members = jnp.where(mask > 0, forecast.frames, 0.0)
        target = jnp.where(mask > 0, target, 0.0)
        prediction = matched_mean(members, scale)
        observed = scale.rain_mm_per_h(target)
        rain = scale.rain_mm_per_h(prediction)
        found = {
            "mse": squared_error(prediction, target),
            "mae": absolute_error(prediction, target),
            **skill_sums(rain, observed, mask, **self._at),
        }
        if self.num_members > 1:
            rain, thresholds = scale.rain_mm_per_h(members), self.facts.rain_thresholds
            found |= ensemble_sums(rain, observed, mask, thresholds_mm_per_h=thresholds)
        return found

    def summarize(self, total: MetricSums, frame_shape: FrameShape) -> MetricSummary:
        """See `Objective`; MSE and MAE are over the pixels with data."""
        sums, skill = float64_sums(total), summarize_skill(total, **self._at)
        errors: Any = {k: v for k, v in sums.items() if k in ("mse", "mae", "loss")}
        plain = summarize({"sums": errors, "count": total["count"]}, values_per_frame=1)
        pixels = sums["moments"][:, 0].sum()
        for name in ("mse", "mae"):
            per_pixel = none_if_nan(ratio(sums[name].sum(), pixels))
            plain.total[f"{name}_per_pixel"] = per_pixel
        found = MetricSummary(
            plain.total | skill.total,
            plain.per_lead_time | skill.per_lead_time,
            skill.mean_over_lead_times,
        )
        if self.num_members > 1:
            thresholds = self.facts.rain_thresholds
            of = summarize_ensemble(total, thresholds_mm_per_h=thresholds)
            found.total |= of.total
            found.per_lead_time |= of.per_lead_time
            found.diagrams = of.diagrams
        return found

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

    def describe(self, variables: Variables, inputs: Video) -> dict[str, Array]:
        """See `Objective`; of inputs without a margin."""
        if self.facts.margin:
            facts = dataclasses.replace(self.facts, margin=0)
            return dataclasses.replace(self, facts=facts).describe(variables, inputs)
        return super().describe(variables, inputs)

    def shown(self, variables: Variables, batch: Batch) -> Any:
        """See `Objective`: rain of all frames "observed" and of each contender."""
        inputs, target = self.split_batch(batch)
        given = jnp.nan_to_num(self._without_margin(inputs))
        members = self.outputs(variables, inputs, target)["model"][0].frames
        scale = self.facts.rain_scale
        pixels = {
            "observed": jnp.concatenate([given, target], axis=1),
            "model": matched_mean(members, scale),
            **self.baselines(inputs, batch),
        }
        if self.num_members > 1:
            shown = range(min(self.num_members, _SHOWN_MEMBERS))
            pixels |= {f"member {i + 1}": members[..., i : i + 1] for i in shown}
        return {
            name: scale.rain_mm_per_h(frames)[..., 0] for name, frames in pixels.items()
        }

    def example(self, clip: dict[str, Any], shown: Any) -> Any:
        """See `Objective`; `jit` returns the model first, in the order of the names."""
        observed = shown.pop("observed")
        mask = inner(clip["mask"][None, : len(observed)], self.facts.margin)
        return Nowcast(observed, np.asarray(mask[0, ..., 0]), shown)

    def draw_validation(
        self, examples: Sequence[Any], step: int, write_gif: WriteGif, folder: Path
    ) -> None:
        """See `Objective`: a strip of the first clip."""
        self._strip(examples[0], folder / f"validation_{step:07d}.png")

    def draw(
        self, drawn: Sequence[Drawn], contenders: Contenders, folder: Path
    ) -> Pictures:
        """Draws the test clips and the skill by lead time."""
        pictures: Pictures = []
        for place, one in enumerate(drawn):
            picture = folder / f"test_{place:02d}.png"
            self._strip(one.example, picture)
            pictures.append((f"{one.name}: observed above forecast", picture))
        keys = {"mse", "rainfall_mse", "correlation", "crps", "spread_error_ratio"}
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
        pictures.append(("Skill by lead time", curves))
        if self.num_members > 1:
            pictures += self._draw_ensemble(drawn, contenders, folder)
        return pictures

    def _draw_ensemble(
        self, drawn: Sequence[Drawn], contenders: Contenders, folder: Path
    ) -> Pictures:
        """Draws ranks, reliability and ROC, and how rain is spread over wavelengths."""
        diagrams, spectra = folder / "ensemble.png", folder / "power_spectrum.png"
        of_contenders = {name: of.diagrams for name, of in contenders.items()}
        ensemble_diagrams(diagrams, of_contenders)
        pictures = [("Ranks, reliability and ROC of the ensemble", diagrams)]
        if drawn:
            nowcasts = [one.example for one in drawn]
            last = {"observed": [one.observed[-1] for one in nowcasts]}
            for name in nowcasts[0].forecasts:
                last[name] = [one.forecasts[name][-1] for one in nowcasts]
            there = np.stack([one.mask[-1] for one in nowcasts]) > 0
            of_names = {
                name: power_spectrum(np.where(there, fields, 0.0))
                for name, fields in last.items()
            }
            draw_power_spectra(spectra, of_names, self.facts.pixel_size_km)
            pictures.append(("Power spectrum at the last lead time", spectra))
        return pictures

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
        """See `write_nowcast`.

        Frames without a mask are written as they are, of an ensemble the
        probability-matched mean.
        """
        scale = self.facts.rain_scale
        if mask is None:
            one = np.asarray(matched_mean(jnp.asarray(prediction[None]), scale)[0])
            super().write_prediction(output, inputs, mask, one, look)
            return
        of, rates = scale.rain_mm_per_h, self.facts.rain_thresholds
        # Frame by frame: of all members at once it would take a lot of memory.
        members = np.stack([of(frame) for frame in prediction])
        write_nowcast(output, of(inputs[..., 0]), members, mask[..., 0], look, rates)

    def exported_words(self, num_frames: int | None) -> str:
        """See `Objective`; of an ensemble, the members are the last axis."""
        words = super().exported_words(num_frames)
        return words.replace("C]", "M]") if self.num_members > 1 else words

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
