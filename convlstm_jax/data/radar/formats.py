"""The formats of radar composites, and how each is read as reflectivity."""

import contextlib
import importlib.util
import io
import math
import re
import threading
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from convlstm_jax.data.files import MAX_FRAME_BYTES, reason
from convlstm_jax.data.video.pictures import PICTURE_SUFFIXES, open_picture
from convlstm_jax.errors import UserError

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

# Smallest and largest measured value; beyond them a value stands for no data.
_LIMITS = {"dBZ": (-150.0, 100.0), "mm/h": (-1.0, 10_000.0)}

# ODIM's quantities that are read, those that are preferred first.
_ODIM_UNITS = {"DBZH": "dBZ", "RATE": "mm/h", "ACRR": "mm", "TH": "dBZ"}
_POLAR_OBJECTS = ("PVOL", "SCAN", "RAY", "AZIM", "ELEV", "XSEC", "VP")
_POLAR_ATTRIBUTES = ("nbins", "nrays", "elangle")

# KNMI's formula, such as GEO=0.01*PV+0.0 or GEO=0.500000*PV+-32.000000.
_NUMBER = r"[-+]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORMULA = re.compile(rf"GEO\s*=\s*({_NUMBER})\s*\*\s*PV\s*(?:\+?\s*({_NUMBER}))?\s*$")
_KNMI_UNITS = {"[DBZ]": "dBZ", "[MM]": "mm", "[MM/H]": "mm/h"}

# MeteoSwiss's products, and the unit of each: rain accumulated, or its rate.
_MCH_UNITS = {"AQC": "mm", "CPC": "mm", "AZC": "mm", "RZC": "mm/h"}

# netCDF's library must not be entered twice at once, and which warnings are shown is
# a matter of the whole process.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Field:
    """A field as a file holds it, the northern row first.

    `values` are NaN where there is no data, −inf where there is no echo; `unit` is
    "dBZ", "mm/h" or "mm"; `minutes` those in which mm were accumulated.
    """

    values: np.ndarray
    unit: str
    minutes: float | None = None


def check_packages(radar_format: str) -> None:
    """Raises a `UserError` where a package that reads a format is missing."""
    packages = RADAR_FORMATS[radar_format].packages
    missing = [one for one in packages if importlib.util.find_spec(one) is None]
    if missing:
        raise UserError(
            f"radar_format is {radar_format!r}, which cannot be read without "
            f"{' and '.join(missing)}: run `pip install -r requirements-radar.txt`"
        )


def read_rain(path: Path, config: "RadarConfig") -> np.ndarray:
    """Reads a composite as Z^(1/b): float64 `[H, W]`, NaN for no data.

    By Z = a R^b this is the rain rate R in mm/h, but for the factor a^(1/b), on which
    a mean or its reflectivity does not depend; a and b are those of the config,
    whichever the service uses. The northern row is the first. Rain accumulated (mm)
    becomes a rate by the minutes that the file names, or else those of one time step.
    """
    try:
        path.open("rb").close()  # Its error is shorter than those of the readers.
        found = RADAR_FORMATS[config.radar_format].read(path, config)
        if found.values.ndim != 2:
            raise ValueError(f"its field has {found.values.ndim} dimensions, not two")
        with np.errstate(over="ignore", invalid="ignore"):
            rain = _rain(found, config)
    except Exception as error:  # Of a damaged file the readers may raise anything.
        raise UserError(
            f"'{path}' cannot be read as {config.radar_format} ({reason(error)})"
        ) from error
    return np.where(np.isfinite(rain), rain, np.nan)


def _rain(found: Field, config: "RadarConfig") -> np.ndarray:
    values, unit = found.values, found.unit
    if unit == "mm":
        minutes = found.minutes or config.time_step_minutes
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
    if mode != "L":
        raise ValueError(f"its mode is {mode!r}: it must be grey with 8 bits")
    dbz = config.dbz_gain * np.arange(256) + config.dbz_offset
    dbz[config.no_data_value] = np.nan
    return Field(dbz[values], "dBZ")


# --- ODIM, OPERA's data information model for HDF5, 2.0 to 2.4


def _read_odim(path: Path, config: "RadarConfig") -> Field:
    """The first of `_ODIM_UNITS`; in dataset1 if in several (others are forecasts)."""
    with h5py.File(path) as file:
        _refuse_polar(file)
        fields = list(_odim_fields(file))
        held = [quantity for quantity, *_ in fields]
        wanted = next((one for one in _ODIM_UNITS if one in held), None)
        if wanted is None:
            raise ValueError(
                f"it holds {', '.join(held) or 'nothing'}: it must hold one of ODIM's "
                f"quantities {', '.join(_ODIM_UNITS)}"
            )
        fields = [one for one in fields if one[0] == wanted]
        fields = [one for one in fields if one[1].startswith("dataset1/")] or fields
        if len(fields) > 1:
            names = ", ".join(name for _, name, *_ in fields)
            raise ValueError(
                f"it holds {wanted} in {names}: it must hold it once, or in dataset1"
            )
        _, _, group, what = fields[0]
        values = _odim_values(_array(group, "data"), what)
    times = (
        _text(what.get(f"{end}date")) + _text(what.get(f"{end}time"))[:4]
        for end in ("start", "end")
    )
    minutes = _minutes_between(times, "%Y%m%d%H%M")
    if wanted == "ACRR" and minutes is None:
        raise ValueError("it does not say over which time its rain accumulated")
    return Field(values, _ODIM_UNITS[wanted], minutes)


def _refuse_polar(file: h5py.File) -> None:
    kind = _text(_attributes(file, "what").get("object")).upper()
    groups = [file, *(group for _, group in _numbered(file, "dataset"))]
    where = {name for group in groups for name in _attributes(group, "where")}
    if kind in _POLAR_OBJECTS or not where.isdisjoint(_POLAR_ATTRIBUTES):
        raise ValueError(
            f"it is a {kind or 'SCAN'!r} of one radar: it must be a picture of an area"
        )


def _odim_fields(file: h5py.File) -> Iterator[tuple[str, str, h5py.Group, Any]]:
    """Quantity, name, group and `what` of each field, what it lacks from above."""
    for outer_name, outer in _numbered(file, "dataset"):
        for inner_name, inner in _numbered(outer, "data"):
            what = ChainMap(*(_attributes(one, "what") for one in (inner, outer, file)))
            quantity = _text(what.get("quantity")).upper()
            yield quantity, f"{outer_name}/{inner_name}", inner, what


def _odim_values(raw: np.ndarray, what: Mapping[str, Any]) -> np.ndarray:
    for name in ("gain", "offset", "nodata"):
        if name not in what and raw.dtype.kind != "f":
            raise ValueError(f"it has no {name!r}, as whole numbers must")
    gain, offset = (_number(what.get(name)) for name in ("gain", "offset"))
    gain, offset = 1.0 if gain is None else gain, offset or 0.0
    no_data, no_echo = (_number(what.get(name)) for name in ("nodata", "undetect"))
    if gain == 0 or not np.isfinite([gain, offset]).all():
        raise ValueError(f"its gain and offset are {gain:g} and {offset:g}")
    if no_echo is not None and _equal(np.array(no_echo), no_data):
        raise ValueError(f"its nodata and undetect are both {no_echo:g}")
    values = raw.astype(np.float64) * gain + offset
    values[_equal(raw, no_echo)] = -np.inf
    values[_equal(raw, no_data)] = np.nan
    return values


def _minutes_between(times: Iterable[str], written: str) -> float | None:
    try:
        start, end = (datetime.strptime(time, written) for time in times)
    except ValueError:
        return None
    return (end - start).total_seconds() / 60 if end > start else None


# --- KNMI's HDF5


def _read_knmi(path: Path, config: "RadarConfig") -> Field:
    """The first image: reflectivity, rain accumulated or its rate."""
    with h5py.File(path) as file:
        image = _member(file, "image1", h5py.Group)
        parameter = _text(image.attrs.get("image_geo_parameter"))
        unit = _KNMI_UNITS.get(parameter[parameter.rfind("[") :].upper())
        if unit is None:
            raise ValueError(
                f"its image_geo_parameter is {parameter!r}: it must end in "
                f"{', '.join(_KNMI_UNITS)}"
            )
        calibration = _attributes(image, "calibration")
        formula = _text(calibration.get("calibration_formulas"))
        match = _FORMULA.match(formula.upper())
        if match is None:
            raise ValueError(
                f"its calibration_formulas is {formula!r}: it must be as GEO=0.5*PV-32"
            )
        gain, offset = (
            float((part or "0").replace(" ", "")) for part in match.groups()
        )
        raw = _array(image, "image_data")
        values = raw * gain + offset
        outside = _number(calibration.get("calibration_out_of_image"))
        missing = _number(calibration.get("calibration_missing_data"))
        # Files of reflectivity name 0 as missing where the radar saw no echo.
        if outside is None and not missing:
            raise ValueError("its calibration does not say which value is no data")
        values[_equal(raw, outside) | _equal(raw, missing or None)] = np.nan
        if raw.dtype == np.uint16 and unit == "mm":
            values[raw >= 65534] = np.nan
        pixel_size = _attributes(file, "geographic").get("geo_pixel_size_y")
        if (_number(pixel_size) or -1) > 0:
            values = values[::-1]
        overview = _attributes(file, "overview")
    # Such as 28-SEP-2016;14:40:00.000, of which the seconds are left out.
    times = (
        _text(overview.get(f"product_datetime_{end}")).rpartition(":")[0]
        for end in ("start", "end")
    )
    return Field(values, unit, _minutes_between(times, "%d-%b-%Y;%H:%M"))


# --- members, attributes and arrays of HDF5


def _member(group: h5py.Group, name: str, kind: type) -> Any:
    """A group or array that lies in the file itself."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(group[name], kind):
        raise ValueError(
            f"its '{group.name.rstrip('/')}/{name}' must be a {kind.__name__.lower()} "
            "in the file itself"
        )
    return group[name]


def _numbered(parent: h5py.Group, stem: str) -> Iterator[tuple[str, h5py.Group]]:
    """The groups stem1, stem2, … in the order of their numbers."""
    names = [name for name in parent if re.fullmatch(rf"{stem}\d+", name)]
    for name in sorted(names, key=lambda name: int(name[len(stem) :])):
        yield name, _member(parent, name, h5py.Group)


def _attributes(parent: h5py.Group, name: str) -> dict[str, Any]:
    """The attributes of a group; none where it does not exist."""
    return dict(_member(parent, name, h5py.Group).attrs) if name in parent else {}


def _array(group: h5py.Group, name: str) -> np.ndarray:
    data = _member(group, name, h5py.Dataset)
    if data.external or data.is_virtual:
        raise ValueError(f"the values of its '{data.name}' must lie in the file itself")
    if data.ndim != 2 or not data.size:
        raise ValueError(f"its field has the shape {list(data.shape)}")
    # A chunk, which is decompressed whole, may be larger than the field.
    size = max(data.size, math.prod(data.chunks or ()))
    if 8 * size > MAX_FRAME_BYTES:
        raise ValueError(f"its field claims {size:,} pixels")
    return np.asarray(data[...])


def _equal(raw: np.ndarray, value: float | None) -> np.ndarray:
    """Where the stored values are one value, in the precision they are stored in."""
    if value is None:
        return np.zeros(raw.shape, bool)
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = float(np.asarray(value).astype(raw.dtype))
        return np.isnan(raw) if np.isnan(value) else raw == value
    return raw == value


def _text(value: Any) -> str:
    """A text, of a fixed length or not, alone or in an array; "" for None."""
    one = np.ravel(value)[0] if value is not None and np.size(value) else ""
    text = one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)
    return text.split("\0")[0].strip()


def _number(value: Any) -> float | None:
    return None if value is None else float(_text(value))


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
    return Field(_upright(values, facts), unit, minutes or None)


def _read_bom(path: Path, config: "RadarConfig") -> Field:
    with _pysteps() as importers:
        values, _, facts = importers.import_bom_rf3(str(path))
    minutes = facts.get("accutime")
    if facts.get("unit") == "mm" and not minutes:
        raise ValueError("it does not say over which time its rain accumulated")
    return Field(_upright(values, facts), str(facts.get("unit")), minutes)


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
    "odim_hdf5": RadarFormat(_HDF5_SUFFIXES, _read_odim),
    "knmi_hdf5": RadarFormat(_HDF5_SUFFIXES, _read_knmi),
    "mch_gif": RadarFormat((".gif",), _read_mch, ("pysteps",), day_of_year=True),
    "bom_rf3": RadarFormat((".nc",), _read_bom, ("pysteps", "netCDF4")),
}
