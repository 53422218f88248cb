"""Rain on the map: nowcasts as CF NetCDF and GeoTIFF, which say where they lie."""

import contextlib
import importlib.util
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.ensembles import (
    exceedance_probability,
    probability_matched_mean,
    quantiles,
)
from convlstm_jax.errors import UserError
from convlstm_jax.rain import DRY_BELOW_MM_PER_H
from convlstm_jax.viz.clip_writer import ClipLook

MAP_SUFFIXES = (".nc", ".tif")

_NEEDED = {".nc": ("netCDF4", "pyproj"), ".tif": ("rasterio", "pyproj")}
_QUANTILES = (0.1, 0.5, 0.9)
_RAIN_RATE = {"standard_name": "rainfall_rate", "units": "mm h-1"}
_DEGREES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # From line to line.
_LENGTHS = re.compile(r"\+(a|b|R|x_0|y_0)=([-+.\deE]+)")


def check_map_packages(path: Path) -> None:
    """Raises a UserError where a map cannot be written here."""
    needed = _NEEDED.get(path.suffix.lower(), ())
    if missing := [one for one in needed if importlib.util.find_spec(one) is None]:
        raise UserError(
            f"'{path}' needs {' and '.join(missing)}: run `pip install -r "
            "requirements-radar.txt`, or write .npy"
        )


def crs_of(grid: Mapping[str, Any]) -> Any:
    """The pyproj CRS of a grid, in metres or degrees; None if it is not known.

    Lengths in km become metres, also those of a projection whose Earth has a radius of
    6378, as KNMI writes it, which other programs would take for another planet.
    """
    if "x1" not in grid or "projection" not in grid:
        return None
    if importlib.util.find_spec("pyproj") is None:
        return None
    import pyproj  # Optional.

    text = grid["projection"].replace("+units=km", "+units=m")
    lengths = dict(_LENGTHS.findall(text))
    if 0 < float(lengths.get("a") or lengths.get("R") or 1e7) < 1e5:
        text = _LENGTHS.sub(lambda one: f"+{one[1]}={1000 * float(one[2]):.12g}", text)
    with contextlib.suppress(pyproj.exceptions.CRSError):
        return pyproj.CRS(text)
    return None


def corner_of(
    grid: Mapping[str, Any], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Left and upper edge of an area, and width and height of a pixel.

    In metres or degrees; where the projection is not known in pixels from below left.
    """
    if crs_of(grid) is None:
        return 0.0, float(size[0]), 1.0, 1.0
    length = 1000.0 if grid["cartesian_unit"] == "km" else 1.0
    left, upper, width, height = (
        length * grid[name] for name in ("x1", "y2", "xpixelsize", "ypixelsize")
    )
    return left, upper, width, height


def graticule(
    grid: Mapping[str, Any], size: tuple[int, int], shape: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """Meridians and parallels on a picture of `shape` of an area of `size` pixels.

    True where one is, and the degrees between them; none where the projection is not
    known.
    """
    crs, lines = crs_of(grid), np.zeros(shape, bool)
    if crs is None:
        return lines, 0.0
    import pyproj  # Optional.

    left, upper, width, height = corner_of(grid, size)
    rows, columns = ((np.arange(n) + 0.5) / n for n in shape)
    x, y = left + width * size[1] * columns, upper - height * size[0] * rows
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    places = np.stack(to_degrees.transform(*np.meshgrid(x, y)))
    places[~np.isfinite(places)] = 0.0
    span = np.ptp(places, axis=(1, 2)).min()
    step = next((one for one in _DEGREES if span / one <= 5), _DEGREES[-1])
    for number in np.floor(places / step):
        lines[1:] |= number[1:] != number[:-1]
        lines[:, 1:] |= number[:, 1:] != number[:, :-1]
    return lines, step


def write_map(
    path: Path, rain_mm_per_h: np.ndarray, look: ClipLook, rates: Sequence[float]
) -> None:
    """Writes rain rates of members `[T, H, W, M]`, of which the times are known.

    They are NaN without data. `.nc` is CF NetCDF: all members along `ens_number`, as
    pysteps has it, and the probabilities of `rates` (mm/h), quantiles, the mean and the
    probability-matched mean. `.tif` is a GeoTIFF with a band for each time, of the
    probability-matched mean; then come the probabilities, as the descriptions of the
    bands say. Of one member both hold it alone. Without a known projection, places are
    pixels.
    """
    write = _write_netcdf if path.suffix.lower() == ".nc" else _write_geotiff
    issued = look.given[-1]
    minutes = np.array([(one - issued).total_seconds() / 60 for one in look.times])
    rain = rain_mm_per_h.astype(np.float32, copy=False)
    with atomic_file(path) as partial:
        write(partial, rain, minutes, look, rates)


def _write_netcdf(
    path: Path,
    rain: np.ndarray,
    minutes: np.ndarray,
    look: ClipLook,
    rates: Sequence[float],
) -> None:
    import netCDF4  # Optional.

    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.8"
        file.title, file.source = "precipitation nowcast", "convlstm_jax"
        file.comment = f"Rates below {DRY_BELOW_MM_PER_H:g} mm/h are dry: 0."
        _add_axes(file, rain.shape[1:3], minutes, look)
        facts = {"coordinates": "forecast_reference_time lead_time"}
        if mapping := _mapping(crs_of(look.grid)):
            # pysteps looks for a variable of the projection's own name.
            facts["grid_mapping"] = mapping["grid_mapping_name"]
            _add(file, facts["grid_mapping"], "i4", "", 0, **mapping)
        name, axes = "precip_intensity", "time y x"
        rate = {"long_name": "precipitation rate", **_RAIN_RATE, **facts}
        if rain.shape[-1] == 1:
            _add(file, name, "f4", axes, rain[..., 0], **rate)
            return
        number = {"standard_name": "realization", "long_name": "ensemble member"}
        numbers = np.arange(rain.shape[-1]) + 1
        _add(file, "ens_number", "i4", "ens_number", numbers, units="1", **number)
        members = _add(file, name, "f4", f"ens_number {axes}", **rate)
        for member in range(len(numbers)):
            members[member] = rain[..., member]
        _add_products(file, rain, rates, facts)


def _add_axes(
    file: Any, size: tuple[int, int], minutes: np.ndarray, look: ClipLook
) -> None:
    """Adds the coordinates of time and place."""
    crs, (left, upper, width, height) = crs_of(look.grid), corner_of(look.grid, size)
    rows, columns = (np.arange(count) + 0.5 for count in size)
    since = {"units": f"seconds since {look.given[-1]:%Y-%m-%d %H:%M:%S}"}
    since["calendar"] = "standard"
    place = {one["axis"].lower(): one for one in crs.cs_to_cf()} if crs else {}
    of_time = {"standard_name": "time", "axis": "T", **since}
    _add(file, "time", "i4", "time", np.rint(60 * minutes), **of_time)
    reference = {"standard_name": "forecast_reference_time", **since}
    _add(file, "forecast_reference_time", "i4", "", 0, **reference)
    period = {"standard_name": "forecast_period", "units": "minutes"}
    _add(file, "lead_time", "f8", "time", minutes, **period)
    x, y = left + width * columns, upper - height * rows
    for axis, values in (("y", y), ("x", x)):
        unknown = {"axis": axis.upper(), "units": "1", "long_name": "pixels"}
        _add(file, axis, "f8", axis, values, **place.get(axis, unknown))


def _add_products(
    file: Any, members: np.ndarray, rates: Sequence[float], facts: Mapping[str, Any]
) -> None:
    """Adds what is made of all members, one lead time after the other."""

    def add(name: str, axes: str, words: str, **others: Any) -> Any:
        return _add(file, name, "f4", axes, long_name=words, **others, **facts)

    words = "precipitation rate that is reached or exceeded"
    _add(file, "threshold", "f8", "threshold", rates, long_name=words, units="mm h-1")
    words = "share of the members at or below the rate"
    _add(file, "quantile", "f8", "quantile", _QUANTILES, long_name=words, units="1")
    words = "share of the members at or above the threshold"
    axes = "threshold time y x"
    probability = add("probability_of_exceedance", axes, words, units="1")
    words = "quantile of the members' precipitation rates"
    quantile = add("precip_quantile", "quantile time y x", words, **_RAIN_RATE)
    words, how = "mean of the members", {"cell_methods": "realization: mean"}
    mean = add("precip_mean", "time y x", words, **how, **_RAIN_RATE)
    words = "probability-matched mean of the members (Ebert 2001)"
    matched = add("precip_matched_mean", "time y x", words, **_RAIN_RATE)
    for time in range(len(members)):
        one = members[time : time + 1]
        probability[:, time] = exceedance_probability(one, rates)[:, 0]
        quantile[:, time] = quantiles(one, _QUANTILES)[:, 0]
        mean[time] = one[0].mean(-1)
        matched[time] = probability_matched_mean(one)[0]


def _add(
    file: Any, name: str, kind: str, axes: str, values: Any = None, **facts: Any
) -> Any:
    """Adds a variable, its axis if it has the same name, and values if there are any.

    Fields are NaN without data; each is a chunk, as it is written and read.
    """
    if name == axes:
        file.createDimension(name, len(values))
    dimensions, options = tuple(axes.split()), {}
    if len(dimensions) > 1:
        field = [len(file.dimensions[axis]) for axis in dimensions[-2:]]
        chunks = [1] * (len(dimensions) - 2) + field
        options = {"fill_value": np.float32(np.nan), "chunksizes": chunks}
        options |= {"zlib": True, "complevel": 1}
    one = file.createVariable(name, kind, dimensions, **options)
    one.setncatts(facts)
    if values is not None:
        one[...] = values
    return one


def _mapping(crs: Any) -> dict[str, Any]:
    """The attributes of a projection, in CF's words and as WKT."""
    if crs is None:
        return {}
    with warnings.catch_warnings(action="ignore"):  # Of what the WKT alone can say.
        mapping = {"grid_mapping_name": "crs", **crs.to_cf()}
    if mapping["grid_mapping_name"] == "polar_stereographic":
        # CF and pysteps require it; PROJ knows it from the standard parallel.
        pole = math.copysign(90.0, mapping.get("standard_parallel", 90.0))
        mapping.setdefault("latitude_of_projection_origin", pole)
    return mapping


def _write_geotiff(
    path: Path,
    rain: np.ndarray,
    minutes: np.ndarray,
    look: ClipLook,
    rates: Sequence[float],
) -> None:
    import rasterio  # Optional.

    crs, left, upper, width, height = (
        crs_of(look.grid), *corner_of(look.grid, rain.shape[1:3])
    )  # fmt: skip
    times = [
        f"{ahead:+g} min, {time:%Y-%m-%d %H:%M:%S}"
        for ahead, time in zip(minutes, look.times, strict=True)
    ]
    shown = rates if rain.shape[-1] > 1 else ()
    names = times + [
        f"probability of {rate:g} mm/h or more, {time}"
        for rate in shown
        for time in times
    ]
    transform = rasterio.Affine(width, 0.0, left, 0.0, -height, upper)
    profile = {
        "count": len(names), "height": rain.shape[1], "width": rain.shape[2],
        "dtype": "float32", "nodata": math.nan, "compress": "deflate",
        "transform": transform, "crs": crs and crs.to_wkt(), "interleave": "band",
    }  # fmt: skip
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        fields = [probability_matched_mean(rain), *exceedance_probability(rain, shown)]
        file.write(np.concatenate(fields))
        file.units = ["mm/h"] * len(times) + ["1"] * (len(names) - len(times))
        file.descriptions = names
