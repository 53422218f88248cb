"""The formats of radar composites, and how each is read as reflectivity."""

import contextlib
import gzip
import importlib.util
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from convlstm_jax.data.files import reason
from convlstm_jax.data.radar.field import Field, Grid, grid_of, with_corners
from convlstm_jax.data.radar.hdf5 import read_knmi, read_odim
from convlstm_jax.data.video.pictures import PICTURE_SUFFIXES, open_picture
from convlstm_jax.errors import UserError
from convlstm_jax.paths import check_regular

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

# Smallest and largest measured value; beyond them a value stands for no data.
_LIMITS = {"dBZ": (-150.0, 100.0), "mm/h": (-1.0, 10_000.0)}

# MeteoSwiss's products, and the unit of each: rain accumulated, or its rate.
_MCH_UNITS = {"AQC": "mm", "CPC": "mm", "AZC": "mm", "RZC": "mm/h"}

# netCDF's library must not be entered twice at once, and which warnings are shown is
# a matter of the whole process.
_ONE_AT_A_TIME = threading.Lock()


def check_packages(radar_format: str) -> None:
    """Raises a `UserError` where a package that reads a format is missing."""
    packages = RADAR_FORMATS[radar_format].packages
    missing = [one for one in packages if importlib.util.find_spec(one) is None]
    if missing:
        raise UserError(
            f"radar_format is {radar_format!r}, which cannot be read without "
            f"{' and '.join(missing)}: run `pip install -r requirements-radar.txt`"
        )


def format_of(path: Path) -> str:
    """The format of a composite by its first bytes, or "" if it is of none."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(20)
        if head.startswith(b"\x89HDF"):
            return _hdf5_format(path)
    except (OSError, UserError, RuntimeError):
        return ""
    if head.startswith(b"GIF8"):
        return "mch_gif"
    return "picture" if path.name.lower().endswith(PICTURE_SUFFIXES) else ""


def _hdf5_format(path: Path) -> str:
    with h5py.File(path) as file:
        names = set(file)
    found = {"dataset1": "odim_hdf5", "image1": "knmi_hdf5", "precipitation": "bom_rf3"}
    return next((found[name] for name in found if name in names), "")


def read_rain(path: Path, config: "RadarConfig") -> tuple[np.ndarray, Grid]:
    """Reads a composite as Z^(1/b): float64 `[H, W]`, NaN for no data; and its grid.

    By Z = a R^b this is the rain rate R in mm/h, but for the factor a^(1/b), on which
    a mean or its reflectivity does not depend; a and b are those of the config,
    whichever the service uses. The northern row is the first. Rain accumulated (mm)
    becomes a rate by the minutes that the file names, or else those of one time step.
    """
    name = config.radar_format
    try:
        path.open("rb").close()  # Its error is shorter than those of the readers.
        name = (name if name != "auto" else format_of(path)) or "auto"
        if name == "auto":
            raise ValueError(f"it is none of {', '.join(RADAR_FORMATS)}")
        found = RADAR_FORMATS[name].read(path, config)
        if found.values.ndim != 2:
            raise ValueError(f"its field has {found.values.ndim} dimensions, not two")
        with np.errstate(over="ignore", invalid="ignore"):
            rain = _rain(found, config)
    except Exception as error:  # Of a damaged file the readers may raise anything.
        raise UserError(
            f"'{path}' cannot be read as {name} ({reason(error)})"
        ) from error
    return np.where(np.isfinite(rain), rain, np.nan), found.grid


def _rain(found: Field, config: "RadarConfig") -> np.ndarray:
    values, unit = found.values, found.unit
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
        picture.load()
        mode, values = picture.mode, np.asarray(picture)
        grid = _pgm_grid(path, values.shape[:2]) if picture.format == "PPM" else {}
    if mode != "L":
        raise ValueError(f"its mode is {mode!r}: it must be grey with 8 bits")
    dbz = config.dbz_gain * np.arange(256) + config.dbz_offset
    dbz[config.no_data_value] = np.nan
    return Field(dbz[values], "dBZ", grid=grid)


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


# --- formats that pysteps reads


def _read_mch(path: Path, config: "RadarConfig") -> Field:
    product = path.name[:3].upper()
    if product not in _MCH_UNITS:
        raise ValueError(
            f"its name must begin with MeteoSwiss's product: {', '.join(_MCH_UNITS)}"
        )
    unit = _MCH_UNITS[product]
    # AQC162721445F_00005.801.gif: accumulated in 5 minutes.
    named = re.search(r"_(\d{5})\.", path.name) if unit == "mm" else None
    minutes = float(named[1]) if named else None
    with _pysteps() as importers, path.open("rb") as file:
        # The importer closes none that it opens.
        values, _, facts = importers.import_mch_gif(file, product, unit, minutes or 5.0)
    return Field(_upright(values, facts), unit, minutes or None, grid_of(facts))


def _read_bom(path: Path, config: "RadarConfig") -> Field:
    with _pysteps() as importers:
        values, _, facts = importers.import_bom_rf3(str(path))
    minutes = facts.get("accutime")
    if facts.get("unit") == "mm" and not minutes:
        raise ValueError("it does not say over which time its rain accumulated")
    unit = str(facts.get("unit"))
    return Field(_upright(values, facts), unit, minutes, grid_of(facts))


def _upright(values: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    values = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
    return values[::-1] if facts.get("yorigin") == "lower" else values


@contextlib.contextmanager
def _pysteps() -> Iterator[Any]:
    """The importers of pysteps, one caller at a time; what it prints is not shown."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A composite may have no data at all.
        with contextlib.redirect_stdout(io.StringIO()):  # Where its settings lie.
            from pysteps.io import importers
        yield importers


@dataclass(frozen=True)
class RadarFormat:
    """How names of files end, what reads them, and optional packages it needs."""

    suffixes: tuple[str, ...]
    read: Callable[[Path, "RadarConfig"], Field]
    packages: tuple[str, ...] = ()
    day_of_year: bool = False


_HDF5_SUFFIXES = (".h5", ".hdf", ".hdf5")

RADAR_FORMATS: dict[str, RadarFormat] = {
    "picture": RadarFormat(PICTURE_SUFFIXES, _read_picture),
    "odim_hdf5": RadarFormat(_HDF5_SUFFIXES, read_odim),
    "knmi_hdf5": RadarFormat(_HDF5_SUFFIXES, read_knmi),
    "mch_gif": RadarFormat((".gif",), _read_mch, ("pysteps",), day_of_year=True),
    "bom_rf3": RadarFormat((".nc",), _read_bom, ("pysteps", "netCDF4")),
}
