"""The player of a report: clips frame by frame, with a slider."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from convlstm_jax.errors import UserError
from convlstm_jax.viz.canvas import outcome_name, outcome_times, time_label
from convlstm_jax.viz.pixels import to_image, to_pixels

SCRIPT = (
    resources.files("convlstm_jax.viz")
    .joinpath("report_player.js")
    .read_text(encoding="utf-8")
)
"""What the page runs; it loads nothing and needs no library."""

# All pictures of a player together; larger frames are shrunk until they fit.
_MOST_BYTES = 4_000_000
_SMALLEST_SIDE = 32

# Errors: black for none, then towards one of these.
_TOO_BRIGHT = (255, 150, 60)
_TOO_DARK = (90, 160, 255)


@dataclass(frozen=True)
class PlayerRow:
    """One film of a clip, in a panel of its own.

    Attributes:
      name: What is written above it.
      first: Position of its first frame on the slider.
      pixels: uint8 [T, H, W, 1 or 3].
      notes: A text for each frame, or none at all.
      hint: Stands where there is no note.
      kind: "input", "truth", "prediction" or "error", for its colour.
    """

    name: str
    first: int
    pixels: np.ndarray
    notes: Sequence[str] = ()
    hint: str = ""
    kind: str = "input"


@dataclass(frozen=True)
class PlayerClip:
    """A clip of the player.

    Attributes:
      name: What it is called in the list of clips.
      group: The heading it stands under in that list.
      times: What each position of the slider is called.
      rows: The films, the one of the inputs first.
      note: A line about the clip.
    """

    name: str
    group: str
    times: Sequence[str]
    rows: Sequence[PlayerRow]
    note: str = ""


def forecast_clip(
    name: str,
    inputs: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    group: str = "",
    note: str = "",
    reconstruction: bool = False,
) -> PlayerClip:
    """A forecast as four films: input, truth, prediction and error.

    Args:
      name: See `PlayerClip`.
      inputs: Frames given, [T_in, H, W, C], floats in [0, 1].
      truth: Frames that followed, [T_out, H, W, C].
      prediction: Frames predicted, [T_out, H, W, C].
      group: See `PlayerClip`.
      note: See `PlayerClip`.
      reconstruction: Whether truth and prediction are the inputs, last one first.

    Raises:
      UserError: Truth and prediction differ in shape.
    """
    if truth.shape != prediction.shape:
        raise UserError(
            f"prediction has the shape {prediction.shape}, but must have the shape of "
            f"truth, {truth.shape}."
        )
    first = len(inputs)
    error = prediction.astype(np.float64) - truth
    squares = np.square(error).sum((1, 2, 3))
    outcome = outcome_name(reconstruction)
    times = [*range(1 - first, 1), *outcome_times(len(truth), reconstruction)]
    return PlayerClip(
        name,
        group,
        [time_label(time) for time in times],
        [
            PlayerRow("input", 0, to_pixels(inputs)),
            PlayerRow("truth", first, to_pixels(truth), kind="truth"),
            PlayerRow(
                outcome,
                first,
                to_pixels(prediction),
                notes=[f"MSE {value:.4g}" for value in squares],
                kind="prediction",
            ),
            PlayerRow(
                "error",
                first,
                error_pixels(error),
                hint="blue: too dark, orange: too bright",
                kind="error",
            ),
        ],
        note,
    )


def error_pixels(error: np.ndarray) -> np.ndarray:
    """Differences in colour: black for none, orange above 0, blue below.

    Args:
      error: [T, H, W, C], prediction less truth, from -1 to 1; the mean over channels
        is drawn.

    Returns:
      uint8 [T, H, W, 3].
    """
    mean = np.nan_to_num(error.astype(np.float64).mean(-1, keepdims=True))
    size = np.clip(np.abs(mean), 0, 1)
    colour = np.where(mean > 0, np.array(_TOO_BRIGHT), np.array(_TOO_DARK))
    return np.rint(size * colour).astype(np.uint8)


def player_html(clips: Sequence[PlayerClip]) -> str:
    """The player as part of a page that runs `SCRIPT` below it; "" without clips."""
    if not clips:
        return ""
    factor, pictures = _fitting_pictures(clips)
    data = json.dumps(
        [_as_json(clip, factor, pictures) for clip in clips], ensure_ascii=False
    )
    shrunk = f" Frames are shrunk to 1/{factor} here." if factor > 1 else ""
    # A text that is data ends at the first "</script>", whoever wrote it.
    data = data.replace("<", "\\u003c")
    return (
        '<h2>Player</h2><div class="card player" id="player-box" hidden>'
        '<div class="controls"><label>Clip <select id="player-clip">'
        f"{_options(clips)}</select></label>"
        '<button id="player-play" type="button">▶ Play</button>'
        '<input id="player-slider" type="range" min="0" step="1" aria-label="Frame">'
        '<output id="player-time"></output></div><p class="hint" id="player-note"></p>'
        '<div class="panels" id="player-panels"></div>'
        '<p class="hint">Arrow keys go frame by frame; an error is prediction less '
        f"truth.{shrunk}</p></div>"
        "<noscript><p>The player needs JavaScript, which is switched off here; the "
        "pictures below show the same clips.</p></noscript>"
        f'<script type="application/json" id="player-data">{data}</script>'
    )


def _options(clips: Sequence[PlayerClip]) -> str:
    """The list of clips, those that follow each other in one group together."""
    html, group = "", None
    for index, clip in enumerate(clips):
        if clip.group != group:
            html += "</optgroup>" if group is not None else ""
            html += f'<optgroup label="{escape(clip.group)}">'
            group = clip.group
        html += f'<option value="{index}">{escape(clip.name)}</option>'
    return f"{html}</optgroup>"


def _fitting_pictures(clips: Sequence[PlayerClip]) -> tuple[int, Iterator[bytes]]:
    """The pictures of all rows, and the factor by which frames had to be shrunk."""
    smallest = min(min(row.pixels.shape[1:3]) for clip in clips for row in clip.rows)
    factor = 1
    while True:
        pictures = [_picture(row.pixels, factor) for clip in clips for row in clip.rows]
        fits = sum(map(len, pictures)) <= _MOST_BYTES
        if fits or smallest // (factor + 1) < _SMALLEST_SIDE:
            return factor, iter(pictures)
        factor += 1


def _picture(pixels: np.ndarray, factor: int) -> bytes:
    """The frames of a film below each other, as one PNG picture."""
    height, width = pixels.shape[1] // factor, pixels.shape[2] // factor
    kept = pixels[:, : height * factor, : width * factor]
    if factor > 1:
        blocks = kept.reshape(len(kept), height, factor, width, factor, -1)
        kept = np.rint(blocks.mean((2, 4))).astype(np.uint8)
    image = to_image(kept.reshape(-1, width, kept.shape[-1]))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _as_json(
    clip: PlayerClip, factor: int, pictures: Iterator[bytes]
) -> dict[str, Any]:
    return {
        "note": clip.note,
        "times": list(clip.times),
        "rows": [
            {
                "name": row.name,
                "kind": row.kind,
                "first": row.first,
                "count": len(row.pixels),
                "width": row.pixels.shape[2] // factor,
                "height": row.pixels.shape[1] // factor,
                "notes": list(row.notes),
                "hint": row.hint,
                "picture": "data:image/png;base64,"
                + base64.b64encode(next(pictures)).decode("ascii"),
            }
            for row in clip.rows
        ],
    }
