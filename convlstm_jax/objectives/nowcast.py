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
    S_PROG,
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
    to_unit_interval,
)
from convlstm_jax.objectives.forecast import ForecastObjective, FramesConfig, Outputs
from convlstm_jax.objectives.losses import rain_loss, rain_weight
from convlstm_jax.ops.advection import (
    Motion,
    bands,
    carry,
    find_motion,
    inner,
    to_last_time,
    trajectories,
)
from convlstm_jax.types import Frame, PerExample, Video
from convlstm_jax.viz.clip_writer import OUTPUT_SUFFIXES, ClipLook
from convlstm_jax.viz.film_strip import radar_strip
from convlstm_jax.viz.maps import MAP_SUFFIXES
from convlstm_jax.viz.nowcast_files import write_nowcast
from convlstm_jax.viz.player import PlayerClip, nowcast_clip
from convlstm_jax.viz.plots import metric_curves

_log = logging.getLogger(__name__)

BAND_DEVIATIONS = (0.8, 1.6, 3.2, 6.4)
"""Of the Gaussians between which bands of length scales lie, in pixels."""

_MATCHING_BINS = 2**14  # Of pixel values that count as equal.
_HALF_CHANGE_FRAMES = 3  # After so many, half of what the network puts out is added.

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
        ge=0,
        le=1,
        when={"motion": ("optical_flow",)},
        may_change=True,
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
            # It begins at persistence, in the moving frame at advection.
            extra["first_logit"] = 0.0
        if self.motion != "none":
            extra["output_channels"] = 2 * len(BAND_DEVIATIONS) + 1
        lengths = self.num_input_frames, self.num_output_frames
        return NowcastObjective(
            model.build(**extra), *lengths, self.loss, training, self, facts
        )


class Nowcast(NamedTuple):
    """A clip as rain rates `[T, H, W]`, mm/h, and its forecasts."""

    observed: np.ndarray  # all frames of the clip
    mask: np.ndarray  # 1 where there is data
    forecasts: dict[str, np.ndarray]  # by contender


class NowcastState(NamedTuple):
    """The last `num_input_frames` frames read, and 1 where they hold data."""

    frames: Video
    mask: Video


@dataclass(frozen=True)
class NowcastObjective(ForecastObjective):
    """Predicts radar frames; pixels without data count in no loss and metric.

    Frames that are read may be NaN where there is no data. To forecast growth and decay
    in the moving frame is the idea of L-CNN (Ritvanen et al. 2023,
    10.1109/JSTARS.2023.3238016). Here the network's outputs a, b and d change the last
    field p by its length scales, which S-PROG (Seed 2003) damps as a whole:

        p' = p + t / (t + 3) (d / 10 − Σₙ aₙ Bₙ(p) + Σₙ bₙ (Bₙ(p) − Bₙ(q)))

    where Bₙ are bands of length scales, q is the field before and t the frames ahead.
    All outputs begin at zero.
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

    def read(self, variables: Variables, frames: Array, state: Any = None) -> Any:
        """See `Objective`; in the moving frame the state is the last frames."""
        video = to_unit_interval(frames)
        known = ~jnp.isnan(video)
        video = jnp.where(known, video, 0.0)
        if not self._moves:
            return super().read(variables, video, state)
        mask = known.astype(video.dtype)
        if state is None:
            nothing = jnp.zeros_like(video[:, :1])
            before = jnp.repeat(nothing, self.num_input_frames, axis=1)
            state = NowcastState(before, before)
        kept = (
            jnp.concatenate(parts, axis=1)[:, -self.num_input_frames :]
            for parts in ((state.frames, video), (state.mask, mask))
        )
        return NowcastState(*kept)

    def forecast_from(
        self, variables: Variables, state: Any, num_frames: int
    ) -> Forecast:
        """See `FramesObjective`; rain from beyond the frame is none."""
        if not self._moves:
            return super().forecast_from(variables, state, num_frames)
        motion = find_motion(state.frames, state.mask)
        moved, known = self._to_last_time(state.frames, state.mask, motion)
        changed = self._changed(variables, moved, known, num_frames)
        if share := self.config.probability_matching:
            matched = probability_matched(changed * known[:, -1:], moved[:, -1])
            changed = changed + share * (matched - changed)
        return Forecast(self._carried_on(changed, known, motion), None)

    def _to_last_time(
        self, frames: Video, mask: Video, motion: Motion, margin: int = 0
    ) -> tuple[Video, Video]:
        """Pixels and masks in the moving frame; rain rates are interpolated."""
        scale = self.facts.rain_scale
        rain, known = to_last_time(
            scale.rain_mm_per_h(frames), mask, motion, margin=margin
        )
        return scale.pixels_of_rain(rain), known

    def _carried_on(self, frames: Video, known: Video, motion: Motion) -> Video:
        """Frames of the moving frame where they are to be at their own times."""
        scale = self.facts.rain_scale
        mask = jnp.broadcast_to(known[:, -1:], frames.shape)
        positions = trajectories(motion, frames.shape[1])
        rain, _ = carry(scale.rain_mm_per_h(frames), mask, positions)
        return scale.pixels_of_rain(rain)

    def _changed(
        self, variables: Variables, moved: Video, known: Video, num_frames: int
    ) -> Video:
        """The fields that follow in the moving frame, see the class."""
        inputs = jnp.concatenate([moved, known], axis=-1)
        outputs = self.model.forecast(variables, inputs, num_frames).logits
        assert outputs is not None
        count = len(BAND_DEVIATIONS)
        damped, trend, more = jnp.split(outputs, (count, 2 * count), axis=-1)
        now = bands(moved[:, -1], known[:, -1], BAND_DEVIATIONS)
        change = 0.1 * more - (damped * now[:, None]).sum(-1, keepdims=True)
        if moved.shape[1] > 1:
            before = bands(moved[:, -2], known[:, -2], BAND_DEVIATIONS)
            steps = (now - before) * known[:, -1] * known[:, -2]
            change += (trend * steps[:, None]).sum(-1, keepdims=True)
        ahead = jnp.arange(1, num_frames + 1, dtype=change.dtype)
        grown = (ahead / (ahead + _HALF_CHANGE_FRAMES)).reshape(1, -1, 1, 1, 1)
        return _to_pixels(moved[:, -1:] + grown * change)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`; in the moving frame, targets are carried back."""
        margin, first = self.facts.margin, self.num_input_frames
        frames, mask = to_unit_interval(batch["frames"]), batch["mask"]
        if not self._moves:
            cut = {"frames": inner(frames, margin), "mask": inner(mask, margin)}
            return super().loss_fn(variables, {**batch, **cut}, key, step)
        mask = mask.astype(frames.dtype)
        motion = find_motion(frames[:, :first], mask[:, :first])
        moved, known = self._to_last_time(
            frames[:, :first], mask[:, :first], motion, margin
        )
        following = slice(first, first + self.num_output_frames)
        positions = trajectories(-motion, self.num_output_frames, margin=margin)
        scale = self.facts.rain_scale
        rain = scale.rain_mm_per_h(frames[:, following])
        rain, there = carry(rain, mask[:, following], positions)
        changed = self._changed(variables, moved, known, self.num_output_frames)
        forecast = Forecast(changed, None)
        return self.score(forecast, scale.pixels_of_rain(rain), there), {}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Objective`; validations measure what is trained: forecasts unmatched."""
        measured = super().measure
        if self.config.probability_matching and not with_baselines:
            plain = self.config.model_copy(update={"probability_matching": 0.0})
            measured = dataclasses.replace(self, config=plain).measure
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
        if self._moves:  # The motion is the forecast's own, and found once.
            frames, mask = self.read({}, inputs)
            motion = find_motion(frames, mask)
            found["advection"] = self._carried_on(last, mask, motion)
        found = {name: self._without_margin(of) for name, of in found.items()}
        given = {name: batch[name] for name in (OPTICAL_FLOW, S_PROG) if name in batch}
        return found | {k: inner(of, self.facts.margin) for k, of in given.items()}

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
        model = self.outputs(variables, inputs, target)["model"][0]
        pixels = {
            "observed": jnp.concatenate([given, target], axis=1),
            "model": model.frames,
            **self.baselines(inputs, batch),
        }
        scale = self.facts.rain_scale
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


def probability_matched(frames: Video, last: Frame) -> Video:
    """Frames with the values of another, the largest where theirs are largest.

    Frames `[B, T, H, W, 1]` each get the values of `last` `[B, H, W, 1]`, in the order
    of their own; of equal ones those come first where `last` is larger, so that what is
    dry in both stays dry.

    Ebert 2001, 10.1175/1520-0493(2001)129<2461:AOAPMS>2.0.CO;2.
    """
    values = last.reshape(last.shape[0], 1, -1)
    order = (frames.reshape(*frames.shape[:2], -1) + 1e-3 * values) / 1.001
    # By a histogram: XLA sorts indices ten times as slowly on a CPU.
    bins = jnp.minimum(order * _MATCHING_BINS, _MATCHING_BINS - 1).astype(int)

    def matched(bins: Array, values: Array) -> Array:
        counts = jnp.zeros(_MATCHING_BINS, int).at[bins].add(1)
        ranks = jnp.cumsum(counts) - (counts + 1) // 2  # In the middle of a bin.
        return values[jnp.clip(ranks, 0)][bins]

    of_clip = jax.vmap(matched, in_axes=(0, None))
    return jax.vmap(of_clip)(bins, jnp.sort(values)[:, 0]).reshape(frames.shape)


@jax.custom_jvp
def _to_pixels(values: Video) -> Video:
    """Values cut off at 0 and 1; a small gradient leads back from beyond."""
    return jnp.clip(values, 0, 1)


@_to_pixels.defjvp
def _to_pixels_jvp(primals: Any, tangents: Any) -> Any:
    (values,), (change,) = primals, tangents
    inside = (values >= 0) & (values <= 1)
    return _to_pixels(values), jnp.where(inside, change, 0.01 * change)
