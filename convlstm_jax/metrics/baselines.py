"""Predictions that need no learning; a model is worth what it gains over them."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from convlstm_jax.types import Video

PredictedVideo = Float[Array, "B T_out H W C"]
"""A clip as long as was asked for, not as long as the inputs."""

OUTPUTS = ("model", "reconstruction")
"""Contenders that a model gives out; all others are baselines."""

_LABELS = {
    "reconstruction": "reconstruction of the inputs",
    "copy_last": "copy last frame",
    "zeros": "all zeros",
    "majority": "most frequent class",
}


def contender_label(key: str) -> str:
    """What plots and tables call the model or a baseline."""
    return _LABELS.get(key, key.replace("_", " "))


def copy_last_frame(inputs: Video, num_frames: int) -> PredictedVideo:
    """Predicts that nothing moves: repeats the last given frame.

    Like all baselines it turns `[B, T, H, W, C]`, T at least 1, into
    `[B, num_frames, H, W, C]` of the same dtype.
    """
    _check(inputs, num_frames)
    return jnp.repeat(inputs[:, -1:], num_frames, axis=1)


def zeros(inputs: Video, num_frames: int) -> PredictedVideo:
    """Predicts black frames, which already beats copying on Moving MNIST's MSE."""
    _check(inputs, num_frames)
    return jnp.zeros_like(
        inputs, shape=(inputs.shape[0], num_frames, *inputs.shape[2:])
    )


BASELINES: dict[str, Callable[[Video, int], PredictedVideo]] = {
    "copy_last": copy_last_frame,
    "zeros": zeros,
}
"""Name in reports and evaluation files → function of (inputs, num_frames)."""


def _check(inputs: Video, num_frames: int) -> None:
    if inputs.ndim != 5 or inputs.shape[1] < 1:
        raise ValueError(
            f"inputs has shape {inputs.shape}: it must be [B, T, H, W, C] with T at "
            "least 1"
        )
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}: it must be at least 1")
