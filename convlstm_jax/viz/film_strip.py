"""Film strips: rows of frames side by side in one PNG picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.metrics.baselines import forecast_label
from convlstm_jax.viz import pixels as px

_GAP, _MARGIN = 6, 16
_TIME_HEIGHT, _LINE_HEIGHT, _MIN_NAME_WIDTH = 22, 18, 96
_FRAME_SIZE, _MAX_COLUMNS = 112, 12
_RADAR_FRAME_SIZE, _RADAR_COLUMNS = 128, 8
_LEGEND_WIDTH, _LEGEND_STEP = 100, 18
_NAME_STYLE = {"colour": px.TEXT, "bold": True}


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
    row_gap: int = _GAP,
    extra_width: int = 0,
    min_height: int = 0,
) -> px.Canvas:
    """Draws rows of frames of one size, and leaves room at the right if asked to."""
    first = next(frame for frame in rows[0].frames if frame is not None)
    height, width = first.shape[:2]
    columns = max(len(row.frames) for row in rows)
    row_height = max(height, *(len(row.lines) * _LINE_HEIGHT for row in rows))
    texts = [text for row in rows for text, _ in row.lines]
    left = _MARGIN
    if texts:
        longest = max(px.font(13, bold=True).getlength(text) for text in texts)
        left += max(_MIN_NAME_WIDTH, round(longest) + 20)
    top = _MARGIN + (28 if title else 0)
    time_rows = sum(bool(row.times) for row in rows)
    bottom = (
        top + time_rows * _TIME_HEIGHT + len(rows) * (row_height + row_gap) - row_gap
    )
    right = left + columns * (width + _GAP) - _GAP + extra_width
    canvas = px.Canvas(right + _MARGIN, max(bottom, min_height) + _MARGIN)
    if title:
        canvas.text((_MARGIN, _MARGIN), title, size=16, anchor="lt", bold=True)
    for row in rows:
        places = [left + column * (width + _GAP) for column in range(len(row.frames))]
        if row.times:
            for place, time in zip(places, row.times, strict=True):
                middle = place + width / 2
                canvas.text((middle, top + 10), time, size=12, colour=px.FAINT_TEXT)
            top += _TIME_HEIGHT
        if row.lines:
            canvas.bar((_MARGIN, top, 4, row_height), row.colour)
        middle = top + row_height / 2 - (len(row.lines) - 1) * _LINE_HEIGHT / 2
        for number, (text, style) in enumerate(row.lines):
            position = (_MARGIN + 12, middle + number * _LINE_HEIGHT)
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
    max_columns: int = _MAX_COLUMNS,
    frame_size: int = _FRAME_SIZE,
    title: str = "",
    reconstruction: bool = False,
) -> None:
    """Draws a forecast as rows of frames: "input", "truth" (if known) and "prediction".

    Clips are `[T, H, W, C]` or `[T, H, W]`, floats in [0, 1]. Of more frames than
    columns an even selection is drawn, first and last included. With `reconstruction`
    truth and prediction are the inputs, last one first, and time runs back from t.
    """
    given, predicted = px.to_pixels(inputs), px.to_pixels(prediction)
    known = None if truth is None else px.to_pixels(truth)
    later = px.outcome_times(len(predicted), reconstruction)
    rows = []
    for name, colour, times, clip in (
        ("input", px.INPUT_COLOUR, range(1 - len(given), 1), given),
        ("truth", px.TRUTH_COLOUR, later, known),
        (px.outcome_name(reconstruction), px.PREDICTION_COLOUR, later, predicted),
    ):
        if clip is None:
            continue
        chosen = selection(len(clip), max_columns)
        labels = [px.time_label(times[int(index)]) for index in chosen]
        if clip is predicted and known is not None:
            labels = []  # the truth right above has them
        frames = list(px.fit(clip[chosen], frame_size))
        rows.append(Row([(name, _NAME_STYLE)], colour, frames, labels))
    draw_strip(rows, title=title).save(path)


def clip_strip(path: str | Path, frames: np.ndarray) -> None:
    """Draws all frames of one clip, numbered from 1, in rows of ten."""
    pixels = px.to_pixels(frames)
    frame_size = max(_FRAME_SIZE, *pixels.shape[1:3])
    numbered = list(enumerate(px.fit(pixels, frame_size), start=1))
    rows = []
    for start in range(0, len(numbered), 10):
        numbers, part = zip(*numbered[start : start + 10], strict=True)
        rows.append(Row([], px.INPUT_COLOUR, part, list(map(str, numbers))))
    draw_strip(rows).save(path)


def selection(num_frames: int, max_frames: int) -> np.ndarray:
    """Indices of at most `max_frames` frames, evenly spread from first to last."""
    count = min(num_frames, max_frames)
    return np.rint(np.linspace(0, num_frames - 1, count)).astype(int)


def classified_clips_strip(
    path: str | Path,
    frames: Sequence[np.ndarray],
    labels: Sequence[int],
    probabilities: Sequence[np.ndarray],
    classes: Sequence[str],
) -> None:
    """Draws clips, uint8 `[T, H, W, C]`, with their true and their predicted class.

    Probabilities are those of each class, `[K]`. Wrong predictions are marked in red.
    """
    chosen = selection(len(frames[0]), _MAX_COLUMNS)
    rows: list[Row] = []
    for clip, label, shares in zip(frames, labels, probabilities, strict=True):
        predicted = int(shares.argmax())
        wrong = label != predicted
        share = f"{100 * shares.max():.1f} %"
        style: dict[str, Any] = {"colour": px.WRONG_COLOUR if wrong else px.TEXT}
        true_name, name = (px.shortened(classes[k], 32) for k in (label, predicted))
        rows.append(
            Row(
                [
                    (f"true: {true_name}", _NAME_STYLE),
                    (f"predicted: {name}", style | {"bold": True}),
                    (f"wrong, {share}" if wrong else share, style),
                ],
                px.WRONG_COLOUR if wrong else px.TRUTH_COLOUR,
                list(px.fit(px.to_pixels(clip[chosen] / np.float32(255)), _FRAME_SIZE)),
                [] if rows else [str(frame + 1) for frame in chosen],
                {"colour": px.WRONG_COLOUR, "border": 2} if wrong else None,
            )
        )
    draw_strip(rows, row_gap=14).save(path)


def radar_strip(
    path: str | Path,
    observed_mm_per_h: np.ndarray,
    forecasts_mm_per_h: Mapping[str, np.ndarray],
    mask: np.ndarray,
    *,
    num_inputs: int,
    minutes_per_frame: float,
) -> None:
    """Draws what was observed, and below it what was forecast for the same times.

    Observed rain and mask (1 where there is data) are `[T_in + T_out, H, W]`, forecasts
    `[T_out, H, W]` by contender, in mm/h.
    """
    num_outputs = len(observed_mm_per_h) - num_inputs
    every = -(-num_outputs // (_RADAR_COLUMNS - 1))
    chosen = np.arange((num_outputs - 1) % every, num_outputs, every)
    scale = max(1, round(_RADAR_FRAME_SIZE / max(observed_mm_per_h.shape[1:])))
    known = px.enlarge(px.rain_colours(observed_mm_per_h, mask), scale)
    known = known[num_inputs - 1 :]
    minutes = [f"+{minutes_per_frame * (t + 1):g} min" for t in chosen]
    columns = [known[0], *known[1 + chosen]]
    rows = [Row([("observed", _NAME_STYLE)], px.TEXT, columns, ["0 min", *minutes])]
    for name, frames in forecasts_mm_per_h.items():
        pixels = px.enlarge(px.rain_colours(frames, mask[num_inputs:])[chosen], scale)
        colour = px.PREDICTION_COLOUR if name == "model" else px.FAINT_TEXT
        name_line = forecast_label(name), _NAME_STYLE
        rows.append(Row([name_line], colour, [None, *pixels]))
    rain_strip(rows).save(path)


def rain_strip(
    rows: Sequence[Row], note: str = "", *, probabilities: bool = False
) -> px.Canvas:
    """Draws rows of coloured rain beside the scale of the colours, and a note below.

    The scale goes from heavy rain down; each colour has the rate it begins at. With
    `probabilities`, their scale stands below it.
    """
    entries: list[tuple[str, tuple[int, int, int] | None]] = []  # None: not a colour.
    entries += [(f"{rate:g}", colour) for rate, colour in reversed(px.RAIN_COLOURS)]
    entries += [("dry", px.DRY_COLOUR), ("no data", px.NO_DATA_COLOUR)]
    if probabilities:
        entries += [("", None), ("probability", None)]
        scale = reversed(px.PROBABILITY_COLOURS)
        entries += [(f"{100 * share:g} %", colour) for share, colour in scale]
        entries += [("less", px.DRY_COLOUR)]
    entries = [("mm/h", None), *entries, (note, None)]
    top = _MARGIN + _TIME_HEIGHT - _LEGEND_STEP
    height = top + _LEGEND_STEP * (len(entries) - (not note))
    canvas = draw_strip(rows, extra_width=_LEGEND_WIDTH, min_height=height)
    left = canvas.image.width - _LEGEND_WIDTH
    for number, (text, colour) in enumerate(entries):
        y = top + _LEGEND_STEP * number
        if colour is None:
            place = left, y + (6 if number == 0 else 9)
            canvas.text(place, text, size=12, anchor="lm", colour=px.FAINT_TEXT)
            continue
        canvas.bar((left - 1, y - 1, 20, 18), "#c9ced8")
        canvas.bar((left, y, 18, 16), "#" + "".join(f"{part:02x}" for part in colour))
        canvas.text((left + 26, y + 8), text, size=12, anchor="lm")
    return canvas
