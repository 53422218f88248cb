"""Turns float frames of any number of channels into pixels that can be drawn."""

import math

import numpy as np
from PIL import Image

from convlstm_jax.errors import UserError


def to_pixels(frames: np.ndarray) -> np.ndarray:
    """Converts a clip into eight-bit RGB or grey pixels.

    Values are clipped to [0, 1] and rounded to the nearest of 256 levels, so that
    x / 255 comes back as x. NaN is drawn as 0. Of clips with neither one nor three
    channels the first channel is drawn.

    Args:
      frames: [T, H, W, C] or [T, H, W], floats in [0, 1], T, H, W and C at least 1.

    Returns:
      uint8 [T, H, W, 1] or [T, H, W, 3].

    Raises:
      UserError: The array has another number of axes or an empty one.
    """
    frames = np.asarray(frames)
    if frames.ndim not in (3, 4) or 0 in frames.shape:
        raise UserError(
            f"frames has the shape {frames.shape}, but a clip must be [T, H, W] or "
            "[T, H, W, C] with no empty axis."
        )
    if frames.ndim == 3:
        frames = frames[..., np.newaxis]
    if frames.shape[-1] not in (1, 3):
        frames = frames[..., :1]
    values = np.nan_to_num(frames.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def check_scale(scale: int) -> None:
    """Raises a `UserError` unless the scale is a whole number of at least 1."""
    if scale != int(scale) or scale < 1:
        raise UserError(f"scale is {scale}, but must be a whole number of at least 1.")


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Repeats every pixel of [T, H, W, C] `scale` times along H and W."""
    check_scale(scale)
    return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def fit(pixels: np.ndarray, target_size: int) -> np.ndarray:
    """Brings frames near a size without blurring small ones.

    Small frames are enlarged by a whole factor, pixel by pixel; frames of more than
    twice the target are shrunk by a whole factor, averaging.

    Args:
      pixels: uint8 [T, H, W, C].
      target_size: Wanted length of the longer side, pixels.

    Returns:
      uint8 [T, H', W', C].
    """
    longer = max(pixels.shape[1:3])
    if longer < 2 * target_size:
        return enlarge(pixels, max(1, round(target_size / longer)))
    factor = math.ceil(longer / (1.5 * target_size))
    return np.stack(
        [
            np.asarray(to_image(frame).reduce(factor)).reshape(
                -(-frame.shape[0] // factor), -(-frame.shape[1] // factor), -1
            )
            for frame in pixels
        ]
    )


def to_image(frame: np.ndarray) -> Image.Image:
    """Wraps one frame, uint8 [H, W, 1 or 3], as a Pillow image (mode L or RGB)."""
    if frame.shape[-1] == 1:
        return Image.fromarray(np.ascontiguousarray(frame[..., 0]))
    return Image.fromarray(np.ascontiguousarray(frame))
