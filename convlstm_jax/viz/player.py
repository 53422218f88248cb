"""Clips for the player of a report: films in panels, frame by frame with a slider."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlstm_jax.metrics.baselines import forecast_label
from convlstm_jax.viz import pixels as px

# All pictures of a player together; larger frames are shrunk until they fit.
_MAX_BYTES = 4_000_000
_MIN_SIDE = 32
_TOO_BRIGHT, _TOO_DARK = (255, 150, 60), (90, 160, 255)
# Errors of this rain rate or more have the strongest colour.
_MAX_ERROR_MM_PER_H = 10.0


@dataclass(frozen=True)
class ClipName:
    """What identifies a clip of a test set to a reader."""

    index: int  # place in the test set
    film: str = ""  # the film that it is cut from, and where in it, if any
    condition: str = ""  # that the film was taken under, if any

    def __str__(self) -> str:
        """`Test sequence 3 (run_2.avi, 0.4 m/s)`."""
        origin = ", ".join(filter(None, (self.film, self.condition)))
        return f"Test sequence {self.index}" + (f" ({origin})" if origin else "")

    def to_json(self) -> dict[str, Any]:
        """The attributes that are known."""
        return {k: v for k, v in vars(self).items() if k == "index" or v}


@dataclass(frozen=True)
class PlayerRow:
    """One film of a clip, in a panel of its own."""

    name: str  # written above it
    first: int  # position of its first frame on the slider
    pixels: np.ndarray  # uint8 [T, H, W, 1 or 3]
    notes: Sequence[str] = ()  # a text for each frame, or none at all
    hint: str = ""  # shown where there is no note
    kind: str = "input"  # or "truth", "prediction", "error": its colour


@dataclass(frozen=True)
class PlayerClip:
    """A clip of the player."""

    name: str  # in the list of clips
    group: str  # the heading it stands under in that list
    times: Sequence[str]  # names of the slider's positions
    rows: Sequence[PlayerRow]  # the one of the inputs first
    note: str = ""  # a line about the clip


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
    """A forecast `[T, H, W, C]` as four films: input, truth, prediction and error."""
    first = len(inputs)
    error = prediction.astype(np.float64) - truth
    notes = [f"MSE {value:.4g}" for value in np.square(error).sum((1, 2, 3))]
    name_of_outcome, pixels = px.outcome_name(reconstruction), px.to_pixels(prediction)
    rows = [
        PlayerRow("input", 0, px.to_pixels(inputs)),
        PlayerRow("truth", first, px.to_pixels(truth), kind="truth"),
        PlayerRow(name_of_outcome, first, pixels, notes, kind="prediction"),
        _error_row(first, error, "blue: too dark, orange: too bright"),
    ]
    times = [*range(1 - first, 1), *px.outcome_times(len(truth), reconstruction)]
    return PlayerClip(name, group, [px.time_label(time) for time in times], rows, note)


def nowcast_clip(
    name: str,
    observed_mm_per_h: np.ndarray,
    forecasts_mm_per_h: Mapping[str, np.ndarray],
    mask: np.ndarray,
    *,
    minutes_per_frame: float,
    group: str,
    note: str = "",
) -> PlayerClip:
    """Clips as in `radar_strip` as films: input, observed, each forecast, the error."""
    first = len(observed_mm_per_h) - len(forecasts_mm_per_h["model"])
    observed = px.rain_colours(observed_mm_per_h, mask)
    later = mask[first:]
    rows = [
        PlayerRow("input", 0, observed[:first]),
        PlayerRow("observed", first, observed[first:], kind="truth"),
    ]
    for contender, forecast in forecasts_mm_per_h.items():
        kind = "prediction" if contender == "model" else "input"
        rain = px.rain_colours(forecast, later)
        rows.append(PlayerRow(forecast_label(contender), first, rain, kind=kind))
    error = forecasts_mm_per_h["model"] - observed_mm_per_h[first:]
    error = np.where(later > 0, error, 0)[..., np.newaxis] / _MAX_ERROR_MM_PER_H
    hint = f"blue: too little, orange: too much; full at {_MAX_ERROR_MM_PER_H:g} mm/h"
    rows.append(_error_row(first, error, hint))
    times = [
        f"{minutes_per_frame * (frame + 1 - first):+g} min".replace("-", "−")
        for frame in range(len(observed_mm_per_h))
    ]
    times[first - 1] = "0 min"
    return PlayerClip(name, group, times, rows, note)


def _error_row(first: int, error: np.ndarray, hint: str) -> PlayerRow:
    return PlayerRow("error", first, error_pixels(error), hint=hint, kind="error")


def error_pixels(error: np.ndarray) -> np.ndarray:
    """Errors `[T, H, W, C]` in colour: black for 0, orange above, blue below."""
    mean = np.nan_to_num(error.astype(np.float64).mean(-1, keepdims=True))
    size = np.clip(np.abs(mean), 0, 1)
    colour = np.where(mean > 0, np.array(_TOO_BRIGHT), np.array(_TOO_DARK))
    return np.rint(size * colour).astype(np.uint8)


def player_data(clips: Sequence[PlayerClip]) -> tuple[list[dict[str, Any]], int]:
    """The clips as `report.js` reads them, and the factor by which they were shrunk."""
    films = [row.pixels for clip in clips for row in clip.rows]
    smallest = min((min(film.shape[1:3]) for film in films), default=1)
    factor = 1
    while True:
        pictures = [_picture(film, factor) for film in films]
        fits = sum(map(len, pictures)) * 3 / 4 <= _MAX_BYTES
        if fits or smallest // (factor + 1) < _MIN_SIDE:
            break
        factor += 1
    remaining = iter(pictures)
    data = []
    for clip in clips:
        rows = []
        for row in clip.rows:
            count, height, width, _ = row.pixels.shape
            rows.append({
                "name": row.name, "kind": row.kind, "first": row.first, "count": count,
                "width": width // factor, "height": height // factor,
                "notes": list(row.notes), "hint": row.hint, "picture": next(remaining),
            })  # fmt: skip
        data.append({"note": clip.note, "times": list(clip.times), "rows": rows})
    return data, factor


def _picture(pixels: np.ndarray, factor: int) -> str:
    """The frames of a film below each other, as the address of a PNG picture."""
    height, width = (side // factor for side in pixels.shape[1:3])
    kept = pixels[:, : height * factor, : width * factor]
    if factor > 1:
        blocks = kept.reshape(len(kept), height, factor, width, factor, -1)
        kept = np.rint(blocks.mean((2, 4))).astype(np.uint8)
    file = io.BytesIO()
    px.to_image(kept.reshape(-1, width, kept.shape[-1])).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/png;base64,{text}"
