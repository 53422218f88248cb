"""Makes every frame one size: cut out of its picture, resized, bytes."""

from pathlib import Path

import numpy as np
from PIL import Image

from convlstm_jax.errors import UserError


def check_crop_box(
    path: Path, crop_box: tuple[int, ...], size: tuple[int, int]
) -> None:
    """Checks that a box lies within the frames of a video.

    Args:
      path: the video.
      crop_box: (top, left, height, width), pixels; () for the whole frame.
      size: (width, height) of the frames, pixels.

    Raises:
      UserError: it does not.
    """
    if not crop_box:
        return
    top, left, height, width = crop_box
    if min(top, left) < 0 or min(height, width) < 1:
        raise UserError(
            f"crop_box is {crop_box}, but must be (top, left, height, width), the "
            "first two at least 0 and the last two at least 1."
        )
    if top + height > size[1] or left + width > size[0]:
        raise UserError(
            f"'{path}' has frames of {size[1]}x{size[0]} pixels (height x width), but "
            f"crop_box {crop_box} (top, left, height, width) reaches out of them."
        )


def fit_frame(
    frame: np.ndarray, height: int, width: int, crop_box: tuple[int, ...] = ()
) -> np.ndarray:
    """Cuts a box out of one frame, resizes it and makes it bytes.

    Args:
      frame: uint8, or floats in [0, 1], [H, W, C] of any size.
      height: H wanted.
      width: W wanted.
      crop_box: (top, left, height, width) of the part to be resized, which must lie
        within the frame; () for the whole frame.

    Returns:
      uint8 [height, width, C]. Shrinking takes means over areas (Pillow's box filter),
      growing interpolates linearly; each axis counts, one that grows decides.
    """
    if crop_box:
        top, left, box_height, box_width = crop_box
        frame = frame[top : top + box_height, left : left + box_width]
    if frame.dtype != np.uint8:
        frame = np.rint(np.asarray(frame, np.float32) * np.float32(255))
        frame = frame.astype(np.uint8)
    if frame.shape[:2] == (height, width):
        # A copy of a part, or the cache would keep the whole frame alive.
        return np.array(frame) if crop_box else frame
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    if frame.shape[-1] == 3:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(picture.resize((width, height), resampling))
    pictures = [
        Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resampling)
        for plane in np.moveaxis(frame, -1, 0)
    ]
    planes = [np.asarray(picture) for picture in pictures]
    return np.stack(planes, axis=-1)
