"""Frames as pixels, and pictures that are put together from frames, bars and text."""

import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError

BACKGROUND = "#ffffff"
TEXT = "#1f2430"
FAINT_TEXT = "#7a8190"
GRID = "#e6e9ef"
INPUT_COLOUR = "#8a93a3"
TRUTH_COLOUR = "#0f9d6e"
PREDICTION_COLOUR = "#2f6fed"
WRONG_COLOUR = "#d13438"


def to_pixels(frames: np.ndarray) -> np.ndarray:
    """Converts a clip into eight-bit RGB or grey pixels.

    Values are clipped to [0, 1] and rounded to the nearest of 256 levels, so that
    x / 255 comes back as x. NaN is drawn as 0. Of clips with neither one nor three
    channels the first channel is drawn.

    Args:
        frames: `[T, H, W, C]` or `[T, H, W]`, floats in [0, 1], no axis empty.

    Returns:
        uint8 `[T, H, W, 1]` or `[T, H, W, 3]`.

    Raises:
        UserError: The array has another number of axes or an empty one.
    """
    frames = np.asarray(frames)
    if frames.ndim not in (3, 4) or 0 in frames.shape:
        raise UserError(
            f"frames has shape {frames.shape}: it must be [T, H, W] or [T, H, W, C] "
            "with no empty axis"
        )
    if frames.ndim == 3:
        frames = frames[..., np.newaxis]
    if frames.shape[-1] not in (1, 3):
        frames = frames[..., :1]
    values = np.nan_to_num(frames.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Repeats every pixel of `[T, H, W, C]` `scale` times along H and W."""
    return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def fit(pixels: np.ndarray, target_size: int) -> np.ndarray:
    """Brings frames near a size without blurring small ones.

    Small frames are enlarged by an integer factor, pixel by pixel; frames of more than
    twice the target are shrunk by an integer factor, averaging.

    Args:
        pixels: uint8 `[T, H, W, C]`.
        target_size: Wanted length of the longer side, pixels.

    Returns:
        uint8 `[T, H', W', C]`.
    """
    longer = max(pixels.shape[1:3])
    if longer < 2 * target_size:
        return enlarge(pixels, max(1, round(target_size / longer)))
    factor = math.ceil(longer / (1.5 * target_size))
    images = [np.asarray(to_image(frame).reduce(factor)) for frame in pixels]
    return np.stack([image.reshape(*image.shape[:2], -1) for image in images])


def to_image(frame: np.ndarray) -> Image.Image:
    """Wraps one frame, uint8 `[H, W, 1 or 3]`, as a Pillow image (mode L or RGB)."""
    if frame.shape[-1] == 1:
        frame = frame[..., 0]
    return Image.fromarray(np.ascontiguousarray(frame))


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so it is the same everywhere."""
    import matplotlib  # The first training step need not wait for it.

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), size)


class Canvas:
    """A white picture on which frames, bars and text are drawn."""

    def __init__(self, width: int, height: int):
        """Makes an empty canvas of this size in pixels."""
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self._draw = ImageDraw.Draw(self.image)

    def frame(
        self,
        frame: np.ndarray,
        left: int,
        top: int,
        colour: str = "#c9ced8",
        border: int = 1,
    ) -> None:
        """Draws a frame, uint8 `[H, W, C]`, with a border around its outside."""
        height, width = frame.shape[:2]
        box = (left - border, top - border, width + 2 * border, height + 2 * border)
        self.bar(box, colour)
        self.image.paste(to_image(frame), (left, top))

    def bar(self, box: tuple[int, int, int, int], colour: str) -> None:
        """Fills a box (left, top, width, height); an empty one draws nothing."""
        left, top, width, height = box
        if width > 0 and height > 0:
            self._draw.rectangle(
                (left, top, left + width - 1, top + height - 1), fill=colour
            )

    def text(
        self,
        position: tuple[float, float],
        text: str,
        *,
        size: int = 13,
        anchor: str = "mm",
        colour: str = TEXT,
        bold: bool = False,
    ) -> None:
        """Writes text; `anchor` is Pillow's (first letter across, second down)."""
        self._draw.text(
            position, text, fill=colour, font=font(size, bold), anchor=anchor
        )

    def save(self, path: str | Path) -> None:
        """Writes the picture as PNG, whole or not at all."""
        with atomic_file(path) as partial:
            self.image.save(partial, "PNG", optimize=True)


def outcome_times(num_frames: int, reconstruction: bool) -> range:
    """The times of the frames that a model gave out, 0 being the last one given.

    A forecast begins at t+1; a reconstruction is of the inputs, last one first, so it
    begins at t and runs back.
    """
    return range(0, -num_frames, -1) if reconstruction else range(1, num_frames + 1)


def outcome_name(reconstruction: bool) -> str:
    """What pictures call the frames that a model gave out."""
    return "reconstruction" if reconstruction else "prediction"


def time_label(frame: int) -> str:
    """The time of a frame, 0 being the last one given: t−1, t, t+1."""
    if frame == 0:
        return "t"
    return f"t{frame:+d}".replace("-", "\N{MINUS SIGN}")


def shortened(name: str, length: int) -> str:
    """A name of at most this many characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
