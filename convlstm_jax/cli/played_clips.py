"""What the player of the report shows: the clips that are drawn, and the worst ones."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from convlstm_jax.cli.clip_forecasts import Clip, ClipForecast
from convlstm_jax.evaluation.result import EvaluationResult
from convlstm_jax.metrics.registry import format_value
from convlstm_jax.tasks.task import VideoTask
from convlstm_jax.viz.player import PlayerClip, forecast_clip, nowcast_clip

_DRAWN = "First test sequences"
_WORST = "Worst by MSE"
_PLACES = ("highest", "second highest", "third highest")


def forecast_player(
    task: VideoTask,
    outputs: Mapping[str, Clip],
    worst: Iterable[ClipForecast],
    result: EvaluationResult,
) -> list[PlayerClip]:
    """The player of a task that gives out frames.

    Args:
      task: the task.
      outputs: each output of the model for the clips drawn, parts `[N, T, H, W, C]`.
      worst: the clips of `result.worst_clips`, in this order.
      result: of the evaluation.
    """
    clips = []
    for output, parts in outputs.items():
        reconstruction = output in task.reconstructions
        for index, clip in enumerate(zip(*parts, strict=True)):
            name = str(result.drawn_clips[index])
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
                str(result.worst_clips[rank].name),
                *forecast.outputs["model"],
                group=_WORST,
                note=_note(result, rank),
                reconstruction="model" in task.reconstructions,
            )
        )
    return clips


def nowcast_player(
    nowcasts: Sequence[Mapping[str, np.ndarray]],
    result: EvaluationResult,
    minutes_per_frame: float,
) -> list[PlayerClip]:
    """The player of nowcasts.

    Args:
      nowcasts: for each clip "observed", "mask" and the contenders, see
        `cli.radar_pictures.example_nowcasts`; those of `result.drawn_clips`, then
        those of `result.worst_clips`.
      result: of the evaluation.
      minutes_per_frame: time from one frame to the next.
    """
    num_drawn = len(result.drawn_clips)
    names = [*result.drawn_clips, *(clip.name for clip in result.worst_clips)]
    return [
        nowcast_clip(
            str(name),
            clip["observed"],
            {key: clip[key] for key in clip.keys() - {"observed", "mask"}},
            clip["mask"],
            minutes_per_frame=minutes_per_frame,
            group=_DRAWN if place < num_drawn else _WORST,
            note="" if place < num_drawn else _note(result, place - num_drawn),
        )
        for place, (name, clip) in enumerate(zip(names, nowcasts, strict=True))
    ]


def _note(result: EvaluationResult, rank: int) -> str:
    """What is said of one of the worst clips, 0 being the worst of all."""
    place = _PLACES[rank] if rank < len(_PLACES) else f"{rank + 1}th highest"
    mse = format_value(result.worst_clips[rank].mse)
    return (
        f"The {place} MSE of all that were evaluated: {mse} on average over its frames "
        f"(of all: {format_value(result.model.total['mse'])})."
    )
