"""The pictures of a task that tells classes: confusion matrix and classified clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.data.sources import ClipSource
from convlstm_jax.tasks.classification import ClassificationTask
from convlstm_jax.tasks.task import Variables
from convlstm_jax.training.sharding import replicated
from convlstm_jax.viz.classified_clips import classified_clips_strip
from convlstm_jax.viz.confusion_matrix import confusion_matrix


class ClassifiedClips(NamedTuple):
    """Some clips of a test set.

    Attributes:
      frames: uint8 `[N, T, H, W, C]`.
      labels: true classes `[N]`.
      probabilities: `[N, K]`, as the model has them.
    """

    frames: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def classified_clips(
    task: ClassificationTask,
    variables: Variables,
    source: ClipSource,
    count: int,
    mesh: Mesh,
) -> ClassifiedClips | None:
    """Clips spread evenly over a source, so that no class is missed, classified.

    All processes take part in the computation.
    """
    if not count:
        return None
    indices = np.linspace(0, len(source) - 1, count).round().astype(int)
    clips = [source[int(index)] for index in indices]
    frames = np.stack([clip["frames"] for clip in clips])
    labels = np.stack([clip["label"] for clip in clips])
    classify = jax.jit(task.classify, out_shardings=replicated(mesh))
    probabilities = jax.device_get(classify(variables, jnp.asarray(frames)))
    return ClassifiedClips(frames, labels, probabilities)


def draw_classification(
    task: ClassificationTask,
    clips: ClassifiedClips | None,
    results: Mapping[str, Any],
    folder: Path,
) -> list[tuple[str, Path]]:
    """Draws matrix and clips; (caption, file) in the report's order."""
    matrix = folder / "confusion_matrix.png"
    confusion_matrix(matrix, results["model"]["confusion"], task.classes)
    pictures = [("Confusion matrix of the test clips", matrix)]
    if clips is not None:
        strip = folder / "test_clips.png"
        classified_clips_strip(strip, *clips, task.classes)
        pictures.append(("Test clips, their true and predicted classes", strip))
    return pictures
