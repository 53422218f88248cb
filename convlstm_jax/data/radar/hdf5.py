"""Radar composites in HDF5: OPERA's data model ODIM, and KNMI's own."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from convlstm_jax.data.files import MAX_FRAME_BYTES

_UNITS = {"DBZH": "dBZ", "RATE": "mm/h", "ACRR": "mm", "TH": "dBZ"}
"""ODIM's quantities that are read, those that are preferred first."""

_POLAR_OBJECTS = ("PVOL", "SCAN", "RAY", "AZIM", "ELEV", "XSEC", "VP")
_POLAR_ATTRIBUTES = ("nbins", "nrays", "elangle")

# KNMI's formula, such as GEO=0.01*PV+0.0 or GEO=0.500000*PV+-32.000000.
_NUMBER = r"[-+]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORMULA = re.compile(rf"GEO\s*=\s*({_NUMBER})\s*\*\s*PV\s*(?:\+?\s*({_NUMBER}))?\s*$")
_KNMI_UNITS = {"[DBZ]": "dBZ", "[MM]": "mm", "[MM/H]": "mm/h"}
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"


@dataclass(frozen=True)
class Field:
    """A field as a file holds it.

    Attributes:
        values: float64 `[H, W]`, the northern row first; NaN where there is no data,
            −inf where there is no echo.
        unit: "dBZ", "mm/h" or "mm".
        minutes: time in which rain in mm was gathered; None: the file does not say.
    """

    values: np.ndarray
    unit: str
    minutes: float | None = None


def read_odim(path: Path) -> Field:
    """Reads a composite of ODIM (OPERA's data information model for HDF5, 2.0 to 2.4).

    The quantity is DBZH, or else RATE, ACRR or TH. What a group's `what` lacks is
    inherited from the level above. Where several datasets hold the quantity, the first
    is read if it is dataset1 (the analysis; those after it are forecasts).

    Raises:
        ValueError: the file holds no such composite, or does not say what it holds.
        OSError: the file cannot be read.
    """
    with h5py.File(path) as file:
        _refuse_polar(file)
        places = list(_odim_places(file))
        quantities = [quantity for quantity, *_ in places]
        wanted = next((one for one in _UNITS if one in quantities), None)
        if wanted is None:
            held = ", ".join(map(repr, dict.fromkeys(quantities))) or "nothing"
            raise ValueError(
                f"it holds {held}: it must hold one of ODIM's quantities "
                f"{', '.join(_UNITS)}"
            )
        names = [place[1] for place in places if place[0] == wanted]
        first = [name for name in names if name.startswith("dataset1/")]
        if len(first or names) > 1:
            raise ValueError(
                f"it holds {wanted} more than once, in {', '.join(first or names)}: it "
                "must hold it once, or once in dataset1"
            )
        name = (first or names)[0]
        levels = next(levels for _, place, levels in places if place == name)
        values = _decoded(_array(_member(_group(file, name), "data")), levels)
    minutes = _odim_minutes(levels) if wanted == "ACRR" else None
    return Field(values, _UNITS[wanted], minutes)


def _refuse_polar(file: h5py.File) -> None:
    kind = _text(_attributes(file, "what").get("object", "")).upper()
    groups = [file, *(group for _, group in _numbered(file, "dataset"))]
    where = {name for group in groups for name in _attributes(group, "where")}
    polar = not where.isdisjoint(_POLAR_ATTRIBUTES)
    if kind in _POLAR_OBJECTS or polar:
        raise ValueError(
            f"it is a {kind or 'SCAN'!r} of one radar, by angle and distance: it must "
            "be a composite or another picture of an area"
        )


def _odim_places(file: h5py.File) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Quantity, place and `what` of each field, the nearest level of `what` first."""
    for outer_name, outer in _numbered(file, "dataset"):
        for inner_name, inner in _numbered(outer, "data"):
            levels = [_attributes(group, "what") for group in (inner, outer, file)]
            quantity = _text(_inherited(levels, "quantity") or "")
            yield quantity.upper(), f"{outer_name}/{inner_name}", levels


def _decoded(raw: np.ndarray, levels: list[dict[str, Any]]) -> np.ndarray:
    """Physical values: NaN where there is no data, −inf where there is no echo."""
    stored = {
        name: _number(_inherited(levels, name), name)
        for name in ("gain", "offset", "nodata", "undetect")
    }
    if raw.dtype.kind not in "uif":
        raise ValueError(f"its values are of type {raw.dtype}: they must be numbers")
    if raw.dtype.kind != "f":
        for name in ("gain", "offset", "nodata"):
            if stored[name] is None:
                raise ValueError(
                    f"it has no {name!r} in any `what`: whole numbers must have one"
                )
    gain = 1.0 if stored["gain"] is None else stored["gain"]
    offset = 0.0 if stored["offset"] is None else stored["offset"]
    no_data, no_echo = stored["nodata"], stored["undetect"]
    if gain == 0 or not np.isfinite([gain, offset]).all():
        raise ValueError(
            f"its gain and offset are {gain:g} and {offset:g}: they must be finite, "
            "the first not 0"
        )
    both = [one for one in (no_data, no_echo) if one is not None]
    if len(both) == 2 and np.array_equal(both[:1], both[1:], equal_nan=True):
        raise ValueError(
            f"its nodata and undetect are both {no_echo:g}: they must differ"
        )
    values = raw.astype(np.float64) * gain + offset
    values[_equal(raw, no_echo)] = -np.inf
    values[_equal(raw, no_data)] = np.nan
    return values


def _equal(raw: np.ndarray, value: float | None) -> np.ndarray:
    """Where the stored values are one value, in the precision they are stored in."""
    if value is None:
        return np.zeros(raw.shape, bool)
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = float(np.asarray(value).astype(raw.dtype))
        return np.isnan(raw) if np.isnan(value) else raw == value
    return raw == value


def _odim_minutes(levels: list[dict[str, Any]]) -> float:
    """Minutes in which rain was gathered, by the nearest `what` that tells."""
    found = [
        _text(_inherited(levels, f"{end}{part}") or "")
        for end in ("start", "end")
        for part in ("date", "time")
    ]
    try:
        start, end = (
            datetime.strptime((date + time)[:12], "%Y%m%d%H%M")
            for date, time in (found[:2], found[2:])
        )
    except ValueError:
        start = end = datetime.min
    if end <= start:
        raise ValueError(
            "it does not say in which time its rain was gathered: its startdate, "
            "starttime, enddate and endtime must"
        )
    return (end - start).total_seconds() / 60


def read_knmi(path: Path) -> Field:
    """Reads the first image of KNMI's HDF5: reflectivity, rain gathered or its rate.

    Values follow from the file's calibration formula, the time in which rain was
    gathered from its beginning and end.

    Raises:
        ValueError: the file holds no such image, or does not say what it holds.
        OSError: the file cannot be read.
    """
    with h5py.File(path) as file:
        image = _group(file, "image1")
        parameter = _text(_required(image.attrs, "image_geo_parameter"))
        found = re.search(r"\[[^\]]*\]\s*$", parameter)
        unit = _KNMI_UNITS.get(found[0].strip().upper() if found else "")
        if unit is None:
            raise ValueError(
                f"its image_geo_parameter is {parameter!r}: it must end in "
                f"{', '.join(_KNMI_UNITS)}"
            )
        calibration = _attributes(image, "calibration")
        formula = _text(_required(calibration, "calibration_formulas"))
        match = _FORMULA.match(formula.strip().upper())
        if match is None:
            raise ValueError(
                f"its calibration_formulas is {formula!r}: it must be one formula such "
                "as GEO=0.5*PV-32"
            )
        gain, offset = (
            float((part or "0").replace(" ", "")) for part in match.groups()
        )
        raw = _array(_member(image, "image_data"))
        if raw.dtype.kind not in "ui":
            raise ValueError(f"its values are {raw.dtype}: they must be whole numbers")
        values = raw * gain + offset
        outside = _number(calibration.get("calibration_out_of_image"), "out of image")
        missing = _number(calibration.get("calibration_missing_data"), "missing data")
        # Files of reflectivity name 0 as missing where the radar saw no echo.
        no_data = [outside, *([missing] if missing else [])]
        if no_data == [None]:
            raise ValueError("its calibration does not say which value is no data")
        for value in no_data:
            values[_equal(raw, value)] = np.nan
        if raw.dtype == np.uint16 and unit == "mm":
            values[raw >= 65534] = np.nan
        geographic = _attributes(file, "geographic")
        if (_number(geographic.get("geo_pixel_size_y"), "pixel size") or -1) > 0:
            values = values[::-1]
        minutes = _knmi_minutes(_attributes(file, "overview")) if unit == "mm" else None
    return Field(values, unit, minutes)


def _knmi_minutes(overview: dict[str, Any]) -> float | None:
    times = []
    for end in ("start", "end"):
        text = _text(overview.get(f"product_datetime_{end}", "")).upper()
        found = re.match(r"(\d+)-([A-Z]{3})-(\d{4});(\d\d):(\d\d)", text)
        if not found or found[2] not in _MONTHS:
            return None
        month = _MONTHS.index(found[2]) // 4 + 1  # %b would depend on the locale.
        day, year, hour, minute = (int(found[group]) for group in (1, 3, 4, 5))
        times.append(datetime(year, month, day, hour, minute))
    minutes = (times[1] - times[0]).total_seconds() / 60
    return minutes if minutes > 0 else None


# Groups, attributes and arrays, of this file alone and of a size that can be read.


def _member(group: h5py.Group, name: str) -> Any:
    link = group.get(name, getlink=True)
    place = f"{group.name.rstrip('/')}/{name}"
    if link is None:
        raise ValueError(f"it has no '{place}'")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(
            f"its '{place}' is a link to somewhere else: it must hold its data itself"
        )
    return group[name]


def _group(parent: h5py.Group, path: str) -> h5py.Group:
    for name in path.split("/"):
        parent = _member(parent, name)
        if not isinstance(parent, h5py.Group):
            raise ValueError(f"its '{parent.name}' must be a group")
    return parent


def _numbered(parent: h5py.Group, stem: str) -> Iterator[tuple[str, h5py.Group]]:
    """The groups stem1, stem2, … in the order of their numbers."""
    names = [name for name in parent if re.fullmatch(rf"{stem}\d+", name)]
    for name in sorted(names, key=lambda name: int(name[len(stem) :])):
        yield name, _group(parent, name)


def _attributes(parent: h5py.Group, name: str) -> dict[str, Any]:
    """The attributes of a group; none where it is not there."""
    return dict(_group(parent, name).attrs) if name in parent else {}


def _inherited(levels: list[dict[str, Any]], name: str) -> Any:
    return next((level[name] for level in levels if name in level), None)


def _required(attributes: Any, name: str) -> Any:
    if name not in attributes:
        raise ValueError(f"it has no {name!r}")
    return attributes[name]


def _array(data: Any) -> np.ndarray:
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"its '{data.name}' must be an array")
    if data.external or data.is_virtual:
        raise ValueError(f"the values of its '{data.name}' must lie in the file itself")
    if data.ndim != 2 or not data.size:
        raise ValueError(
            f"its field has the shape {list(data.shape)}: it must have two dimensions"
        )
    # A chunk, which is decompressed whole, may be larger than the field.
    size = max(data.size, math.prod(data.chunks or ()))
    if 8 * size > MAX_FRAME_BYTES:
        raise ValueError(
            f"its field has {size:,} pixels by its own account: it must have at most "
            f"{MAX_FRAME_BYTES // 8:,}"
        )
    return np.asarray(data[...])


def _text(value: Any) -> str:
    """A text, of a fixed length or not, alone or in an array, as the writer had it."""
    one = np.ravel(value)[0] if np.size(value) else ""
    text = one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)
    return text.split("\0")[0].strip()


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        return float(_text(value))
    except ValueError:
        raise ValueError(f"its {name} is {value!r}: it must be a number") from None
