"""The pictures of a task that gives out frames: what was given, true and predicted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from convlstm_jax.cli.clip_forecasts import Clip, forecast_clips
from convlstm_jax.data.sources import ClipSource
from convlstm_jax.tasks.task import Variables, VideoTask
from convlstm_jax.training.writers import Writers
from convlstm_jax.viz.comparison_gif import comparison_gif, comparison_grid_gif
from convlstm_jax.viz.curves import metric_curves
from convlstm_jax.viz.film_strip import film_strip
from convlstm_jax.viz.gif import gif_bytes
from convlstm_jax.viz.space_time_correlation import draw_space_time_correlation

# Frames in a row of a film strip: all of them, in the roll-outs of every experiment.
_MOST_COLUMNS = 24

# Inputs, truth and prediction of some clips, each [N, T, H, W, C].
_Clips = Clip


def example_outputs(
    task: VideoTask, variables: Variables, source: ClipSource, count: int, mesh: Mesh
) -> dict[str, _Clips]:
    """Inputs, truth and prediction of the first clips, for each output of the model.

    All processes take part in the computation.
    """
    forecasts = list(forecast_clips(task, variables, source, range(count), mesh))
    if not forecasts:
        return {}
    inputs, truths, predictions = (
        {
            name: np.stack([forecast.outputs[name][part] for forecast in forecasts])
            for name in forecasts[0].outputs
        }
        for part in range(3)
    )
    return {name: (inputs[name], truths[name], predictions[name]) for name in inputs}


def draw_validation(
    task: VideoTask,
    outputs: Mapping[str, _Clips],
    step: int,
    writers: Writers,
    folder: Path,
) -> None:
    """One film strip on disk, and one GIF a clip in TensorBoard: truth | prediction."""
    inputs, truth, prediction = outputs["model"]
    film_strip(
        folder / f"validation_{step:07d}.png",
        inputs[0], truth[0], prediction[0], title=f"step {step}",
        reconstruction="model" in task.reconstructions,
    )  # fmt: skip
    for index in range(len(inputs)):
        frames = np.concatenate(
            [
                np.concatenate([inputs[index], inputs[index]], axis=2),
                np.concatenate([truth[index], prediction[index]], axis=2),
            ]
        )
        writers.write_gif(step, f"truth_and_prediction/{index}", gif_bytes(frames, 5))


def draw_evaluation(
    task: VideoTask,
    outputs: Mapping[str, _Clips],
    results: Mapping[str, Any],
    folder: Path,
) -> list[tuple[str, Path]]:
    """Draws the test clips and the curves; (caption, file) in the report's order."""
    pictures = []

    def add(caption: str, name: str) -> Path:
        pictures.append((caption, folder / name))
        return folder / name

    metric_curves(
        add("Metrics by lead time", "lead_time.png"), results["per_lead_time"]
    )
    if outputs and outputs["model"][1].shape[1] > 1:
        _, truth, prediction = outputs["model"]
        draw_space_time_correlation(
            add(
                "Space–time correlation of the test sequences below: how alike points "
                "are that lie so far apart in space and time",
                "space_time_correlation.png",
            ),
            {"truth": truth, "prediction": prediction},
        )
    for output, clips in outputs.items():
        reconstruction = output in task.reconstructions
        what = "reconstruction" if reconstruction else "prediction"
        prefix = "test" if output == "model" else output
        comparison_grid_gif(
            add(f"Test sequences: truth and {what}", f"{prefix}.gif"),
            *clips, reconstruction=reconstruction,
        )  # fmt: skip
        for index in range(len(clips[0])):
            clip = [part[index] for part in clips]
            name = f"{prefix}_{index:02d}"
            caption = f"Test sequence {index}"
            if reconstruction:
                caption += ": its inputs in reverse order, and their reconstruction"
            film_strip(
                add(caption, f"{name}.png"),
                *clip,
                reconstruction=reconstruction,
                max_columns=_MOST_COLUMNS,
            )
            comparison_gif(folder / f"{name}.gif", *clip, reconstruction=reconstruction)
    return pictures
