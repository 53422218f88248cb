"""The formats of radar composites, and how each is read as reflectivity."""

import gzip
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from convlstm_jax.data.files import check_budget, is_store, reason
from convlstm_jax.data.radar.cf import read_cf, times_of
from convlstm_jax.data.radar.field import Field, Grid, grid_of, with_corners
from convlstm_jax.data.radar.hdf5 import read_knmi, read_odim
from convlstm_jax.data.radar.pysteps_files import (
    IMPORTERS,
    check_importer,
    read_pysteps,
)
from convlstm_jax.data.video.pictures import PICTURE_SUFFIXES, open_picture
from convlstm_jax.errors import UserError
from convlstm_jax.paths import check_regular

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

# Smallest and largest measured value; beyond them a value stands for no data.
_LIMITS = {"dBZ": (-150.0, 100.0), "mm/h": (-1.0, 10_000.0)}
_MAX_SIDE = 100_000  # pixels
_RAIN = "Z^(1/b)"  # The unit of a field that is as `read_rain` returns it.

PYSTEPS = "pysteps:"
"""Stands before the name of an importer."""

_OTHERS = ", and install osgeo (GDAL), pygrib or metranet as their documents say"

# What HDF5 and NetCDF hold at their top.
_MEMBERS = {
    "dataset1": "odim_hdf5",
    "image1": "knmi_hdf5",
    "crr_intensity": f"{PYSTEPS}saf_crri",
    "start_time": "bom_rf3",
}

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
            + (_OTHERS if {*missing} & {"osgeo", "pygrib", "metranet"} else "")
        )
    if radar_format.startswith(PYSTEPS) and wanted.packages:
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
    return "picture" if path.name.lower().endswith(PICTURE_SUFFIXES) else ""


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
    dbz = config.dbz_gain * np.arange(256) + config.dbz_offset
    dbz[config.no_data_value] = np.nan
    # By table: 256 powers in place of a million.
    with np.errstate(over="ignore"):
        rain = 10.0 ** (dbz / (10 * config.zr_b))
    return Field(rain[values], _RAIN, grid=grid)


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
}


def format_named(name: str) -> RadarFormat:
    """A format by its name, or by that of an importer of pysteps after `pysteps:`."""
    importer = name.removeprefix(PYSTEPS)
    own = name if importer == name else _READ_HERE.get(importer)
    return RADAR_FORMATS[own] if own else _of_pysteps(importer)


def is_format(name: str) -> bool:
    """Whether there may be a format of this name."""
    return name in RADAR_FORMATS or bool(re.fullmatch(rf"{PYSTEPS}\w+", name))
