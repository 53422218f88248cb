"""Frames as pixels, and pictures that are put together from frames, bars and text."""

import math
from collections.abc import Sequence
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

ColourScale = Sequence[tuple[float, tuple[int, int, int]]]

# From a rate on, mm/h, rain has a colour: light blue over green and yellow to violet.
RAIN_COLOURS = (
    (0.1, (198, 226, 245)),
    (0.25, (132, 186, 232)),
    (0.5, (60, 130, 210)),
    (1.0, (20, 150, 110)),
    (2.0, (90, 190, 60)),
    (5.0, (245, 215, 50)),
    (10.0, (240, 140, 30)),
    (20.0, (215, 40, 40)),
    (30.0, (150, 30, 150)),
)
DRY_COLOUR = (250, 250, 250)
NO_DATA_COLOUR = (205, 205, 205)

# From a share on, a probability has a colour: pink over magenta to dark violet.
PROBABILITY_COLOURS = (
    (0.05, (253, 224, 221)),
    (0.2, (252, 180, 190)),
    (0.4, (247, 104, 161)),
    (0.6, (205, 30, 140)),
    (0.8, (135, 5, 125)),
    (0.95, (73, 0, 106)),
)


def to_pixels(frames: np.ndarray) -> np.ndarray:
    """Converts floats in [0, 1] into eight-bit grey or RGB, `[T, H, W, 1 or 3]`.

    Values outside are clipped, NaN is 0; of other numbers of channels the first is
    drawn. Raises UserError for other shapes than `[T, H, W, C]` or `[T, H, W]`.
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


def rain_colours(rain_mm_per_h: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours, uint8 `[..., 3]`, of rain rates; grey where the mask is 0."""
    return _coloured(rain_mm_per_h, mask, RAIN_COLOURS)


def probability_colours(shares: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours, uint8 `[..., 3]`, of probabilities; grey where the mask is 0."""
    return _coloured(shares, mask, PROBABILITY_COLOURS)


def _coloured(values: np.ndarray, mask: np.ndarray, scale: ColourScale) -> np.ndarray:
    edges = np.array([edge for edge, _ in scale], values.dtype)
    colours = np.array([DRY_COLOUR, *(colour for _, colour in scale)], np.uint8)
    pictures = colours[np.searchsorted(edges, values, side="right")]
    return np.where((mask > 0)[..., None], pictures, np.array(NO_DATA_COLOUR, np.uint8))


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Repeats every pixel of `[T, H, W, C]` `scale` times along H and W."""
    return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def fit(pixels: np.ndarray, target_size: int) -> np.ndarray:
    """Scales frames `[T, H, W, C]` by an integer: the longer side nears the target."""
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
            corners = (left, top, left + width - 1, top + height - 1)
            self._draw.rectangle(corners, fill=colour)

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
        face = font(size, bold)
        self._draw.text(position, text, fill=colour, font=face, anchor=anchor)

    def save(self, path: str | Path) -> None:
        """Writes the picture as PNG, whole or not at all."""
        with atomic_file(path) as partial:
            self.image.save(partial, "PNG", optimize=True)


def outcome_times(num_frames: int, reconstruction: bool) -> range:
    """The times of a model's frames: from t+1 on, of a reconstruction back from t."""
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
