"""Turns and mirrors whole clips: rain may come from any side."""

import numpy as np


def turned_and_mirrored(
    clip: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """A clip in one of the symmetries of its frame, all of them equally probable.

    These are 8 where height and width are equal, else 4.

    Args:
      clip: what is `[T, H, W, C]` in it, frames and masks, is changed alike; the rest
        stays as it is. No array is written to.
      rng: where the draw comes from; the same state gives the same clip.

    Returns:
      The clip, in arrays of its own.
    """
    draw = int(rng.integers(8))
    return {
        name: _changed(values, draw) if values.ndim == 4 else values
        for name, values in clip.items()
    }


def _changed(video: np.ndarray, draw: int) -> np.ndarray:
    if draw & 1:
        video = video[:, ::-1]
    if draw & 2:
        video = video[:, :, ::-1]
    if draw & 4 and video.shape[1] == video.shape[2]:
        video = video.swapaxes(1, 2)
    return np.ascontiguousarray(video)
