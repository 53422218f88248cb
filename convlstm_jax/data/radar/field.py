"""A field of a composite as a file holds it, and the grid it lies on."""

import contextlib
import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Grid = dict[str, Any]
"""Where a field lies, as pysteps names it, or as much of it as is known.

"projection" (for PROJ), the corners "x1", "y1" (lower left), "x2", "y2" (upper right),
"xpixelsize", "ypixelsize", in "cartesian_unit" ("m", "km" or "degrees"), and "yorigin",
which is "upper".
"""

_KM = {"m": 0.001, "km": 1.0, "degrees": 111.2}
_NUMBERS = ("xpixelsize", "ypixelsize", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Field:
    """A field as a file holds it, the northern row first.

    `values` are NaN where there is no data, −inf where there is no echo; `unit` is
    "dBZ", "mm/h" or "mm"; `minutes` those in which mm were accumulated; `grid` what is
    known of where it lies.
    """

    values: np.ndarray
    unit: str
    minutes: float | None = None
    grid: Grid = field(default_factory=dict)


_MM_PER_H = re.compile(r"mm ?(/|per )? ?(h|hr|hour)(\^?\*{0,2}-1)?$")
_PER_SECOND = ("kg m-2 s-1", "kg m**-2 s**-1", "mm/s", "mm s-1")


def unit_of(text: Any) -> tuple[str, float]:
    """A unit as `Field` has it, however it is written, and the factor to it."""
    plain = str(text).strip()
    if plain in _PER_SECOND:
        return "mm/h", 3600.0
    if plain in ("kg m-2", "kg m**-2", "millimeter", "millimeters"):
        return "mm", 1.0
    if _MM_PER_H.match(plain):
        return "mm/h", 1.0
    return {"dbz": "dBZ"}.get(plain.lower(), plain), 1.0


def grid_of(facts: Mapping[str, Any]) -> Grid:
    """A grid of those facts (of pysteps or another) that are one's; {} if no size is.

    Raises a `ValueError` where pixels have no possible size.
    """
    numbers = {name: float(facts[name]) for name in _NUMBERS if _is_there(facts, name)}
    if not numbers.keys() >= {"xpixelsize", "ypixelsize"}:
        return {}
    corners = numbers if len(numbers) == len(_NUMBERS) else {}
    sizes = {name: abs(numbers[name]) for name in _NUMBERS[:2]}
    unit = str(facts.get("cartesian_unit", "m"))
    grid = {**corners, **sizes, "cartesian_unit": unit, "yorigin": "upper"}
    if facts.get("projection"):
        grid["projection"] = str(facts["projection"])
    if unit not in _KM or not all(0.001 <= side <= 1000 for side in pixel_km(grid)):
        width, height = sizes.values()
        raise ValueError(f"its pixels are of {width:g} x {height:g} {unit}")
    return grid


def _is_there(facts: Mapping[str, Any], name: str) -> bool:
    return facts.get(name) is not None and math.isfinite(float(facts[name]))


def pixel_km(grid: Grid) -> tuple[float, float]:
    """Height and width of a pixel in km; of degrees, in the middle of the area."""
    km, shrinking = _KM[grid["cartesian_unit"]], 1.0
    if grid["cartesian_unit"] == "degrees":
        middle = (grid.get("y1", 0.0) + grid.get("y2", 0.0)) / 2
        shrinking = max(math.cos(math.radians(middle)), 0.01)
    return km * grid["ypixelsize"], km * grid["xpixelsize"] * shrinking


def with_corners(
    grid: Grid, size: tuple[int, int], lower_left: Sequence[float | None]
) -> Grid:
    """Adds the corners of a grid of `size` (H, W) from one, longitude and latitude.

    Where pyproj is not installed, or does not know the projection, they are left out.
    """
    longitude, latitude = lower_left
    if None in lower_left or not grid or importlib.util.find_spec("pyproj") is None:
        return grid
    import pyproj  # Optional.

    x1 = y1 = math.inf
    with contextlib.suppress(KeyError, pyproj.exceptions.ProjError):
        x1, y1 = pyproj.Proj(grid["projection"])(longitude, latitude)
    if not math.isfinite(x1 + y1):
        return grid
    x2, y2 = x1 + size[1] * grid["xpixelsize"], y1 + size[0] * grid["ypixelsize"]
    return {**grid, "x1": x1, "y1": y1, "x2": x2, "y2": y2}


def coarser(grid: Grid, size: tuple[int, int], factors: tuple[float, float]) -> Grid:
    """The grid of `size` (H, W) blocks of `factors` (y, x) pixels, from above left."""
    if not grid:
        return grid
    height, width = factors[0] * grid["ypixelsize"], factors[1] * grid["xpixelsize"]
    grid = {**grid, "ypixelsize": height, "xpixelsize": width}
    if "x1" in grid:
        grid["x2"] = grid["x1"] + size[1] * width
        grid["y1"] = grid["y2"] - size[0] * height
    return grid
