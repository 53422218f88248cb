"""Rain on the map: nowcasts as CF NetCDF and GeoTIFF, which say where they lie."""

import contextlib
import importlib.util
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.rain import DRY_BELOW_MM_PER_H
from convlstm_jax.viz.clip_writer import ClipLook

MAP_SUFFIXES = (".nc", ".tif")

_NEEDED = {".nc": ("netCDF4", "pyproj"), ".tif": ("rasterio", "pyproj")}
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


def write_map(path: Path, rain_mm_per_h: np.ndarray, look: ClipLook) -> None:
    """Writes rain rates `[T, H, W]`, NaN without data, of which the times are known.

    `.nc` is CF NetCDF, `.tif` a GeoTIFF with a band for each time. Without a known
    projection, places are pixels.
    """
    write = _write_netcdf if path.suffix.lower() == ".nc" else _write_geotiff
    issued = look.given[-1]
    minutes = np.array([(one - issued).total_seconds() / 60 for one in look.times])
    with atomic_file(path) as partial:
        write(partial, rain_mm_per_h.astype(np.float32), minutes, look)


def _write_netcdf(
    path: Path, rain: np.ndarray, minutes: np.ndarray, look: ClipLook
) -> None:
    import netCDF4  # Optional.

    crs, mapping = crs_of(look.grid), _mapping(crs_of(look.grid))
    left, upper, width, height = corner_of(look.grid, rain.shape[1:])
    rows, columns = (np.arange(count) + 0.5 for count in rain.shape[1:])
    since = {"units": f"seconds since {look.given[-1]:%Y-%m-%d %H:%M:%S}"}
    since["calendar"] = "standard"
    place = {one["axis"].lower(): one for one in crs.cs_to_cf()} if crs else {}
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.8"
        file.title, file.source = "precipitation nowcast", "convlstm_jax"
        file.comment = f"Rates below {DRY_BELOW_MM_PER_H:g} mm/h are dry: 0."
        for axis, size in zip(("time", "y", "x"), rain.shape, strict=True):
            file.createDimension(axis, size)

        def add(name: str, kind: str, axes: str, values: Any, **facts: Any) -> None:
            fill, packed = facts.pop("_FillValue", None), len(axes.split()) > 1
            one = file.createVariable(
                name, kind, tuple(axes.split()), fill_value=fill, zlib=packed,
                complevel=1,
            )  # fmt: skip
            one.setncatts(facts)
            one[...] = values

        of_time = {"standard_name": "time", "axis": "T", **since}
        add("time", "i4", "time", np.rint(60 * minutes), **of_time)
        reference = {"standard_name": "forecast_reference_time", **since}
        add("forecast_reference_time", "i4", "", 0, **reference)
        period = {"standard_name": "forecast_period", "units": "minutes"}
        add("lead_time", "f8", "time", minutes, **period)
        x, y = left + width * columns, upper - height * rows
        for axis, values in (("y", y), ("x", x)):
            unknown = {"axis": axis.upper(), "units": "1", "long_name": "pixels"}
            add(axis, "f8", axis, values, **place.get(axis, unknown))
        facts: dict[str, Any] = {
            "standard_name": "rainfall_rate",
            "long_name": "precipitation rate",
            "units": "mm h-1",
            "coordinates": "forecast_reference_time lead_time",
            "_FillValue": np.float32(np.nan),
        }
        if mapping:
            # pysteps looks for a variable of the projection's own name.
            facts["grid_mapping"] = mapping["grid_mapping_name"]
            add(facts["grid_mapping"], "i4", "", 0, **mapping)
        add("precip_intensity", "f4", "time y x", rain, **facts)


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
    path: Path, rain: np.ndarray, minutes: np.ndarray, look: ClipLook
) -> None:
    import rasterio  # Optional.

    crs, left, upper, width, height = (
        crs_of(look.grid), *corner_of(look.grid, rain.shape[1:])
    )  # fmt: skip
    transform = rasterio.Affine(width, 0.0, left, 0.0, -height, upper)
    profile = {
        "count": len(rain), "height": rain.shape[1], "width": rain.shape[2],
        "dtype": "float32", "nodata": math.nan, "compress": "deflate",
        "transform": transform, "crs": crs and crs.to_wkt(),
    }  # fmt: skip
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(rain)
        file.units = ["mm/h"] * len(rain)
        for band, time in enumerate(look.times):
            words = f"{minutes[band]:+g} min, {time:%Y-%m-%d %H:%M:%S}"
            file.set_band_description(band + 1, words)
