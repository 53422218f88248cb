"""Animations that play a forecast beside what really happened."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.canvas import (
    FAINT_TEXT,
    INPUT_COLOUR,
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    Canvas,
    outcome_name,
    outcome_times,
    time_label,
)
from convlstm_jax.viz.film_strip import check_forecast
from convlstm_jax.viz.gif import check_speed, encode_gif
from convlstm_jax.viz.pixels import fit

_BORDER = 3
_GAP = 14
_PAIR_GAP = 2
_MARGIN = 16
_HEADER = 30
_FOOTER = 40
# The last frame stays a while, so that the eye finds the end of the loop.
_LAST_PAUSE_SECONDS = 1.0

_Forecast = tuple[np.ndarray, np.ndarray | None, np.ndarray]


def comparison_gif(
    path: str | Path,
    inputs: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    *,
    frames_per_second: float = 5,
    frame_size: int = 256,
    reconstruction: bool = False,
) -> None:
    """Plays input → truth and input → prediction side by side.

    Borders and the bar below are grey while the input plays; then the truth gets a
    green and the prediction a blue border, and the time counts on from t+1. The last
    frame stays for a second; the GIF loops forever and has T_in + T_out frames.

    Args:
      path: The GIF file to write.
      inputs: Frames given, [T_in, H, W, C] or [T_in, H, W], floats in [0, 1].
      truth: Frames that followed, [T_out, H, W, C], or None: no panel for it then.
      prediction: Frames predicted, [T_out, H, W, C].
      frames_per_second: Playing speed.
      frame_size: Wanted length of the longer side of a panel, pixels; small frames are
        enlarged by a whole factor (64 pixels by 4) without blur.
      reconstruction: Whether truth and prediction are the inputs, last one first: the
        prediction is then called "reconstruction", and time runs back from t.

    Raises:
      UserError: Shapes do not fit each other or the file cannot be written.
    """
    forecast = check_forecast(inputs, truth, prediction)
    _write(path, [forecast], 1, frames_per_second, frame_size, reconstruction)


def comparison_grid_gif(
    path: str | Path,
    inputs: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    *,
    columns: int | None = None,
    frames_per_second: float = 5,
    frame_size: int = 128,
    reconstruction: bool = False,
) -> None:
    """Plays several forecasts in one grid, every sample a pair truth | prediction.

    Args:
      path: The GIF file to write.
      inputs: [N, T_in, H, W, C], floats in [0, 1], N at least 1.
      truth: [N, T_out, H, W, C], or None: no panels for it then.
      prediction: [N, T_out, H, W, C].
      columns: Samples in a row; None makes the picture about square.
      frames_per_second: Playing speed.
      frame_size: Wanted length of the longer side of a panel, pixels.
      reconstruction: See `comparison_gif`.

    Raises:
      UserError: Shapes do not fit each other or the file cannot be written.
    """
    count = len(inputs)
    if (
        count < 1
        or len(prediction) != count
        or len(inputs if truth is None else truth) != count
    ):
        raise UserError(
            f"inputs, truth and prediction hold {count}, "
            f"{'no' if truth is None else len(truth)} and {len(prediction)} samples, "
            "but must hold the same number, at least 1."
        )
    forecasts = [
        check_forecast(inputs[n], None if truth is None else truth[n], prediction[n])
        for n in range(count)
    ]
    if columns is None:
        columns = (
            math.ceil(math.sqrt(count / 2))
            if truth is not None
            else math.ceil(math.sqrt(count))
        )
    if columns < 1:
        raise UserError(f"columns is {columns}, but must be at least 1.")
    columns = min(columns, count)
    _write(path, forecasts, columns, frames_per_second, frame_size, reconstruction)


def _write(
    path: str | Path,
    forecasts: Sequence[_Forecast],
    columns: int,
    frames_per_second: float,
    frame_size: int,
    reconstruction: bool,
) -> None:
    check_speed(frames_per_second)
    num_inputs, num_outputs = len(forecasts[0][0]), len(forecasts[0][2])
    # Per sample the panels, each a whole clip input → outcome.
    samples = []
    for inputs, truth, prediction in forecasts:
        outcomes = [prediction] if truth is None else [truth, prediction]
        samples.append(
            [fit(np.concatenate([inputs, part]), frame_size) for part in outcomes]
        )
    names = [
        ("truth", TRUTH_COLOUR),
        (outcome_name(reconstruction), PREDICTION_COLOUR),
    ]
    names = names[-len(samples[0]) :]
    times = [*range(1 - num_inputs, 1), *outcome_times(num_outputs, reconstruction)]
    images = [
        _draw(samples, names, columns, frame, num_inputs, time_label(time))
        for frame, time in enumerate(times)
    ]
    pause = max(2, round(100 / frames_per_second))
    pauses = [pause] * len(images)
    pauses[-1] = max(pause, round(100 * _LAST_PAUSE_SECONDS))
    content = encode_gif(images, pauses)
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def _draw(
    samples: Sequence[Sequence[np.ndarray]],
    names: Sequence[tuple[str, str]],
    columns: int,
    frame: int,
    num_inputs: int,
    time: str,
) -> Image.Image:
    """Draws one frame of the animation."""
    num_frames, height, width = samples[0][0].shape[:3]
    panel_width, panel_height = width + 2 * _BORDER, height + 2 * _BORDER
    panels = len(names)
    gap_in_pair = _GAP if len(samples) == 1 else _PAIR_GAP
    sample_width = panels * panel_width + (panels - 1) * gap_in_pair
    rows = -(-len(samples) // columns)
    right = _MARGIN + columns * (sample_width + _GAP) - _GAP
    bottom = _MARGIN + _HEADER - 8 + rows * (panel_height + _GAP) - _GAP
    forecasting = frame >= num_inputs

    canvas = Canvas(right + _MARGIN, bottom + _FOOTER)
    for index, clips in enumerate(samples):
        row, column = divmod(index, columns)
        top = _MARGIN + _HEADER - 8 + row * (panel_height + _GAP)
        for panel, (name, outcome_colour) in enumerate(names):
            left = (
                _MARGIN
                + column * (sample_width + _GAP)
                + panel * (panel_width + gap_in_pair)
            )
            colour = outcome_colour if forecasting else INPUT_COLOUR
            canvas.frame(
                clips[panel][frame], left + _BORDER, top + _BORDER, colour, _BORDER
            )
            if row == 0:
                canvas.text(
                    (left + panel_width / 2, _MARGIN + 4),
                    name if forecasting else "input",
                    colour=colour if forecasting else FAINT_TEXT,
                    bold=True,
                )
    _draw_progress(canvas, right, bottom, frame, num_inputs, num_frames, time)
    return canvas.image


def _draw_progress(
    canvas: Canvas,
    right: int,
    bottom: int,
    frame: int,
    num_inputs: int,
    num_frames: int,
    time: str,
) -> None:
    """Draws the bar and the time under the panels."""
    label_width = 44
    top = bottom + _FOOTER // 2 - 2
    length = right - _MARGIN - label_width
    split = round(length * num_inputs / num_frames)
    here = round(length * (frame + 1) / num_frames)
    canvas.bar((_MARGIN, top, length, 4), "#e6e9ef")
    canvas.bar((_MARGIN, top, min(here, split), 4), INPUT_COLOUR)
    canvas.bar((_MARGIN + split, top, here - split, 4), PREDICTION_COLOUR)
    forecasting = frame >= num_inputs
    canvas.text(
        (right, top + 2),
        time,
        size=12,
        anchor="rm",
        colour=PREDICTION_COLOUR if forecasting else FAINT_TEXT,
        bold=forecasting,
    )
