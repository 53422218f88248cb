"""Clips with the class each was taken for, as film strips in one PNG picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.canvas import (
    FAINT_TEXT,
    INPUT_COLOUR,
    TEXT,
    TRUTH_COLOUR,
    Canvas,
    font,
)
from convlstm_jax.viz.film_strip import selection
from convlstm_jax.viz.pixels import fit, to_pixels

WRONG_COLOUR = "#d13438"

_GAP = 6
_ROW_GAP = 14
_MARGIN = 16
_TIME_HEIGHT = 22
_LINE_HEIGHT = 18
_TEXT_SIZE = 13
_LONGEST_NAME = 32


def classified_clips_strip(
    path: str | Path,
    frames: np.ndarray,
    labels: Sequence[int] | np.ndarray | None,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    max_columns: int = 12,
    frame_size: int = 112,
) -> None:
    """Draws clips below each other, with their true and their predicted class.

    A row is one clip: what it is, what it was taken for and with which probability, and
    its frames, numbered from 1. Where the two differ, the row is marked in red and
    says "wrong". Of more frames than columns an even selection is drawn, first and
    last included.

    Args:
      path: The PNG file to write.
      frames: Clips [N, T, H, W, C], uint8 or floats in [0, 1].
      labels: True class of each clip [N], or None where nobody knows them.
      probabilities: Of each class [N, K], as the model has them.
      classes: Name of each class, K of them.
      max_columns: Frames drawn in a row at most, at least 2.
      frame_size: Wanted length of the longer side of a frame, pixels.

    Raises:
      UserError: There is no clip, shapes do not fit each other, a label is none of the
        classes or the file cannot be written.
    """
    frames = np.asarray(frames)
    predicted, probable = _predictions(frames, labels, probabilities, classes)
    if max_columns < 2:
        raise UserError(f"max_columns is {max_columns}, but must be at least 2.")
    chosen = selection(frames.shape[1], max_columns)
    clips = [fit(_pixels(clip[chosen]), frame_size) for clip in frames]
    texts = [
        _lines(None if labels is None else int(labels[clip]), index, share, classes)
        for clip, (index, share) in enumerate(zip(predicted, probable, strict=True))
    ]
    height, width = clips[0].shape[1:3]
    row_height = max(height, max(map(len, texts)) * _LINE_HEIGHT)
    longest = max(
        font(_TEXT_SIZE, bold=True).getlength(text) for lines in texts for text in lines
    )
    left = _MARGIN + 12 + round(longest) + 16
    canvas = Canvas(
        left + len(chosen) * (width + _GAP) - _GAP + _MARGIN,
        _MARGIN + _TIME_HEIGHT + len(clips) * (row_height + _ROW_GAP) - _ROW_GAP
        + _MARGIN,
    )  # fmt: skip
    for column, frame in enumerate(chosen):
        middle = left + column * (width + _GAP) + width / 2
        number = str(int(frame) + 1)
        canvas.text((middle, _MARGIN + 10), number, size=12, colour=FAINT_TEXT)
    top = _MARGIN + _TIME_HEIGHT
    for clip, (pixels, lines) in enumerate(zip(clips, texts, strict=True)):
        colour, border = INPUT_COLOUR, {}
        if labels is not None:
            colour = TRUTH_COLOUR
            if labels[clip] != predicted[clip]:
                colour, border = WRONG_COLOUR, {"colour": WRONG_COLOUR, "border": 2}
        canvas.bar((_MARGIN, top, 4, row_height), colour)
        _write(canvas, lines, top + row_height / 2, colour)
        for column, picture in enumerate(pixels):
            place = left + column * (width + _GAP), top + (row_height - height) // 2
            canvas.frame(picture, *place, **border)  # type: ignore[arg-type]
        top += row_height + _ROW_GAP
    with atomic_file(path) as partial:
        canvas.image.save(partial, "PNG", optimize=True)


def _predictions(
    frames: np.ndarray,
    labels: Sequence[int] | np.ndarray | None,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of each clip and its probability, both [N]."""
    if frames.ndim != 5 or 0 in frames.shape:
        raise UserError(
            f"frames has the shape {frames.shape}, but clips must be [N, T, H, W, C] "
            "with no empty axis."
        )
    probabilities = np.asarray(probabilities)
    expected = len(frames), len(classes)
    if probabilities.shape != expected:
        raise UserError(
            f"probabilities has the shape {probabilities.shape}, but must be "
            f"{expected}: one for each clip and class."
        )
    if labels is not None:
        known = np.asarray(labels)
        if (
            known.shape != (len(frames),)
            or not np.isin(known, range(len(classes))).all()
        ):
            raise UserError(
                f"labels is {known.tolist()}, but must be a number from 0 to "
                f"{len(classes) - 1} for each of the {len(frames)} clips."
            )
    return probabilities.argmax(axis=1), probabilities.max(axis=1)


def _lines(
    label: int | None, predicted: int, probability: float, classes: Sequence[str]
) -> list[str]:
    """What stands beside a clip: truth, prediction, and the probability of that."""
    lines = [
        f"predicted: {_shortened(classes[predicted])}",
        f"{100 * probability:.1f} %",
    ]
    if label is None:
        return lines
    if label != predicted:
        lines[1] = f"wrong, {lines[1]}"
    return [f"true: {_shortened(classes[label])}", *lines]


def _write(canvas: Canvas, lines: list[str], middle: float, colour: str) -> None:
    top = middle - (len(lines) - 1) * _LINE_HEIGHT / 2
    for number, line in enumerate(lines):
        wrong = colour == WRONG_COLOUR and not line.startswith("true: ")
        canvas.text(
            (_MARGIN + 12, top + number * _LINE_HEIGHT),
            line,
            size=_TEXT_SIZE,
            anchor="lm",
            colour=WRONG_COLOUR if wrong else TEXT,
            bold=number < len(lines) - 1,
        )


def _pixels(clip: np.ndarray) -> np.ndarray:
    return to_pixels(clip / np.float32(255) if clip.dtype == np.uint8 else clip)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
