"""VMAF among the figures of an evaluation, where a machine can measure it."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.cli.clip_forecasts import ClipForecast, forecast_clips
from convlstm_jax.data.sources import Sources
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.metrics.vmaf import INSTALL_HINT, SMALLEST_SIDE, find_ffmpeg, vmaf
from convlstm_jax.tasks.task import Variables, VideoTask

_log = logging.getLogger(__name__)


def add_vmaf(
    results: dict[str, Any],
    task: VideoTask,
    variables: Variables,
    sources: Sources,
    mesh: Mesh,
    *,
    num_sequences: int,
    num_vmaf_sequences: int,
) -> None:
    """Adds "vmaf" to the figures: in total, per lead time and per condition.

    What the model gives out is measured, and the baselines. Where there is no ffmpeg
    for it, the log says how to get one, and where one fails, what it said: the
    evaluation stands without VMAF. All processes take part; the first one measures.

    Args:
      results: of the evaluation, "data" included; changed in place.
      task: what was evaluated.
      variables: the model's.
      sources: the data.
      mesh: the devices.
      num_sequences: test clips that were evaluated.
      num_vmaf_sequences: how many of them are measured, evenly spread.
    """
    count = min(num_vmaf_sequences, num_sequences)
    if not count:
        return
    if min(sources.height, sources.width) < SMALLEST_SIDE:
        _log.info(
            "no VMAF: frames are of %d×%d pixels, and it needs at least %d of both",
            sources.height,
            sources.width,
            SMALLEST_SIDE,
        )
        return
    ffmpeg = find_ffmpeg() if jax.process_index() == 0 else None
    if jax.process_index() == 0 and ffmpeg is None:
        _log.info("no VMAF, which needs an ffmpeg with libvmaf: %s", INSTALL_HINT)
        if jax.process_count() == 1:
            return
    indices = np.linspace(0, num_sequences - 1, count).round().astype(int)
    scores: dict[str, list[np.ndarray]] = {}
    clip_conditions: list[int | None] = []
    for forecast in forecast_clips(
        task, variables, sources.test, indices.tolist(), mesh
    ):
        if ffmpeg is None:  # The others of several processes wait for this one.
            continue
        try:
            of_clip = _scores(ffmpeg, forecast)
        except UserError as error:
            _log.warning("no VMAF: %s", error)
            ffmpeg, scores = None, {}
            continue
        clip_conditions.append(forecast.condition)
        for name, values in of_clip.items():
            scores.setdefault(name, []).append(values)
    if not scores:
        return
    results["data"]["num_vmaf_sequences"] = count
    for name, rows in scores.items():
        values = np.stack(rows)
        results[name]["vmaf"] = float(values.mean())
        results["per_lead_time"][name]["vmaf"] = values.mean(axis=0).tolist()
        for index, condition in enumerate(sources.conditions):
            of_condition = results["per_condition"].get(condition)
            if of_condition is not None:
                chosen = values[[index == other for other in clip_conditions]]
                figure = float(chosen.mean()) if len(chosen) else None
                of_condition[name]["vmaf"] = figure


def _scores(ffmpeg: str, forecast: ClipForecast) -> dict[str, np.ndarray]:
    """VMAF of each frame, of what the model gave out and of the baselines."""
    scores = {
        name: vmaf(ffmpeg, prediction, truth)
        for name, (_, truth, prediction) in forecast.outputs.items()
    }
    inputs, truth, _ = forecast.outputs["model"]
    for name, baseline in BASELINES.items():
        prediction = baseline(jnp.asarray(inputs[None]), len(truth))[0]
        scores[name] = vmaf(ffmpeg, np.asarray(prediction), truth)
    return scores
