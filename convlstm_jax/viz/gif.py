"""GIF animations of clips, and of forecasts beside the truth.

Pillow's `save` would merge frames that are equal; here it encodes each on its own.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.viz import pixels as px

_BORDER, _GAP, _PAIR_GAP = 3, 14, 2
_MARGIN, _TOP, _FOOTER = 16, 38, 40
# Hundredths of a second. The last frame stays, so that the eye finds the loop's end.
_PAUSE, _LAST_PAUSE = 20, 100


def gif_bytes(frames: np.ndarray, frames_per_second: float = 10) -> bytes:
    """Encodes a clip, `[T, H, W, C]` or `[T, H, W]`, as a GIF that loops forever.

    Frames of at most 256 colours are exact to eight bits. Pauses are whole hundredths
    of a second whose sum stays right, and at least 0.02 s: below, browsers slow down.
    """
    images = [px.to_image(frame) for frame in px.to_pixels(frames)]
    ends = [round(100 * t / frames_per_second) for t in range(len(images) + 1)]
    pauses = [max(2, end - start) for start, end in itertools.pairwise(ends)]
    return _encode(images, pauses)


def _encode(images: Sequence[Image.Image], pauses: Sequence[int]) -> bytes:
    """Encodes images (L or RGB, one size), each with its pause in 1/100 s."""
    indexed_images = [_indexed(image) for image in images]
    first = indexed_images[0]
    parts = list(GifImagePlugin.getheader(first.copy(), info={"loop": 0})[0])
    for indexed, pause in zip(indexed_images, pauses, strict=True):
        own = indexed.getpalette() != first.getpalette()
        parts += GifImagePlugin.getdata(
            indexed, duration=10 * pause, disposal=1, include_color_table=own
        )
    return b"".join(parts) + b";"


def _indexed(image: Image.Image) -> Image.Image:
    """An image with a palette: exact up to 256 colours, else the nearest."""
    if image.mode == "L":
        return image.convert("P")
    return image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def comparison_gif(
    path: str | Path,
    inputs: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    frame_size: int = 128,
    reconstruction: bool = False,
) -> None:
    """Plays input → truth beside input → prediction, for clips `[N, T, H, W, C]`."""
    # Per sample the two panels, each a whole clip input → outcome.
    samples = []
    for clips in zip(inputs, truth, prediction, strict=True):
        given, *outcomes = map(px.to_pixels, clips)
        films = [np.concatenate([given, outcome]) for outcome in outcomes]
        samples.append([px.fit(film, frame_size) for film in films])
    later = px.outcome_times(len(prediction[0]), reconstruction)
    times = [*range(1 - len(inputs[0]), 1), *later]
    grid = _Grid(samples, len(inputs[0]), reconstruction)
    images = [grid.draw(frame, px.time_label(time)) for frame, time in enumerate(times)]
    with atomic_file(path) as partial:
        pauses = [_PAUSE] * (len(images) - 1) + [_LAST_PAUSE]
        partial.write_bytes(_encode(images, pauses))


class _Grid:
    """The layout of an animation: samples in a grid, each of two panels."""

    def __init__(
        self, samples: Sequence[Any], num_inputs: int, reconstruction: bool
    ) -> None:
        self.samples, self.num_inputs = samples, num_inputs
        outcome = px.outcome_name(reconstruction), px.PREDICTION_COLOUR
        self.names = ("truth", px.TRUTH_COLOUR), outcome
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
        forecasting = frame >= self.num_inputs
        canvas = px.Canvas(self.right + _MARGIN, self.bottom + _FOOTER)
        for index, clips in enumerate(self.samples):
            row, column = divmod(index, self.columns)
            top = _TOP + row * (self.panel_height + _GAP)
            left = _MARGIN + column * self.sample_step
            for clip, (name, outcome_colour) in zip(clips, self.names, strict=True):
                colour = outcome_colour if forecasting else px.INPUT_COLOUR
                place = left + _BORDER, top + _BORDER
                canvas.frame(clip[frame], *place, colour, _BORDER)
                if row == 0:
                    middle = left + self.panel_width / 2, _MARGIN + 4
                    text = name if forecasting else "input"
                    ink = colour if forecasting else px.FAINT_TEXT
                    canvas.text(middle, text, colour=ink, bold=True)
                left += self.panel_step
        self._draw_progress(canvas, frame, time)
        return canvas.image

    def _draw_progress(self, canvas: px.Canvas, frame: int, time: str) -> None:
        """The bar and the time under the panels."""
        top, length = self.bottom + _FOOTER // 2 - 2, self.right - _MARGIN - 44
        split = round(length * self.num_inputs / self.num_frames)
        here = round(length * (frame + 1) / self.num_frames)
        canvas.bar((_MARGIN, top, length, 4), px.GRID)
        canvas.bar((_MARGIN, top, min(here, split), 4), px.INPUT_COLOUR)
        canvas.bar((_MARGIN + split, top, here - split, 4), px.PREDICTION_COLOUR)
        forecasting = frame >= self.num_inputs
        colour = px.PREDICTION_COLOUR if forecasting else px.FAINT_TEXT
        canvas.text(
            (self.right, top + 2), time, size=12, anchor="rm", colour=colour,
            bold=forecasting,
        )  # fmt: skip
