"""Film strips: the frames of a clip side by side in one PNG picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.canvas import (
    FAINT_TEXT,
    INPUT_COLOUR,
    PREDICTION_COLOUR,
    TEXT,
    TRUTH_COLOUR,
    Canvas,
    font,
    outcome_name,
    outcome_times,
    time_label,
)
from convlstm_jax.viz.pixels import fit, to_pixels

_GAP = 6
_MARGIN = 16
_NAME_WIDTH = 96
_TIME_HEIGHT = 22


@dataclass(frozen=True)
class _Row:
    """One row: its name, its pixels [T, H, W, C], the time of every frame or none."""

    name: str
    colour: str
    pixels: np.ndarray
    times: Sequence[str]


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
      inputs: Frames given, [T_in, H, W, C] or [T_in, H, W], floats in [0, 1].
      truth: Frames that followed, [T_out, H, W, C], or None where nobody knows them.
      prediction: Frames predicted, [T_out, H, W, C].
      max_columns: Frames drawn in a row at most, at least 2.
      frame_size: Wanted length of the longer side of a frame, pixels; small frames are
        enlarged by a whole factor without blur.
      title: A line above the strip, if not empty.
      reconstruction: Whether truth and prediction are the inputs, last one first: the
        prediction is then called "reconstruction", and time runs back from t.

    Raises:
      UserError: Shapes do not fit each other or the file cannot be written.
    """
    clips = check_forecast(inputs, truth, prediction)
    if max_columns < 2:
        raise UserError(f"max_columns is {max_columns}, but must be at least 2.")
    rows = []
    later = outcome_times(len(clips[2]), reconstruction)
    outcome = outcome_name(reconstruction)
    for name, colour, clip_times, clip in (
        ("input", INPUT_COLOUR, range(1 - len(clips[0]), 1), clips[0]),
        ("truth", TRUTH_COLOUR, later, clips[1]),
        (outcome, PREDICTION_COLOUR, later, clips[2]),
    ):
        if clip is None:
            continue
        chosen = selection(len(clip), max_columns)
        times = [time_label(clip_times[int(index)]) for index in chosen]
        if name == outcome and truth is not None:
            times = []  # the truth right above has them
        rows.append(_Row(name, colour, fit(clip[chosen], frame_size), times))
    _write_rows(path, rows, title)


def clip_strip(
    path: str | Path, frames: np.ndarray, *, columns: int = 10, frame_size: int = 112
) -> None:
    """Draws all frames of one clip, numbered from 1, in as many rows as they need.

    Args:
      path: The PNG file to write.
      frames: [T, H, W, C] or [T, H, W], floats in [0, 1].
      columns: Frames in a row.
      frame_size: Wanted length of the longer side of a frame, pixels.

    Raises:
      UserError: The shape is another one or the file cannot be written.
    """
    pixels = fit(to_pixels(frames), frame_size)
    rows = [
        _Row(
            "",
            INPUT_COLOUR,
            pixels[start : start + columns],
            [str(start + 1 + k) for k in range(min(columns, len(pixels) - start))],
        )
        for start in range(0, len(pixels), columns)
    ]
    _write_rows(path, rows, "")


def selection(num_frames: int, max_frames: int) -> np.ndarray:
    """Indices of at most `max_frames` frames, evenly spread, first and last in."""
    return np.rint(np.linspace(0, num_frames - 1, min(num_frames, max_frames))).astype(
        int
    )


def check_forecast(
    inputs: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Converts the parts of one forecast to pixels and checks that they fit.

    Args:
      inputs: [T_in, H, W, C] or [T_in, H, W], floats in [0, 1].
      truth: [T_out, H, W, C] or None.
      prediction: [T_out, H, W, C].

    Returns:
      The three as uint8 pixels, all of one size and number of channels.

    Raises:
      UserError: Frames differ in size or channels, or truth and prediction in length.
    """
    parts = [to_pixels(inputs), to_pixels(prediction)]
    known = None if truth is None else to_pixels(truth)
    for name, part in (("prediction", parts[1]), ("truth", known)):
        if part is not None and part.shape[1:] != parts[0].shape[1:]:
            raise UserError(
                f"{name} has frames of shape {part.shape[1:]}, but must have the "
                f"shape {parts[0].shape[1:]} of the inputs."
            )
    if known is not None and len(known) != len(parts[1]):
        raise UserError(
            f"prediction has {len(parts[1])} frames, but must have as many as truth, "
            f"{len(known)}."
        )
    return parts[0], known, parts[1]


def _write_rows(path: str | Path, rows: Sequence[_Row], title: str) -> None:
    height, width = rows[0].pixels.shape[1:3]
    columns = max(len(row.pixels) for row in rows)
    left = _MARGIN
    if any(row.name for row in rows):
        longest = max(font(13, bold=True).getlength(row.name) for row in rows)
        left += max(_NAME_WIDTH, round(longest) + 20)
    top = _MARGIN + (28 if title else 0)
    total_height = (
        top
        + sum(height + _GAP + (_TIME_HEIGHT if row.times else 0) for row in rows)
        - _GAP
        + _MARGIN
    )
    total_width = left + columns * (width + _GAP) - _GAP + _MARGIN
    canvas = Canvas(total_width, total_height)
    if title:
        canvas.text((_MARGIN, _MARGIN), title, size=16, anchor="lt", bold=True)
    for row in rows:
        if row.times:
            for column, time in enumerate(row.times):
                middle = left + column * (width + _GAP) + width / 2
                canvas.text((middle, top + 10), time, size=12, colour=FAINT_TEXT)
            top += _TIME_HEIGHT
        if row.name:
            canvas.bar((_MARGIN, top, 4, height), row.colour)
            position = (_MARGIN + 12, top + height / 2)
            canvas.text(position, row.name, anchor="lm", colour=TEXT, bold=True)
        for column, frame in enumerate(row.pixels):
            canvas.frame(frame, left + column * (width + _GAP), top)
        top += height + _GAP
    with atomic_file(path) as partial:
        canvas.image.save(partial, "PNG", optimize=True)
