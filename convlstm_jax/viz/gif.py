"""GIF animations in which every frame counts: clips, and forecasts beside the truth.

Pillow's `save` merges a frame that equals the one before into a longer pause, so that a
clip in which nothing moves would lose frames when it is read back. Here Pillow encodes
every frame on its own.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.viz.pixels import (
    FAINT_TEXT,
    GRID,
    INPUT_COLOUR,
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    Canvas,
    fit,
    outcome_name,
    outcome_times,
    time_label,
    to_image,
    to_pixels,
)

_BORDER = 3
_GAP = 14
_PAIR_GAP = 2
_MARGIN = 16
_TOP = 38
_FOOTER = 40
# Hundredths of a second. The last frame stays, so that the eye finds the loop's end.
_PAUSE, _LAST_PAUSE = 20, 100


def gif_bytes(frames: np.ndarray, frames_per_second: float = 10) -> bytes:
    """Encodes a clip, `[T, H, W, C]` or `[T, H, W]`, as a GIF that loops forever.

    Grey frames, and colour frames of at most 256 colours each, are exact to the eight
    bits of a pixel; richer ones are reduced to 256 colours a frame. Reading back gives
    T frames, also where consecutive frames are identical. GIF counts time in hundredths
    of a second: the pauses are rounded such that their sum stays right, and are never
    below 0.02 s, which browsers would slow down to 0.1 s.
    """
    images = [to_image(frame) for frame in to_pixels(frames)]
    ends = [round(100 * t / frames_per_second) for t in range(len(images) + 1)]
    pauses = [max(2, end - start) for start, end in itertools.pairwise(ends)]
    return _encode(images, pauses)


def _encode(images: Sequence[Image.Image], pauses: Sequence[int]) -> bytes:
    """Encodes images (L or RGB, one size), each with its pause in 1/100 s."""
    parts: list[bytes] = []
    shared: list[int] | None = None
    for image, pause in zip(images, pauses, strict=True):
        indexed = _indexed(image)
        if shared is None:
            shared = indexed.getpalette()
            parts += GifImagePlugin.getheader(indexed.copy(), info={"loop": 0})[0]
        own = indexed.getpalette() != shared
        parts += GifImagePlugin.getdata(
            indexed, duration=10 * pause, disposal=1, include_color_table=own
        )
    return b"".join(parts) + b";"


def _indexed(image: Image.Image) -> Image.Image:
    """An image with a palette: exact up to 256 colours, else the nearest."""
    if image.mode != "RGB":
        return image.convert("P")
    if image.getcolors(256) is None:
        return image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    # One number a pixel sorts far faster than rows of three.
    pixels = np.asarray(image).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    colours, index = np.unique(codes.ravel(), return_inverse=True)
    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    indexed = Image.fromarray(index.reshape(codes.shape).astype(np.uint8)).convert("P")
    indexed.putpalette(palette.astype(np.uint8).tobytes())
    return indexed


def comparison_gif(
    path: str | Path,
    inputs: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    frame_size: int = 256,
    reconstruction: bool = False,
) -> None:
    """Plays input → truth and input → prediction side by side.

    Borders and the bar below are grey while the input plays; then the truth gets a
    green and the prediction a blue border, and the time counts on from t+1. The last
    frame stays for a second; the GIF loops forever and has T_in + T_out frames. The
    arguments are those of `film_strip`.
    """
    clips = (np.asarray(clip)[None] for clip in (inputs, truth, prediction))
    comparison_grid_gif(
        path, *clips, frame_size=frame_size, reconstruction=reconstruction
    )


def comparison_grid_gif(
    path: str | Path,
    inputs: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    frame_size: int = 128,
    reconstruction: bool = False,
) -> None:
    """Plays several forecasts in a grid that is about square, truth | prediction.

    Clips have one more axis in front than those of `comparison_gif`, `[N, T, H, W, C]`.
    """
    # Per sample the two panels, each a whole clip input → outcome.
    samples = []
    for clips in zip(inputs, truth, prediction, strict=True):
        given, *outcomes = map(to_pixels, clips)
        films = [np.concatenate([given, outcome]) for outcome in outcomes]
        samples.append([fit(film, frame_size) for film in films])
    later = outcome_times(len(prediction[0]), reconstruction)
    times = [*range(1 - len(inputs[0]), 1), *later]
    grid = _Grid(samples, len(inputs[0]), reconstruction)
    images = [grid.draw(frame, time_label(time)) for frame, time in enumerate(times)]
    with atomic_file(path) as partial:
        pauses = [_PAUSE] * (len(images) - 1) + [_LAST_PAUSE]
        partial.write_bytes(_encode(images, pauses))


class _Grid:
    """The layout of an animation: samples in a grid, each of two panels."""

    def __init__(
        self,
        samples: Sequence[Sequence[np.ndarray]],
        num_inputs: int,
        reconstruction: bool,
    ):
        self.samples, self.num_inputs = samples, num_inputs
        self.names = (
            ("truth", TRUTH_COLOUR),
            (outcome_name(reconstruction), PREDICTION_COLOUR),
        )
        self.columns = math.ceil(math.sqrt(len(samples) / 2))
        self.num_frames, height, width = samples[0][0].shape[:3]
        self.panel_height = height + 2 * _BORDER
        self.panel_width = width + 2 * _BORDER
        self.panel_step = self.panel_width + (_GAP if len(samples) == 1 else _PAIR_GAP)
        self.sample_step = self.panel_step + self.panel_width + _GAP
        rows = -(-len(samples) // self.columns)
        self.right = _MARGIN + self.columns * self.sample_step - _GAP
        self.bottom = _TOP + rows * (self.panel_height + _GAP) - _GAP

    def draw(self, frame: int, time: str) -> Image.Image:
        """One frame of the animation."""
        forecasting = frame >= self.num_inputs
        canvas = Canvas(self.right + _MARGIN, self.bottom + _FOOTER)
        for index, clips in enumerate(self.samples):
            row, column = divmod(index, self.columns)
            top = _TOP + row * (self.panel_height + _GAP)
            left = _MARGIN + column * self.sample_step
            for clip, (name, outcome_colour) in zip(clips, self.names, strict=True):
                colour = outcome_colour if forecasting else INPUT_COLOUR
                place = left + _BORDER, top + _BORDER
                canvas.frame(clip[frame], *place, colour, _BORDER)
                if row == 0:
                    canvas.text(
                        (left + self.panel_width / 2, _MARGIN + 4),
                        name if forecasting else "input",
                        colour=colour if forecasting else FAINT_TEXT,
                        bold=True,
                    )
                left += self.panel_step
        self._draw_progress(canvas, frame, time)
        return canvas.image

    def _draw_progress(self, canvas: Canvas, frame: int, time: str) -> None:
        """The bar and the time under the panels."""
        top, length = self.bottom + _FOOTER // 2 - 2, self.right - _MARGIN - 44
        split = round(length * self.num_inputs / self.num_frames)
        here = round(length * (frame + 1) / self.num_frames)
        canvas.bar((_MARGIN, top, length, 4), GRID)
        canvas.bar((_MARGIN, top, min(here, split), 4), INPUT_COLOUR)
        canvas.bar((_MARGIN + split, top, here - split, 4), PREDICTION_COLOUR)
        forecasting = frame >= self.num_inputs
        canvas.text(
            (self.right, top + 2),
            time,
            size=12,
            anchor="rm",
            colour=PREDICTION_COLOUR if forecasting else FAINT_TEXT,
            bold=forecasting,
        )
