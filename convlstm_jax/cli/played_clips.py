"""What the player of the report shows: the clips that are drawn, and the worst ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from convlstm_jax.cli.clip_forecasts import Clip, ClipForecast
from convlstm_jax.tasks.task import VideoTask
from convlstm_jax.viz.metric_names import format_value
from convlstm_jax.viz.radar_player import nowcast_clip
from convlstm_jax.viz.report_player import PlayerClip, forecast_clip

_DRAWN = "First test sequences"
_WORST = "Worst by MSE"
_PLACES = ("highest", "second highest", "third highest")


def forecast_player(
    task: VideoTask,
    outputs: Mapping[str, Clip],
    worst: Iterable[ClipForecast],
    results: Mapping[str, Any],
) -> list[PlayerClip]:
    """The player of a task that gives out frames.

    Args:
      task: the task.
      outputs: each output of the model for the clips drawn, parts `[N, T, H, W, C]`.
      worst: the clips of `results["worst_clips"]`, in this order.
      results: of the evaluation.
    """
    clips = []
    for output, parts in outputs.items():
        reconstruction = output in task.reconstructions
        for index, clip in enumerate(zip(*parts, strict=True)):
            name = f"Test sequence {index}"
            clips.append(
                forecast_clip(
                    name if output == "model" else f"{name}, {output}",
                    *clip,
                    group=_DRAWN,
                    reconstruction=reconstruction,
                )
            )
    for rank, forecast in enumerate(worst):
        clips.append(
            forecast_clip(
                f"Test sequence {forecast.index}",
                *forecast.outputs["model"],
                group=_WORST,
                note=_note(results, rank),
                reconstruction="model" in task.reconstructions,
            )
        )
    return clips


def nowcast_player(
    nowcasts: Sequence[Mapping[str, np.ndarray]],
    indices: Sequence[int],
    num_drawn: int,
    results: Mapping[str, Any],
    minutes_per_frame: float,
) -> list[PlayerClip]:
    """The player of nowcasts.

    Args:
      nowcasts: for each clip "observed", "mask" and the contenders, see
        `cli.radar_pictures.example_nowcasts`.
      indices: places of the clips in the test set.
      num_drawn: how many are drawn; those of `results["worst_clips"]` follow.
      results: of the evaluation.
      minutes_per_frame: time from one frame to the next.
    """
    return [
        nowcast_clip(
            f"Test sequence {index}",
            clip["observed"],
            {name: clip[name] for name in clip.keys() - {"observed", "mask"}},
            clip["mask"],
            minutes_per_frame=minutes_per_frame,
            group=_DRAWN if place < num_drawn else _WORST,
            note="" if place < num_drawn else _note(results, place - num_drawn),
        )
        for place, (index, clip) in enumerate(zip(indices, nowcasts, strict=True))
    ]


def _note(results: Mapping[str, Any], rank: int) -> str:
    """What is said of one of the worst clips, 0 being the worst of all."""
    place = _PLACES[rank] if rank < len(_PLACES) else f"{rank + 1}th highest"
    mse = format_value(results["worst_clips"][rank]["mse"])
    return (
        f"The {place} MSE of all that were evaluated: {mse} on average over its frames "
        f"(of all: {format_value(results['model']['mse'])})."
    )
