"""Forecasts of single clips, on the host: what is drawn, played and judged by VMAF."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.data.sources import ClipSource
from convlstm_jax.tasks.task import Batch, Variables, VideoTask, split_batch
from convlstm_jax.training.sharding import replicated

# Clips that are forecast together. One number for all, whatever the clips are for: the
# forecast is compiled once.
_BATCH_SIZE = 4

# Inputs, truth and prediction, each [T, H, W, C].
Clip = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ClipForecast:
    """What a model gave out for one clip.

    Attributes:
      index: place of the clip in its source.
      condition: index of its condition, None where clips have none.
      outputs: each output of the model, "model" among them.
    """

    index: int
    condition: int | None
    outputs: dict[str, Clip]


def forecast_clips(
    task: VideoTask,
    variables: Variables,
    source: ClipSource,
    indices: Sequence[int],
    mesh: Mesh,
) -> Iterator[ClipForecast]:
    """Forecasts the clips at these places of a source, in their order, a few at a time.

    All processes take part in the computation, and must take all that comes.
    """
    forecast = _compiled(task, mesh)
    for start in range(0, len(indices), _BATCH_SIZE):
        chosen = indices[start : start + _BATCH_SIZE]
        clips = [source[index] for index in chosen]
        clips += clips[-1:] * (_BATCH_SIZE - len(clips))
        batch = {
            key: jnp.asarray(np.stack([clip[key] for clip in clips]))
            for key in clips[0].keys() & {"frames", "targets"}
        }
        inputs, outputs = jax.device_get(forecast(variables, batch))
        for row, index in enumerate(chosen):
            condition = clips[row].get("condition")
            yield ClipForecast(
                index,
                None if condition is None else int(condition),
                {
                    name: (inputs[row], truth[row], prediction[row])
                    for name, (truth, prediction) in outputs.items()
                },
            )


@functools.cache
def _compiled(task: VideoTask, mesh: Mesh):
    def forecast(variables: Variables, batch: Batch):
        inputs, target = split_batch(task, batch)
        outputs = task.outputs(variables, inputs, target)
        return inputs, {
            name: (truth, output.frames) for name, (output, truth) in outputs.items()
        }

    return jax.jit(forecast, out_shardings=replicated(mesh))
