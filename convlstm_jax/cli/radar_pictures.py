"""What a nowcast's evaluation has besides: optical flow, and pictures of rain."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.data.optical_flow import WithOpticalFlow, missing_packages
from convlstm_jax.data.sources import ClipSource
from convlstm_jax.metrics.baselines import copy_last_frame
from convlstm_jax.metrics.forecast_skill import score_name
from convlstm_jax.tasks.nowcast import OPTICAL_FLOW, NowcastTask
from convlstm_jax.tasks.task import Batch, Variables, split_batch
from convlstm_jax.training.sharding import replicated
from convlstm_jax.viz.curves import metric_curves
from convlstm_jax.viz.radar_pictures import radar_strip

_log = logging.getLogger(__name__)

# Rain rates, from the lowest on, that curves are drawn for: more are hard to read.
_DRAWN_RATES = 3


def with_optical_flow(task: NowcastTask, source: ClipSource) -> ClipSource:
    """The clips with an extrapolation beside them, or as they are without pysteps."""
    missing = missing_packages()
    if missing:
        _log.info(
            "no baseline 'optical_flow', as %s not installed: pip install -r "
            "requirements-radar.txt",
            " and ".join(missing) + (" is" if len(missing) == 1 else " are"),
        )
        return source
    return WithOpticalFlow(
        source, task.num_input_frames, task.num_output_frames, task.scale
    )


def example_nowcasts(
    task: NowcastTask, variables: Variables, source: ClipSource, count: int, mesh: Mesh
) -> list[dict[str, np.ndarray]]:
    """The first clips as rain rates `[T, H, W]`, mm/h, and what was forecast.

    Returns:
      For each clip "observed", "mask" and the contenders. All processes take part in
      the computation.
    """
    if not count:
        return []
    clips = [source[index] for index in range(count)]
    names = {"frames", "mask", OPTICAL_FLOW} & clips[0].keys()
    batch = {
        name: jnp.asarray(np.stack([clip[name] for clip in clips])) for name in names
    }

    def run(variables: Variables, batch: Batch):
        inputs, target = split_batch(task, batch)
        forecast = task.forecast(variables, inputs, task.num_output_frames)
        pixels = {
            "observed": jnp.concatenate([inputs, target], axis=1),
            "model": forecast.frames,
            "persistence": copy_last_frame(inputs, task.num_output_frames),
        }
        if OPTICAL_FLOW in batch:
            pixels[OPTICAL_FLOW] = batch[OPTICAL_FLOW]
        return {
            name: task.scale.rain_mm_per_h(frames)[..., 0]
            for name, frames in pixels.items()
        }

    compiled = jax.jit(run, out_shardings=replicated(mesh))
    rain = jax.device_get(compiled(variables, batch))
    length = task.num_input_frames + task.num_output_frames
    return [
        {
            "mask": clips[index]["mask"][:length, ..., 0],
            **{name: rain[name][index] for name in rain},
        }
        for index in range(count)
    ]


def draw_nowcasts(
    task: NowcastTask,
    clips: list[dict[str, np.ndarray]],
    results: Mapping[str, Any],
    folder: Path,
    minutes_per_frame: float,
) -> list[tuple[str, Path]]:
    """Draws the test clips and the curves; (caption, file) in the report's order."""
    pictures = []
    for index, clip in enumerate(clips):
        picture = folder / f"test_{index:02d}.png"
        order = ("model", OPTICAL_FLOW, "persistence")
        radar_strip(
            picture,
            clip["observed"],
            {name: clip[name] for name in order if name in clip},
            clip["mask"],
            num_inputs=task.num_input_frames,
            minutes_per_frame=minutes_per_frame,
        )
        pictures.append((f"Test sequence {index}: observed above forecast", picture))
    curves = folder / "lead_time.png"
    drawn = {"mse", "rainfall_mse", "correlation"}
    for rate in task.thresholds_mm_per_h[:_DRAWN_RATES]:
        drawn |= {score_name(score, rate) for score in ("csi", "pod", "far")}
        drawn |= {score_name("fss", rate, size) for size in task.window_sizes[:1]}
    metric_curves(
        curves,
        {
            name: {key: values for key, values in metrics.items() if key in drawn}
            for name, metrics in results["per_lead_time"].items()
        },
        minutes_per_frame=minutes_per_frame,
    )
    return [*pictures, ("Skill by lead time", curves)]
