"""Writes a nowcast to a file: rates, maps or pictures, as its suffix says."""

from pathlib import Path

import numpy as np

from convlstm_jax.rain import DRY_BELOW_MM_PER_H
from convlstm_jax.viz.clip_writer import ClipLook, write_clip
from convlstm_jax.viz.film_strip import film_strip
from convlstm_jax.viz.maps import MAP_SUFFIXES, write_map
from convlstm_jax.viz.pixels import rain_colours


def write_nowcast(
    path: Path,
    given: np.ndarray,
    forecast: np.ndarray,
    mask: np.ndarray,
    look: ClipLook,
) -> None:
    """Writes rain rates in mm/h, `[T, H, W]`, of which those below 0.1 are dry: 0.

    The mask `[T, H, W]` of the given frames is 1 where there is data; pixels without
    in the last of them are NaN or grey.
    """
    valid, suffix = np.broadcast_to(mask[-1] > 0, forecast.shape), path.suffix.lower()
    rain = np.where(forecast < DRY_BELOW_MM_PER_H, 0.0, forecast)
    rates = np.where(valid, rain, np.nan)
    if suffix == ".npy":
        write_clip(path, rates[..., np.newaxis])
    elif suffix in MAP_SUFFIXES and look.issued:
        write_map(path, rates, look.times, look.issued, look.grid)
    elif suffix == ".png":
        known = rain_colours(given, mask) / 255.0
        film_strip(path, known, None, rain_colours(rain, valid) / 255.0)
    else:
        coloured = rain_colours(rain, valid) / np.float32(255)
        write_clip(path, coloured, look.frames_per_second or 5, look.scale)
