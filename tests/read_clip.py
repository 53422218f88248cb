"""Reads back a clip that a test has written."""

import numpy as np

from convlstm_jax.data.video.film import open_film
from convlstm_jax.data.video.fit import FrameSettings


def read_clip(path):
    """float32 [T, H, W, C] in [0, 1]; grey if no frame has any colour."""
    if path.suffix == ".npy":
        return np.load(path)
    opened = open_film(path, FrameSettings(1, 1, 3))
    frames = np.stack([raw.values for raw in opened.frames])
    count = 1 if (frames == frames[..., :1]).all() else 3
    return frames[..., :count] / np.float32(255)
