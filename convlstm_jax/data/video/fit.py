"""Decoded frames, and their conversion to the size and values asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from convlstm_jax.errors import UserError

# BT.601 luma. As green plus differences it leaves a grey pixel exactly as it is.
_RED_WEIGHT, _BLUE_WEIGHT = 0.299, 0.114


class SetupError(UserError):
    """A package is missing or the config is wrong; the film is not to blame."""


@dataclass(frozen=True)
class FrameSettings:
    """What determines the frames of a film; see the fields of `VideoConfig`."""

    height: int
    width: int
    channels: int
    crop_box: tuple[int, ...] = ()
    value_range: tuple[float, ...] = ()
    variable: str = ""

    def as_json(self) -> dict[str, Any]:
        """The settings with lists for tuples, as JSON has them."""
        box, values = list(self.crop_box), list(self.value_range)
        return {**vars(self), "crop_box": box, "value_range": values}


@dataclass(frozen=True, eq=False)
class Raw:
    """A decoded frame `[H, W, C]`: uint8, integers of more bits, or floats."""

    values: np.ndarray
    white: int = 255
    """The integer that is white; 0: unknown without a `value_range`."""
    scaled: bool = False
    """Whether `value_range` applies to 8-bit values too."""
    valid: np.ndarray | None = None
    """Where there is data, bool `[H, W]`; None: everywhere."""


@dataclass(frozen=True)
class Bad:
    """A frame that cannot be decoded, and a clause on why."""

    why: str


@dataclass(frozen=True, eq=False)
class Opened:
    """An open film, decoded when its frames are taken.

    `total` is the frames it should have, `rate` the frames per second (None: unknown),
    and `cut` why the file ends early, "" for a complete one.
    """

    frames: Iterator[Raw | Bad]
    total: int | None = None
    rate: float | None = None
    cut: str = ""


def fit(raw: Raw, settings: FrameSettings) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales, crops and resizes a decoded frame; a `ValueError` says what is wrong.

    Returns uint8 `[height, width, channels]`, 0 where there is no data; and a mask,
    bool `[height, width, 1]`, None: data everywhere.
    """
    frame = _resized(_channels(_unit_values(raw, settings), settings), settings)
    if raw.valid is None:
        return frame, None
    # A pixel has no data if any of the pixels it is made of has none.
    covered = np.where(raw.valid, np.uint8(255), np.uint8(0))[..., np.newaxis]
    mask = _resized(covered, settings) == 255
    return np.where(mask, frame, np.uint8(0)), mask


def _unit_values(raw: Raw, settings: FrameSettings) -> np.ndarray:
    """Bytes, or float32 in [0, 1]."""
    values, valid = raw.values, raw.valid
    if values.dtype == np.uint8 and not (raw.scaled and settings.value_range):
        return values
    if values.dtype.kind == "f":
        if valid is not None:
            values = np.where(valid[..., np.newaxis], values, 0)
        count = np.count_nonzero(~np.isfinite(values))
        if count:
            raise ValueError(
                f"{count} of {values.size} values are not finite (NaN or infinite); "
                "gaps must lie at the same pixels in all frames: fill the others"
            )
    if settings.value_range:
        low, high = settings.value_range
        scaled = (values.astype(np.float64) - low) / (high - low)
        return np.clip(scaled, 0, 1).astype(np.float32)
    white = 1 if values.dtype.kind == "f" else raw.white
    if not 0 <= values.min() <= values.max() <= white:
        raise ValueError(
            f"its values go from {values.min():g} to {values.max():g}: without "
            "config.data.value_range, which says what becomes 0 and 1, they must "
            + (f"be in 0 .. {white}" if white > 1 else "be uint8 or floats in [0, 1]")
        )
    return values.astype(np.float32) / np.float32(white)


def _channels(frame: np.ndarray, settings: FrameSettings) -> np.ndarray:
    check_channels(frame.shape[-1], settings.channels)
    if frame.shape[-1] == settings.channels:
        return frame
    if settings.channels == 3:
        return np.repeat(frame, 3, axis=-1)
    if frame.dtype == np.uint8:
        frame = frame.astype(np.float32) / np.float32(255)
    red, green, blue = frame[..., :1], frame[..., 1:2], frame[..., 2:]
    return green + _RED_WEIGHT * (red - green) + _BLUE_WEIGHT * (blue - green)


def check_channels(held: int, channels: int, what: str = "it") -> None:
    """Raises a ValueError if `held` channels cannot be converted."""
    if held != channels and {held, channels} != {1, 3}:
        wanted = "1 or 3" if held in (1, 3) else str(held)
        raise ValueError(
            f"{what} has {held} channels: config.data.channels is {channels} and must "
            f"be {wanted}"
        )


def _resized(frame: np.ndarray, settings: FrameSettings) -> np.ndarray:
    """Crops a frame and resizes it, as bytes.

    Pillow's box filter (means over areas) if neither axis grows, else bilinear.
    """
    if settings.crop_box:
        top, left, box_height, box_width = settings.crop_box
        frame = frame[top : top + box_height, left : left + box_width]
    if frame.dtype != np.uint8:
        frame = np.rint(frame * np.float32(255)).astype(np.uint8)
    size = settings.width, settings.height
    if frame.shape[:2] == size[::-1]:
        return frame
    shrinks = size[1] <= frame.shape[0] and size[0] <= frame.shape[1]
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    planes = [frame] if frame.shape[-1] == 3 else np.moveaxis(frame, -1, 0)
    pictures = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]
    resized = [np.asarray(picture.resize(size, resampling)) for picture in pictures]
    return resized[0] if frame.shape[-1] == 3 else np.stack(resized, axis=-1)
