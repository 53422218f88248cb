"""Colours, fonts and text for pictures that are put together pixel by pixel."""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convlstm_jax.viz.pixels import to_image

BACKGROUND = "#ffffff"
TEXT = "#1f2430"
FAINT_TEXT = "#7a8190"
INPUT_COLOUR = "#8a93a3"
TRUTH_COLOUR = "#0f9d6e"
PREDICTION_COLOUR = "#2f6fed"


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so it is the same everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), size)


class Canvas:
    """A white picture on which frames, frames' borders and text are laid."""

    def __init__(self, width: int, height: int):
        """Makes an empty canvas of so many pixels."""
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
        """Lays a frame, uint8 [H, W, C], with a border around its outside."""
        height, width = frame.shape[:2]
        self.bar(
            (left - border, top - border, width + 2 * border, height + 2 * border),
            colour,
        )
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
