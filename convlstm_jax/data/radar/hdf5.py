"""Composites in HDF5: ODIM and KNMI's own."""

import math
import re
from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from convlstm_jax.data.files import MAX_FRAME_BYTES
from convlstm_jax.data.radar.field import Field, Grid, grid_of, with_corners

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

# ODIM's quantities that are read.
_ODIM_UNITS = {"DBZH": "dBZ", "RATE": "mm/h", "ACRR": "mm", "TH": "dBZ"}
_POLAR_OBJECTS = ("PVOL", "SCAN", "RAY", "AZIM", "ELEV", "XSEC", "VP")
_POLAR_ATTRIBUTES = ("nbins", "nrays", "elangle")

# Quantity, name, group and `what` of a field in ODIM.
_OdimField = tuple[str, str, h5py.Group, Mapping[str, Any]]

# KNMI's formula, such as GEO=0.01*PV+0.0 or GEO=0.500000*PV+-32.000000.
_NUMBER = r"[-+]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORMULA = re.compile(rf"GEO\s*=\s*({_NUMBER})\s*\*\s*PV\s*(?:\+?\s*({_NUMBER}))?\s*$")
_KNMI_UNITS = {"[DBZ]": "dBZ", "[MM]": "mm", "[MM/H]": "mm/h"}


# --- ODIM, OPERA's data information model for HDF5, 2.0 to 2.4


def read_odim(path: Path, config: "RadarConfig") -> Field:
    """The only field of `_ODIM_UNITS`, or that which `data.product` names."""
    with h5py.File(path) as file:
        _refuse_polar(file)
        fields = list(_odim_fields(file))
        quantity, _, group, what = _odim_chosen(fields, config.product)
        values = _odim_values(_array(group, "data"), what)
        grid = _odim_grid(file, values.shape)
    times = (
        _text(what.get(f"{end}date")) + _text(what.get(f"{end}time"))[:4]
        for end in ("start", "end")
    )
    minutes = _minutes_between(times, "%Y%m%d%H%M")
    if quantity == "ACRR" and minutes is None:
        raise ValueError("it does not say over which time its rain accumulated")
    return Field(values, _ODIM_UNITS[quantity], minutes, grid)


def _odim_chosen(fields: Sequence[_OdimField], product: str) -> _OdimField:
    """The only field that is asked for; those of later times than the first are not."""
    asked = [one for one in fields if one[0] in _ODIM_UNITS]
    asked = [one for one in asked if not product or product in one[:2]]
    if not asked:
        held = ", ".join(quantity for quantity, *_ in fields) or "nothing"
        told = f", and data.product is {product!r}" if product else ""
        raise ValueError(
            f"it holds {held}{told}: it must hold one of ODIM's quantities "
            f"{', '.join(_ODIM_UNITS)}"
        )
    asked = [one for one in asked if not _is_later(one[-1], fields[0][-1])] or asked
    if len(asked) > 1:
        held = ", ".join(f"{quantity} in {name}" for quantity, name, *_ in asked)
        counts = Counter(quantity for quantity, *_ in asked)
        names = (one[0] if counts[one[0]] == 1 else one[1] for one in asked)
        raise ValueError(f"it holds {held}: data.product must be {' or '.join(names)}")
    return asked[0]


def _is_later(what: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether a field is of a later time than the first one, so a forecast."""
    (start, end), (first_start, first_end) = map(_odim_times, (what, first))
    return bool(first_start) and start >= first_start and end > first_end


def _odim_times(what: Mapping[str, Any]) -> tuple[str, str]:
    """Start and end to the minute, in 12 digits, or the file's time; "" if unknown."""
    start = _odim_time(what, "start") or _odim_time(what, "")
    return start, _odim_time(what, "end") or start


def _odim_time(what: Mapping[str, Any], which: str) -> str:
    date, time = (_text(what.get(f"{which}{part}")) for part in ("date", "time"))
    return (date + time).ljust(12, "0")[:12] if date else ""


def odim_quantities(path: Path) -> dict[str, str]:
    """The quantity of each field of a file, by its name; {} if it has none."""
    with h5py.File(path) as file:
        return {name: quantity for quantity, name, *_ in _odim_fields(file)}


def _odim_grid(file: h5py.File, size: tuple[int, int]) -> Grid:
    groups = [group for _, group in _numbered(file, "dataset")][:1]
    where = ChainMap(*(_attributes(one, "where") for one in (*groups, file)))
    names = {"xpixelsize": "xscale", "ypixelsize": "yscale"}
    facts: dict[str, Any] = {to: _number(where.get(name)) for to, name in names.items()}
    facts["projection"] = projection = _text(where.get("projdef"))
    # ODIM wants metres, but some say degrees where the axes are such.
    if re.search("longlat|latlon", projection) and (facts["xpixelsize"] or 9) < 5:
        facts["cartesian_unit"] = "degrees"
    lower_left = [_number(where.get(name)) for name in ("LL_lon", "LL_lat")]
    return with_corners(grid_of(facts), size, lower_left)


def _refuse_polar(file: h5py.File) -> None:
    kind = _text(_attributes(file, "what").get("object")).upper()
    groups = [file, *(group for _, group in _numbered(file, "dataset"))]
    where = {name for group in groups for name in _attributes(group, "where")}
    if kind in _POLAR_OBJECTS or not where.isdisjoint(_POLAR_ATTRIBUTES):
        raise ValueError(
            f"it is a {kind or 'SCAN'!r} of one radar: it must be a picture of an area"
        )


def _odim_fields(file: h5py.File) -> Iterator[_OdimField]:
    """Each field; what its `what` lacks is taken from above."""
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


def read_knmi(path: Path, config: "RadarConfig") -> Field:
    """The only image, or `data.product`: reflectivity, rain or its rate."""
    with h5py.File(path) as file:
        images = [name for name, _ in _numbered(file, "image")]
        if len(images) > 1 and config.product not in images:
            raise ValueError(
                f"it holds {', '.join(images)}: data.product must name one of these"
            )
        image = _member(file, config.product if images[1:] else "image1", h5py.Group)
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
        grid, upside_down = _knmi_grid(file, values.shape)
        values = values[::-1] if upside_down else values
        overview = _attributes(file, "overview")
    # Such as 28-SEP-2016;14:40:00.000, of which the seconds are left out.
    times = (
        _text(overview.get(f"product_datetime_{end}")).rpartition(":")[0]
        for end in ("start", "end")
    )
    return Field(values, unit, _minutes_between(times, "%d-%b-%Y;%H:%M"), grid)


def _knmi_grid(file: h5py.File, size: tuple[int, int]) -> tuple[Grid, bool]:
    """The grid, and whether the southern row is the first."""
    geographic = _attributes(file, "geographic")
    column, row, width, height = (
        _number(geographic.get(f"geo_{name}"))
        for name in ("column_offset", "row_offset", "pixel_size_x", "pixel_size_y")
    )
    unit = _text(geographic.get("geo_dim_pixel")).split(",")[0].upper()
    facts: dict[str, Any] = {"xpixelsize": width, "ypixelsize": height}
    facts["cartesian_unit"] = {"M": "m", "DEG": "degrees"}.get(unit, "km")
    if "geographic" in file:
        parameters = _attributes(file["geographic"], "map_projection")
        facts["projection"] = _text(parameters.get("projection_proj4_params"))
    if None not in (column, row, width, height):
        sides = sorted((row * height, (row + size[0]) * height))  # type: ignore[operator]
        facts |= {"x1": column * width, "x2": (column + size[1]) * width}  # type: ignore[operator]
        facts |= {"y1": sides[0], "y2": sides[1]}
    return grid_of(facts), (height or -1) > 0


# --- members, attributes and arrays of HDF5


def _member(group: h5py.Group, name: str, kind: type | tuple[type, ...]) -> Any:
    """A group or array that lies in the file itself."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(group[name], kind):
        raise ValueError(
            f"its '{group.name.rstrip('/')}/{name}' must be a "
            f"{getattr(kind, '__name__', 'member').lower()} in the file itself"
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


def check_hdf5(file: h5py.File, *, whole: bool = True) -> None:
    """Refuses links to other files, and arrays that would take all memory.

    Unless they are read as a `whole`, arrays may have many fields of two dimensions.
    """

    def visit(name: str, one: h5py.Group | h5py.Dataset) -> None:
        if isinstance(one, h5py.Dataset):
            _check_array(one, one.shape if whole else one.shape[-2:])
            return
        for member in one:
            _member(one, member, (h5py.Group, h5py.Dataset, h5py.Datatype))

    visit("/", file)
    file.visititems(visit)


def _check_array(data: h5py.Dataset, shape: tuple[int, ...]) -> None:
    if data.external or data.is_virtual:
        raise ValueError(f"the values of its '{data.name}' must lie in the file itself")
    # A chunk, which is decompressed whole, may be larger than the field.
    size = max(math.prod(shape or ()), math.prod(data.chunks or ()))
    if 8 * size > MAX_FRAME_BYTES:
        raise ValueError(f"its field claims {size:,} pixels")


def _array(group: h5py.Group, name: str) -> np.ndarray:
    data = _member(group, name, h5py.Dataset)
    if data.ndim != 2 or not data.size:
        raise ValueError(f"its field has the shape {list(data.shape)}")
    _check_array(data, data.shape)
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
