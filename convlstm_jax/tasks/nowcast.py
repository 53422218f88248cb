"""Nowcasting: the next radar frames, scored as rain, where there is data."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlstm_jax.array_types import PerExample, Video
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, num_samples
from convlstm_jax.metrics.baselines import copy_last_frame
from convlstm_jax.metrics.forecast_skill import (
    skill_sums,
    summarize_skill,
)
from convlstm_jax.metrics.pixel import absolute_error, squared_error
from convlstm_jax.metrics.registry import none_if_nan
from convlstm_jax.rain import RainScale
from convlstm_jax.tasks.forecast import ForecastTask
from convlstm_jax.tasks.losses import Forecast
from convlstm_jax.tasks.rain_losses import HKO_WEIGHTS, rain_loss, rain_weight
from convlstm_jax.tasks.task import Batch, Variables, split_batch, split_clip

OPTICAL_FLOW = "optical_flow"
"""Key of a batch under which the host may lay an extrapolation to compare with."""


_SCALE = RainScale()

# Pixels nearer to 0 or 1 have logits from which there is no way back.
_FAINTEST = 0.02


@dataclass(frozen=True)
class NowcastTask(ForecastTask):
    """Predicts the last frames of a radar clip at once from the ones before.

    Batches have a "mask" beside the "frames", 1 where there is data: nothing else
    counts, in loss and figures alike.

    Attributes:
      loss: a key of `tasks.rain_losses.RAIN_LOSSES`.
      from_last_frame: whether the logits of the last given frame are added to the
        model's, which then has only the change to predict: with a `first_logit` of 0
        it begins at persistence, and learns in minutes what else takes hours.
      scale: what the pixels mean.
      rain_weights: (rate in mm/h, weight of a pixel from it on), rising, for the
        weighted losses.
      thresholds_mm_per_h: rain rates of the contingency tables.
      window_sizes: sides of the windows of the fractions skill score, pixels.
    """

    loss: str = "b_mse"
    from_last_frame: bool = False
    scale: RainScale = _SCALE
    rain_weights: tuple[tuple[float, float], ...] = HKO_WEIGHTS
    thresholds_mm_per_h: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0, 30.0)
    window_sizes: tuple[int, ...] = (5,)

    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """See `VideoTask`; any number of frames, whatever was trained."""
        forecast = super().forecast(variables, inputs, num_frames)
        if not self.from_last_frame or forecast.logits is None:
            return forecast
        last = jnp.clip(inputs[:, -1:], _FAINTEST, 1 - _FAINTEST)
        logits = forecast.logits + jnp.log(last) - jnp.log1p(-last)
        return Forecast(jax.nn.sigmoid(logits), logits)

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`; uses neither randomness nor the step."""
        del key, step
        inputs, target = split_batch(self, batch)
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        return self._loss(forecast, target, self._mask(batch)), {}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Task`; the baselines are persistence and what the batch brings along."""
        inputs, target = split_batch(self, batch)
        mask = self._mask(batch)
        forecast = self.forecast(variables, inputs, self.num_output_frames)
        contenders = {"model": self._figures(forecast.frames, target, mask)}
        if with_baselines:
            persistence = copy_last_frame(inputs, self.num_output_frames)
            contenders["persistence"] = self._figures(persistence, target, mask)
            if OPTICAL_FLOW in batch:
                flow = batch[OPTICAL_FLOW]
                contenders[OPTICAL_FLOW] = self._figures(flow, target, mask)
        else:
            loss = self._loss(forecast, target, mask)
            shape = (loss.shape[0], self.num_output_frames)
            contenders["model"]["loss"] = jnp.broadcast_to(loss[:, None], shape)
        return contenders

    def summarize(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """See `Task` and `metrics.forecast_skill.summarize_skill`.

        "mse" and "mae" are summed over the pixels of a frame that hold data, those
        per pixel divided by their number.
        """
        del frame_shape
        sums = {
            name: np.asarray(value, np.float64) for name, value in total["sums"].items()
        }
        count = num_samples(total)
        skill = summarize_skill(
            total,
            thresholds_mm_per_h=self.thresholds_mm_per_h,
            window_sizes=self.window_sizes,
        )
        pixels = sums["moments"][:, 0].sum()
        figures: dict[str, float | None] = {}
        per_lead_time: dict[str, list[float | None]] = {}
        for name in sums.keys() & {"mse", "mae", "loss"}:
            figures[name] = float(sums[name].mean() / count)
            per_lead_time[name] = (sums[name] / count).tolist()
        for name in ("mse", "mae"):
            per_pixel = sums[name].sum() / pixels if pixels else np.nan
            figures[f"{name}_per_pixel"] = none_if_nan(per_pixel)
        return dataclasses.replace(
            skill,
            total={**figures, **skill.total},
            per_lead_time={**per_lead_time, **skill.per_lead_time},
        )

    def _mask(self, batch: Batch) -> Video:
        """The mask of the frames to predict, `[B, T, H, W, C]` of 0 and 1."""
        mask = batch["mask"].astype(jnp.float32)
        return split_clip(mask, self.num_input_frames, self.num_output_frames)[1]

    def _loss(self, forecast: Forecast, target: Video, mask: Video) -> PerExample:
        weight = rain_weight(self.scale.rain_mm_per_h(target), self.rain_weights)
        return rain_loss(self.loss, forecast, target, mask, weight)

    def _figures(self, prediction: Video, target: Video, mask: Video):
        # Where there is no data, both are no rain: no difference.
        prediction = jnp.where(mask > 0, prediction, 0.0)
        target = jnp.where(mask > 0, target, 0.0)
        skill = skill_sums(
            self.scale.rain_mm_per_h(prediction),
            self.scale.rain_mm_per_h(target),
            mask,
            thresholds_mm_per_h=self.thresholds_mm_per_h,
            window_sizes=self.window_sizes,
        )
        return {
            "mse": squared_error(prediction, target),
            "mae": absolute_error(prediction, target),
            **skill,
        }
