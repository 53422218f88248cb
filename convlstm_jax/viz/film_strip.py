"""Film strips: rows of frames side by side in one PNG picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.viz.pixels import (
    FAINT_TEXT,
    INPUT_COLOUR,
    PREDICTION_COLOUR,
    TEXT,
    TRUTH_COLOUR,
    Canvas,
    fit,
    font,
    outcome_name,
    outcome_times,
    time_label,
    to_pixels,
)

GAP = 6
MARGIN = 16
TIME_HEIGHT = 22
_MIN_NAME_WIDTH = 96
_LINE_HEIGHT = 18

NAME_STYLE = {"colour": TEXT, "bold": True}


@dataclass(frozen=True)
class Row:
    """One row of a strip."""

    lines: Sequence[tuple[str, Mapping[str, Any]]]  # texts in front, and their styles
    colour: str  # of the bar in front of them
    frames: Sequence[np.ndarray | None]  # uint8 [H, W, C]; None leaves a gap
    times: Sequence[str] = ()  # above each frame, or nothing at all
    border: Mapping[str, Any] | None = None  # the frames' style, see `Canvas.frame`


def draw_strip(
    rows: Sequence[Row],
    *,
    title: str = "",
    row_gap: int = GAP,
    extra_width: int = 0,
    min_height: int = 0,
) -> Canvas:
    """Draws rows of frames of one size, and leaves room at the right if asked to."""
    first = next(frame for frame in rows[0].frames if frame is not None)
    height, width = first.shape[:2]
    columns = max(len(row.frames) for row in rows)
    row_height = max(height, *(len(row.lines) * _LINE_HEIGHT for row in rows))
    texts = [text for row in rows for text, _ in row.lines]
    left = MARGIN
    if texts:
        longest = max(font(13, bold=True).getlength(text) for text in texts)
        left += max(_MIN_NAME_WIDTH, round(longest) + 20)
    top = MARGIN + (28 if title else 0)
    time_rows = sum(bool(row.times) for row in rows)
    bottom = (
        top + time_rows * TIME_HEIGHT + len(rows) * (row_height + row_gap) - row_gap
    )
    right = left + columns * (width + GAP) - GAP + extra_width
    canvas = Canvas(right + MARGIN, max(bottom, min_height) + MARGIN)
    if title:
        canvas.text((MARGIN, MARGIN), title, size=16, anchor="lt", bold=True)
    for row in rows:
        places = [left + column * (width + GAP) for column in range(len(row.frames))]
        if row.times:
            for place, time in zip(places, row.times, strict=True):
                middle = place + width / 2
                canvas.text((middle, top + 10), time, size=12, colour=FAINT_TEXT)
            top += TIME_HEIGHT
        if row.lines:
            canvas.bar((MARGIN, top, 4, row_height), row.colour)
        middle = top + row_height / 2 - (len(row.lines) - 1) * _LINE_HEIGHT / 2
        for number, (text, style) in enumerate(row.lines):
            position = (MARGIN + 12, middle + number * _LINE_HEIGHT)
            canvas.text(position, text, anchor="lm", **style)
        for place, frame in zip(places, row.frames, strict=True):
            if frame is not None:
                above = (row_height - height) // 2
                canvas.frame(frame, place, top + above, **(row.border or {}))
        top += row_height + row_gap
    return canvas


def film_strip(
    path: str | Path,
    inputs: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    *,
    max_columns: int = 12,
    frame_size: int = 112,
    title: str = "",
    reconstruction: bool = False,
) -> None:
    """Draws a forecast as rows of frames: "input", "truth" and "prediction".

    Truth and prediction stand below each other, frame by frame, under their common
    time; t is the last frame given, t+1 the first one predicted. Of more frames than
    columns an even selection is drawn, first and last included, and the time over each
    column tells which.

    Args:
        path: The PNG file to write.
        inputs: Frames given, `[T_in, H, W, C]` or `[T_in, H, W]`, floats in [0, 1].
        truth: Frames that followed, `[T_out, H, W, C]`, or None where they are unknown.
        prediction: Frames predicted, `[T_out, H, W, C]`.
        max_columns: Most frames in a row, at least 2.
        frame_size: Wanted length of the longer side of a frame, see `pixels.fit`.
        title: A line above the strip, if not empty.
        reconstruction: Whether truth and prediction are the inputs, last one first: the
            prediction is then called "reconstruction", and time runs back from t.
    """
    given, predicted = to_pixels(inputs), to_pixels(prediction)
    known = None if truth is None else to_pixels(truth)
    later = outcome_times(len(predicted), reconstruction)
    rows = []
    for name, colour, times, clip in (
        ("input", INPUT_COLOUR, range(1 - len(given), 1), given),
        ("truth", TRUTH_COLOUR, later, known),
        (outcome_name(reconstruction), PREDICTION_COLOUR, later, predicted),
    ):
        if clip is None:
            continue
        chosen = selection(len(clip), max_columns)
        labels = [time_label(times[int(index)]) for index in chosen]
        if clip is predicted and known is not None:
            labels = []  # the truth right above has them
        frames = list(fit(clip[chosen], frame_size))
        rows.append(Row([(name, NAME_STYLE)], colour, frames, labels))
    draw_strip(rows, title=title).save(path)


def clip_strip(
    path: str | Path, frames: np.ndarray, *, columns: int = 10, frame_size: int = 112
) -> None:
    """Draws all frames of one clip, numbered from 1, in as many rows as they need."""
    pixels = list(fit(to_pixels(frames), frame_size))
    rows = []
    for start in range(0, len(pixels), columns):
        part = pixels[start : start + columns]
        numbers = [str(start + 1 + k) for k in range(len(part))]
        rows.append(Row([], INPUT_COLOUR, part, numbers))
    draw_strip(rows).save(path)


def selection(num_frames: int, max_frames: int) -> np.ndarray:
    """Indices of at most `max_frames` frames, evenly spread from first to last."""
    count = min(num_frames, max_frames)
    return np.rint(np.linspace(0, num_frames - 1, count)).astype(int)
