"""Writes a nowcast to a file: rates, maps or pictures, as its suffix says."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np

from convlstm_jax.ensembles import exceedance_probability, probability_matched_mean
from convlstm_jax.rain import DRY_BELOW_MM_PER_H
from convlstm_jax.viz import film_strip as strips
from convlstm_jax.viz import pixels as px
from convlstm_jax.viz.clip_writer import ClipLook, write_clip
from convlstm_jax.viz.maps import MAP_SUFFIXES, graticule, write_map

_FRAME_SIZE, _MAX_COLUMNS, _MAX_MEMBERS = 160, 8, 3


def write_nowcast(
    path: Path,
    given: np.ndarray,
    forecast: np.ndarray,
    mask: np.ndarray,
    look: ClipLook,
    rates: Sequence[float],
) -> None:
    """Writes members' rain rates in mm/h, `[T, H, W, M]`; those below 0.1 are dry: 0.

    Given rates are `[T, H, W]`, and so is their mask, 1 where there is data; pixels
    without in the last of them are NaN or grey. `.npy` holds all members, maps see
    `write_map`. Of several members, a film strip has the probability-matched mean, the
    probabilities of the two lowest of `rates` (mm/h), and some members; a film has the
    first two side by side. Pictures tell the minutes from the last
    composite on and what colours mean, and have meridians and parallels where the
    projection is known.
    """
    rates, suffix = sorted(set(rates)), path.suffix.lower()
    if suffix == ".png":  # Only what is drawn is computed.
        drawn = strips.selection(len(forecast), _MAX_COLUMNS)
        look = look._replace(times=[look.times[i] for i in drawn])
        forecast = forecast[drawn]
    rain = np.where(forecast < DRY_BELOW_MM_PER_H, 0.0, forecast)
    rain[:, mask[-1] == 0] = np.nan
    if suffix == ".npy":
        write_clip(path, rain)
    elif suffix in MAP_SUFFIXES:
        write_map(path, rain, look, rates)
    elif suffix == ".png":
        _write_strip(path, px.rain_colours(given, mask), rain, look, rates)
    else:
        _write_film(path, rain, look, rates)


def _write_strip(
    path: Path,
    observed: np.ndarray,
    rain: np.ndarray,
    look: ClipLook,
    rates: Sequence[float],
) -> None:
    """A row of each panel below the last composites."""
    shown = strips.selection(len(observed), _MAX_COLUMNS)
    panels = [("observed", observed[shown]), *_panels(rain, rates)]
    given = [look.given[i] for i in shown]
    times = [given, look.times, *[()] * (len(panels) - 2)]  # Told once.
    rows: list[strips.Row] = []
    for (name, colours), of_row in zip(panels, times, strict=True):
        pictures = px.fit(colours, _FRAME_SIZE)
        note = _draw_lines(pictures, rain, look)
        first, *more = name.split("\n")
        lines = [(first, {"bold": True}), *((line, {}) for line in more)]
        colour = px.PREDICTION_COLOUR if rows else px.INPUT_COLOUR
        told = [_minutes(time, look) for time in of_row]
        rows.append(strips.Row(lines, colour, list(pictures), told))
    several = rain.shape[-1] > 1
    strips.rain_strip(rows, note, probabilities=several).save(path)


def _write_film(
    path: Path, rain: np.ndarray, look: ClipLook, rates: Sequence[float]
) -> None:
    """A picture for each time, with the first two panels side by side."""
    panels = list(islice(_panels(rain, rates), 2))
    names = [name.split("\n")[-1] for name, _ in panels[1:]]
    films = [px.enlarge(colours, look.scale) for _, colours in panels]
    for film in films:
        note = _draw_lines(film, rain, look)
    drawn = []
    for time, *frames in zip(look.times, *films, strict=True):
        told = [f"{time:%H:%M}, {_minutes(time, look)}", *names]
        rows = [strips.Row([], "", frames, told)]
        canvas = strips.rain_strip(rows, note, probabilities=bool(names))
        drawn.append(np.asarray(canvas.image))
    write_clip(path, np.stack(drawn) / np.float32(255), look.frames_per_second or 5)


def _panels(
    rain: np.ndarray, rates: Sequence[float]
) -> Iterator[tuple[str, np.ndarray]]:
    """What is drawn of a forecast: its name, and colours `[T, H, W, 3]`."""
    known, num_members = ~np.isnan(rain[..., 0]), rain.shape[-1]
    mean = px.rain_colours(probability_matched_mean(rain), known)
    if num_members == 1:
        yield "forecast", mean
        return
    yield f"matched mean\nof {num_members} members", mean
    for rate in rates[:2]:
        (share,) = exceedance_probability(rain, [rate])
        yield f"probability\n≥ {rate:g} mm/h", px.probability_colours(share, known)
    for member in range(min(num_members, _MAX_MEMBERS)):
        yield f"member {member + 1}", px.rain_colours(rain[..., member], known)


def _minutes(time: datetime, look: ClipLook) -> str:
    """The minutes from the last composite on."""
    told = f"{(time - look.given[-1]).total_seconds() / 60:+g} min"
    return told.replace("+0 ", "0 ").replace("-", "\N{MINUS SIGN}")


def _draw_lines(pictures: np.ndarray, rain: np.ndarray, look: ClipLook) -> str:
    """Draws meridians and parallels into pictures; what the legend says of them."""
    lines, degrees = graticule(look.grid, rain.shape[1:3], pictures.shape[1:3])
    pictures[:, lines] = pictures[:, lines] // 4 * 3
    return f"lines: {degrees:g}°" if degrees else ""
