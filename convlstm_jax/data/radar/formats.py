"""The formats of radar composites, and how each is read as reflectivity."""

import contextlib
import gzip
import importlib.util
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import tifffile

from convlstm_jax.data.files import check_budget, is_store, reason
from convlstm_jax.data.radar.cf import read_cf, times_of
from convlstm_jax.data.radar.field import Field, Grid, grid_of, unit_of, with_corners
from convlstm_jax.data.radar.hdf5 import read_knmi, read_odim
from convlstm_jax.data.radar.pysteps_files import (
    IMPORTERS,
    check_importer,
    read_pysteps,
)
from convlstm_jax.data.video.pictures import PICTURE_SUFFIXES, open_picture
from convlstm_jax.errors import UserError
from convlstm_jax.paths import check_regular
from convlstm_jax.quiet import quiet

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

# Smallest and largest measured value; beyond them a value stands for no data.
_LIMITS = {"dBZ": (-150.0, 100.0), "mm/h": (-1.0, 10_000.0)}
_MAX_SIDE = 100_000  # pixels
_RAIN = "Z^(1/b)"  # The unit of a field that is as `read_rain` returns it.

PYSTEPS = "pysteps:"
"""Stands before the name of an importer."""

_OTHERS = ", and install metranet as its document says"

# What HDF5 and NetCDF hold at their top.
_MEMBERS = {
    "dataset1": "odim_hdf5",
    "image1": "knmi_hdf5",
    "crr_intensity": f"{PYSTEPS}saf_crri",
    "start_time": "bom_rf3",
}

_TIFF = rb"II[*+]\0|MM\0[*+]"
_GEOTIFF_TAGS = (33550, 34264, 34735)  # Size of a pixel, transformation, projection.

# What files begin with that are not told by their names.
_BEGINNINGS = {
    rb"GIF8": "mch_gif",
    rb"GRIB": f"{PYSTEPS}mrms_grib",
    rb"[A-Z]{2}\d{6}10000": f"{PYSTEPS}dwd_radolan",
}


def check_packages(radar_format: str) -> None:
    """Raises a `UserError` where a package that reads a format is missing."""
    wanted = format_named(radar_format)
    missing = [one for one in wanted.packages if importlib.util.find_spec(one) is None]
    if missing:
        raise UserError(
            f"radar_format is {radar_format!r}, which cannot be read without "
            f"{' and '.join(missing)}: run `pip install -r {wanted.requirements}`"
            + (_OTHERS if "metranet" in missing else "")
        )
    if radar_format.startswith(PYSTEPS) and "pysteps" in wanted.packages:
        check_importer(radar_format.removeprefix(PYSTEPS))


def format_of(path: Path) -> str:
    """The format of a composite by its first bytes, or "" if it is of none."""
    if is_store(path.name):
        return "cf_zarr"
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(2**16)
        if head.startswith(b"\x89HDF"):
            with h5py.File(path) as hdf5:
                held = set(hdf5)
        else:  # The names of classic NetCDF stand in its head.
            held = {name for name in _MEMBERS if name.encode() in head}
    except (OSError, UserError, RuntimeError):
        return ""
    if head.startswith((b"\x89HDF", b"CDF")):
        other = "cf_netcdf" if path.name.lower().endswith(_NETCDF_SUFFIXES) else ""
        return next((_MEMBERS[name] for name in _MEMBERS if name in held), other)
    for begin, name in _BEGINNINGS.items():
        if re.match(begin, head):
            return name
    if re.match(_TIFF, head) and _has_place(path):
        return "geotiff"
    return "picture" if path.name.lower().endswith(PICTURE_SUFFIXES) else ""


def _has_place(path: Path) -> bool:
    """Whether a TIFF says where it lies."""
    # Of a damaged file it may raise anything.
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as file:
        return any(code in file.pages.first.tags for code in _GEOTIFF_TAGS)
    return False


def read_rain(
    path: Path, config: "RadarConfig", index: int = 0
) -> tuple[np.ndarray, Grid]:
    """Reads a composite as Z^(1/b): float64 `[H, W]`, NaN for no data; and its grid.

    By Z = a R^b this is the rain rate R in mm/h, but for the factor a^(1/b), on which
    a mean or its reflectivity does not depend; a and b are those of the config,
    whichever the service uses. The northern row is the first. Rain accumulated (mm)
    becomes a rate by the minutes that the file names, or else those of one time step.
    """
    name = config.radar_format
    try:
        if not is_store(path.name):  # Its error is shorter than those of the readers.
            path.open("rb").close()
        name = (name if name != "auto" else format_of(path)) or "auto"
        if name == "auto":
            raise ValueError(f"it is none of {', '.join(RADAR_FORMATS)}")
        wanted = format_named(name)
        found = wanted.read(path, config, *((index,) if wanted.times else ()))
        if found.values.ndim != 2:
            raise ValueError(f"its field has {found.values.ndim} dimensions, not two")
        if max(found.values.shape) > _MAX_SIDE:
            raise ValueError(f"a side of its field has more than {_MAX_SIDE:,} pixels")
        with np.errstate(over="ignore", invalid="ignore"):
            rain = _rain(found, config)
    except Exception as error:  # Of a damaged file the readers may raise anything.
        raise UserError(
            f"'{path}' cannot be read as {name} ({reason(error)})"
        ) from error
    return np.where(np.isfinite(rain), rain, np.nan), found.grid


def _rain(found: Field, config: "RadarConfig") -> np.ndarray:
    values, unit = found.values, found.unit
    if unit == _RAIN:
        return values
    if unit == "mm":
        minutes = found.minutes or config.time_step_minutes
        if not minutes:
            raise ValueError(
                "it does not say over which time its rain accumulated: "
                "data.time_step_minutes must"
            )
        values, unit = values / (minutes / 60), "mm/h"
    if unit not in _LIMITS:
        raise ValueError(f"its unit is {unit!r}: it must be 'dBZ', 'mm/h' or 'mm'")
    low, high = _LIMITS[unit]
    beyond = np.isfinite(values) & ((values < low) | (values > high))
    if beyond.any():
        raise ValueError(
            f"it holds a value of {values[beyond][0]:g} {unit}, which must be from "
            f"{low:g} to {high:g}"
        )
    if unit == "dBZ":
        return 10.0 ** (values / (10 * config.zr_b))
    return config.zr_a ** (1 / config.zr_b) * np.maximum(values, 0)


def _read_picture(path: Path, config: "RadarConfig") -> Field:
    with open_picture(path) as picture:
        check_budget(path, 1, 8 * picture.width * picture.height)
        picture.load()
        mode, values = picture.mode, np.asarray(picture)
        grid = _pgm_grid(path, values.shape[:2]) if picture.format == "PPM" else {}
    if mode != "L":
        raise ValueError(f"its mode is {mode!r}: it must be grey with 8 bits")
    rain = _rain_of_bytes(values, config)
    rain[values == config.no_data_value] = np.nan
    return Field(rain, _RAIN, grid=grid)


def _rain_of_bytes(values: np.ndarray, config: "RadarConfig") -> np.ndarray:
    """Z^(1/b) of 8-bit values, by table: 256 powers in place of a million."""
    dbz = config.dbz_gain * np.arange(256) + config.dbz_offset
    with np.errstate(over="ignore"):
        return (10.0 ** (dbz / (10 * config.zr_b)))[values]


def _pgm_grid(path: Path, size: tuple[int, ...]) -> Grid:
    """The grid that the comments of a PGM file of the FMI describe."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        head = file.read(2**14).decode("ascii", "replace")
    told = dict(re.findall(r"^# *(\w+) +([^\n]+)$", head, re.MULTILINE))
    facts: dict[str, Any] = {
        f"{axis}pixelsize": told.get(f"metersperpixel_{axis}") for axis in "xy"
    }
    longitude, latitude, scaled = (
        told.get(name)
        for name in ("centrallongitude", "centrallatitude", "truelatitude")
    )
    if told.get("type") == "stereographic" and longitude and latitude and scaled:
        facts["projection"] = (
            f"+proj=stere +lon_0={float(longitude):g} +lat_0={float(latitude):g} "
            f"+lat_ts={float(scaled):g} +a=6371288 +units=m +no_defs"
        )
    corner = [float(one) for one in told.get("bottomleft", "").split()]
    lower_left = corner if len(corner) == 2 else [None, None]
    return with_corners(grid_of(facts), (size[0], size[1]), lower_left)


# --- GeoTIFF


def _read_geotiff(path: Path, config: "RadarConfig") -> Field:
    """The only band, or `data.product`, in the unit that the file tells.

    Without a unit, values of 8 bits are those of pictures. Files beside it that GDAL
    would read too, such as an outer mask, are not: a cache knows this file alone.
    """
    import rasterio  # Optional.

    alone = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    with (
        quiet(),
        rasterio.Env(**alone),
        rasterio.open(path.absolute(), driver="GTiff") as file,
    ):
        if file.subdatasets:
            raise ValueError(f"it has {len(file.subdatasets)} pages, not one")
        band = _geotiff_band(file, config.product)
        tile = math.prod(file.block_shapes[band - 1]) * file.count
        check_budget(path, 1, 8 * max(file.width * file.height, tile))
        unit, values = _geotiff_field(file, band, config)
        grid, (down, right) = _geotiff_grid(file)
    return Field(values[::down, ::right], unit, grid=grid)


def _geotiff_band(file: Any, product: str) -> int:
    """The number of the only band, or of that which `product` names."""
    kinds = dict(zip(file.indexes, file.colorinterp, strict=True))
    bands = [one for one, kind in kinds.items() if kind.name != "alpha"]
    names = {one: str(file.descriptions[one - 1] or "") for one in bands}
    chosen = [one for one in bands if product and product in (str(one), names[one])]
    chosen = bands if len(bands) == 1 else chosen
    if len(chosen) != 1:
        told = [
            f"{one} ({name!r})" if name else f"{one}" for one, name in names.items()
        ]
        more = ", …" if told[9:] else ""
        raise ValueError(
            f"it has the bands {', '.join(told[:9])}{more}: data.product must name one "
            "by its number or its description"
        )
    if kinds[chosen[0]].name == "palette":
        raise ValueError(
            "its values are numbers of colours: they must be reflectivity or rain"
        )
    return chosen[0]


def _geotiff_field(
    file: Any, band: int, config: "RadarConfig"
) -> tuple[str, np.ndarray]:
    """Unit and values of a band."""
    kind, unit = np.dtype(file.dtypes[band - 1]), file.units[band - 1]
    scale, offset = file.scales[band - 1], file.offsets[band - 1]
    own = (scale, offset) != (1.0, 0.0)
    if not unit and (own or kind != np.uint8):
        coding = (
            f" with a scale of {scale:g} and an offset of {offset:g}" if own else ""
        )
        raise ValueError(
            f"it holds {kind}{coding} and no unit: it must have the unit 'dBZ', 'mm/h' "
            "or 'mm', or hold uint8 without scale and offset, which data.dbz_gain reads"
        )
    if kind.kind not in "uif":
        raise ValueError(f"it holds {kind}: it must hold whole numbers or floats")
    told = any(one.name != "all_valid" for one in file.mask_flag_enums[band - 1])
    if kind.kind != "f" and kind.itemsize > 1 and not told:
        raise ValueError(f"it holds {kind} and no nodata, which it must")
    try:
        raw, unknown = file.read(band), file.read_masks(band) == 0
    except OSError as error:  # Which only says that there is a cause.
        raise ValueError(reason(error.__cause__ or error)) from error
    if kind.kind != "f" and not told:
        unknown = raw == config.no_data_value
    unit, factor = unit_of(unit) if unit else (_RAIN, 1.0)
    if unit == _RAIN:
        values = _rain_of_bytes(raw, config)
    else:
        values = factor * (raw.astype(np.float64) * scale + offset)
    values[unknown] = np.nan
    return unit, values


def _geotiff_grid(file: Any) -> tuple[Grid, tuple[int, int]]:
    """The grid, {} without a projection; the steps to the north-western pixel first."""
    place, crs = file.transform, file.crs
    if place.b or place.d:
        raise ValueError("its area is rotated: its rows must lie along the x axis")
    steps = (-1 if place.e > 0 and crs else 1, -1 if place.a < 0 and crs else 1)
    if not crs:
        return {}, steps
    name, factor = crs.units_factor
    unit = "degrees" if crs.is_geographic else {1.0: "m", 1000.0: "km"}.get(factor)
    if unit is None:
        raise ValueError(
            f"its lengths are in {name!r}: they must be in metres, km or degrees"
        )
    facts = {"xpixelsize": place.a, "ypixelsize": place.e, "cartesian_unit": unit}
    if crs.is_geographic or crs.is_projected:
        # WKT says all of a projection; in km it would have to be changed.
        facts["projection"] = crs.to_proj4() if unit == "km" else crs.to_wkt()
    for axis, side in enumerate("xy"):
        ends = sorted((file.bounds[axis], file.bounds[axis + 2]))
        facts |= {f"{side}1": ends[0], f"{side}2": ends[1]}
    return grid_of(facts), steps


@dataclass(frozen=True)
class RadarFormat:
    """How names of files end, what reads them, and optional packages it needs.

    Where a file has many composites, `times` lists them, and `read` also takes the
    index of one.
    """

    suffixes: tuple[str, ...]
    read: Callable[..., Field]
    packages: tuple[str, ...] = ()
    short_times: bool = False
    times: Callable[[Path, "RadarConfig"], list[datetime]] | None = None
    requirements: str = "requirements-radar.txt"


_HDF5_SUFFIXES = (".h5", ".hdf", ".hdf5")
_NETCDF_SUFFIXES = (".nc", ".nc4", ".cdf")


def _of_pysteps(importer: str) -> RadarFormat:
    suffixes, packages = IMPORTERS.get(importer, (("",), ()))
    read = partial(read_pysteps, importer=importer)
    return RadarFormat(suffixes, read, ("pysteps", *packages), short_times=True)


def _of_cf(suffixes: tuple[str, ...], package: str) -> RadarFormat:
    packages = ("xarray", package)
    needed = "requirements-xarray.txt"
    return RadarFormat(suffixes, read_cf, packages, False, times_of, needed)


RADAR_FORMATS: dict[str, RadarFormat] = {
    "picture": RadarFormat(PICTURE_SUFFIXES, _read_picture),
    "geotiff": RadarFormat((".tif", ".tiff"), _read_geotiff, ("rasterio",)),
    "odim_hdf5": RadarFormat(_HDF5_SUFFIXES, read_odim),
    "knmi_hdf5": RadarFormat(_HDF5_SUFFIXES, read_knmi),
    "mch_gif": _of_pysteps("mch_gif"),
    "bom_rf3": _of_pysteps("bom_rf3"),
    "cf_netcdf": _of_cf(_NETCDF_SUFFIXES, "h5netcdf"),
    "cf_zarr": _of_cf((".zarr",), "zarr"),
}

# Importers whose files are read here: with checks, and without pysteps.
_READ_HERE = {
    "odim_hdf5": "odim_hdf5",
    "opera_hdf5": "odim_hdf5",
    "knmi_hdf5": "knmi_hdf5",
    "fmi_pgm": "picture",
    "fmi_geotiff": "geotiff",
}


def format_named(name: str) -> RadarFormat:
    """A format by its name, or by that of an importer of pysteps after `pysteps:`."""
    importer = name.removeprefix(PYSTEPS)
    own = name if importer == name else _READ_HERE.get(importer)
    return RADAR_FORMATS[own] if own else _of_pysteps(importer)


def is_format(name: str) -> bool:
    """Whether there may be a format of this name."""
    return name in RADAR_FORMATS or bool(re.fullmatch(rf"{PYSTEPS}\w+", name))
