"""The data sets by name."""

from collections.abc import Callable
from typing import Any

from convlstm_jax.data.bubbles import bubbles_sources
from convlstm_jax.data.labelled_clips import labelled_clips_sources
from convlstm_jax.data.radar import radar_sources
from convlstm_jax.data.rain_cells import rain_cells_sources
from convlstm_jax.data.sources import (
    Sources,
    moving_mnist_sources,
    moving_squares_sources,
)
from convlstm_jax.data.theft_videos import theft_videos_sources
from convlstm_jax.data.video_folder import video_folder_sources
from convlstm_jax.errors import UserError

SOURCES: dict[str, Callable[..., Sources]] = {
    "moving_mnist": moving_mnist_sources,
    "moving_squares": moving_squares_sources,
    "bubbles": bubbles_sources,
    "theft_videos": theft_videos_sources,
    "labelled_clips": labelled_clips_sources,
    "video_folder": video_folder_sources,
    "rain_cells": rain_cells_sources,
    "radar": radar_sources,
}
"""The data sets by name; each takes num_frames, seed and fields of its own."""


def make_sources(name: str, *, num_frames: int, seed: int, **fields: Any) -> Sources:
    """Opens the data set of a name.

    Args:
      name: a key of `SOURCES`.
      num_frames: frames per clip, input and output together.
      seed: seed of whatever is random in the training split.
      **fields: the fields of this data set, e.g. those of `moving_mnist_sources`.

    Returns:
      The splits.

    Raises:
      UserError: the name is unknown, or the data set objects to a field.
    """
    if name not in SOURCES:
        raise UserError(f"data.name is {name!r}, but must be one of {sorted(SOURCES)}.")
    return SOURCES[name](num_frames=num_frames, seed=seed, **fields)
