"""Writes a nowcast to a file: rates, maps or pictures, as its suffix says."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from convlstm_jax.rain import DRY_BELOW_MM_PER_H
from convlstm_jax.viz import film_strip as strips
from convlstm_jax.viz import pixels as px
from convlstm_jax.viz.clip_writer import ClipLook, write_clip
from convlstm_jax.viz.maps import MAP_SUFFIXES, graticule, write_map

_FRAME_SIZE, _MAX_COLUMNS = 160, 8


def write_nowcast(
    path: Path,
    given: np.ndarray,
    forecast: np.ndarray,
    mask: np.ndarray,
    look: ClipLook,
) -> None:
    """Writes rain rates in mm/h, `[T, H, W]`, of which those below 0.1 are dry: 0.

    The mask `[T, H, W]` of the given frames is 1 where there is data; pixels without
    in the last of them are NaN or grey. Pictures tell the minutes from the last
    composite on and the rates of colours, and have meridians and parallels where the
    projection is known.
    """
    valid, suffix = np.broadcast_to(mask[-1] > 0, forecast.shape), path.suffix.lower()
    rain = np.where(forecast < DRY_BELOW_MM_PER_H, 0.0, forecast)
    rates = np.where(valid, rain, np.nan)
    if suffix == ".npy":
        write_clip(path, rates[..., np.newaxis])
    elif suffix in MAP_SUFFIXES:
        write_map(path, rates, look)
    elif suffix == ".png":
        colours = px.fit(px.rain_colours(rain, valid), _FRAME_SIZE)
        known = px.fit(px.rain_colours(given, mask), _FRAME_SIZE)
        _draw_lines(known, rain, look)
        note = _draw_lines(colours, rain, look)
        rows = [
            _row("observed", px.INPUT_COLOUR, known, look.given, look),
            _row("forecast", px.PREDICTION_COLOUR, colours, look.times, look),
        ]
        strips.rain_strip(rows, note).save(path)
    else:
        colours = px.enlarge(px.rain_colours(rain, valid), look.scale)
        note = _draw_lines(colours, rain, look)
        drawn = [
            strips.rain_strip([_row("", "", colours[i : i + 1], [time], look)], note)
            for i, time in enumerate(look.times)
        ]
        pictures = np.stack([np.asarray(one.image) for one in drawn]) / np.float32(255)
        write_clip(path, pictures, look.frames_per_second or 5)


def _row(
    name: str,
    colour: str,
    frames: np.ndarray,
    times: Sequence[datetime],
    look: ClipLook,
) -> strips.Row:
    """A row of frames below their minutes; without a name, also the clock time."""
    chosen = strips.selection(len(frames), _MAX_COLUMNS)
    minutes = [(one - look.given[-1]).total_seconds() / 60 for one in times]
    told = [f"{minutes[i]:+g} min".replace("+0 ", "0 ") for i in chosen]
    told = [one.replace("-", "\N{MINUS SIGN}") for one in told]
    if not name:
        told = [f"{times[i]:%H:%M}, {told[i]}" for i in chosen]
    lines = [(name, {"bold": True})] if name else []
    return strips.Row(lines, colour, list(frames[chosen]), told)


def _draw_lines(pictures: np.ndarray, rain: np.ndarray, look: ClipLook) -> str:
    """Draws meridians and parallels into pictures; what the legend says of them."""
    lines, degrees = graticule(look.grid, rain.shape[1:], pictures.shape[1:3])
    pictures[:, lines] = pictures[:, lines] // 4 * 3
    return f"lines: {degrees:g}°" if degrees else ""
