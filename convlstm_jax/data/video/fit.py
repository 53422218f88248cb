"""Decoded frames, and how they become frames of the asked size."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convlstm_jax.errors import UserError

# BT.601 luma. As green plus differences it leaves a grey pixel exactly as it is.
_RED_WEIGHT, _BLUE_WEIGHT = 0.299, 0.114


class SetupError(UserError):
    """No fault of the film: a package is missing, or the config asks for too much."""


@dataclass(frozen=True)
class FrameSettings:
    """What shapes the frames of a film; see the fields of `VideoConfig`."""

    height: int
    width: int
    channels: int
    crop_box: tuple[int, ...] = ()
    value_range: tuple[float, ...] = ()
    variable: str = ""

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, eq=False)
class Raw:
    """A decoded frame.

    Attributes:
        values: `[H, W, C]`: uint8, integers of more bits, or floats.
        white: the integer that is shown as white; 0: a `value_range` has to tell.
        scaled: whether `value_range` holds for 8-bit values too.
        valid: bool `[H, W]`, where there is data; None: everywhere.
    """

    values: np.ndarray
    white: int = 255
    scaled: bool = False
    valid: np.ndarray | None = None


@dataclass(frozen=True)
class Bad:
    """A frame that cannot be had, and a clause on why."""

    why: str


@dataclass(frozen=True, eq=False)
class Opened:
    """A film that is open, decoded as its frames are taken.

    Attributes:
        size: (height, width) of its frames as they are shown, pixels.
        frames: the frames in order.
        total: frames it should have; None: it does not tell.
        rate: frames per second; None: it does not tell.
        cut: why the file ends early; "" for a whole one.
    """

    size: tuple[int, int]
    frames: Iterator[Raw | Bad]
    total: int | None = None
    rate: float | None = None
    cut: str = ""


def check_crop_box(
    path: Path, crop_box: tuple[int, ...], height: int, width: int
) -> None:
    """Refuses a box that does not lie within the frames of a film."""
    top, left, box_height, box_width = crop_box or (0, 0, 0, 0)
    if top + box_height > height or left + box_width > width:
        raise UserError(
            f"'{path}' has frames of {height}x{width} pixels (height x width), but "
            f"crop_box {crop_box} (top, left, height, width) reaches out of them"
        )


def fit(raw: Raw, settings: FrameSettings) -> tuple[np.ndarray, np.ndarray | None]:
    """Makes a decoded frame one of the asked size.

    Returns:
        uint8 `[height, width, channels]`, 0 where there is no data; and bool
        `[height, width, 1]`, where there is, None for everywhere.

    Raises:
        ValueError: values are not finite or out of range, or the number of channels is
            another; the message is a clause without the file.
    """
    frame = _resized(_channels(_unit_values(raw, settings), settings), settings)
    if raw.valid is None:
        return frame, None
    # A pixel that is made of one without data, be it in part, has none.
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
                "gaps may only lie at the same pixels in all frames: fill the others"
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
    """Raises a ValueError if frames of `held` channels cannot get others."""
    if held != channels and {held, channels} != {1, 3}:
        wanted = "1 or 3" if held in (1, 3) else str(held)
        raise ValueError(
            f"{what} has {held} channels: config.data.channels is {channels} and must "
            f"be {wanted}"
        )


def _resized(frame: np.ndarray, settings: FrameSettings) -> np.ndarray:
    """Cuts a box out of a frame and resizes it, as bytes.

    Shrinking takes means over areas (Pillow's box filter), growing interpolates
    linearly; each axis counts, one that grows decides.
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
    if frame.shape[-1] == 3:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(picture.resize(size, resampling))
    pictures = (
        Image.fromarray(np.ascontiguousarray(plane))
        for plane in np.moveaxis(frame, -1, 0)
    )
    planes = [np.asarray(picture.resize(size, resampling)) for picture in pictures]
    return np.stack(planes, axis=-1)
