"""The formats of radar composites, and how each is read as reflectivity.

Optional packages read some of them: pysteps is Pulkkinen et al. 2019,
10.5194/gmd-12-4185-2019.
"""

import contextlib
import importlib.util
import io
import re
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlstm_jax.data.files import reason
from convlstm_jax.data.radar.hdf5 import Field, read_knmi, read_odim
from convlstm_jax.data.video.pictures import (
    PICTURE_ERRORS,
    PICTURE_SUFFIXES,
    open_picture,
)
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale


@dataclass(frozen=True)
class RadarFormat:
    """The ends of a format's file names, and optional packages that read it.

    With `day_of_year` the time in a name may also be written as MeteoSwiss does: two
    digits of the year, day of the year, hour and minute.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...] = ()
    day_of_year: bool = False

    def has(self, name: str) -> bool:
        """Whether a file of this name is of the format; hidden files are not."""
        return name.lower().endswith(self.suffixes) and not name.startswith(".")


_HDF5_SUFFIXES = (".h5", ".hdf", ".hdf5")

RADAR_FORMATS: dict[str, RadarFormat] = {
    "picture": RadarFormat(PICTURE_SUFFIXES),
    "odim_hdf5": RadarFormat(_HDF5_SUFFIXES),
    "knmi_hdf5": RadarFormat(_HDF5_SUFFIXES),
    "mch_gif": RadarFormat((".gif",), ("pysteps",), day_of_year=True),
    "bom_rf3": RadarFormat((".nc",), ("pysteps", "netCDF4")),
}
"""The formats by name, those of weather services as pysteps names its importers."""

# netCDF's library must not be entered twice at once, and which warnings are shown is
# a matter of the whole process.
_ONE_AT_A_TIME = threading.Lock()

# MeteoSwiss's products, and what a pixel of theirs is: rain gathered, or its rate.
_UNITS_OF_PRODUCTS = {"AQC": "mm", "CPC": "mm", "AZC": "mm", "RZC": "mm/h"}


# What reflectivity and rain may be at the most; beyond it a value is no measurement.
_LIMITS = {"dBZ": (-150.0, 100.0), "mm/h": (-1.0, 10_000.0)}


def check_packages(radar_format: str) -> None:
    """Raises a `UserError` where a package that reads a format is missing."""
    packages = RADAR_FORMATS[radar_format].packages
    missing = [one for one in packages if importlib.util.find_spec(one) is None]
    if missing:
        raise UserError(
            f"radar_format is {radar_format!r}, which cannot be read without "
            f"{' and '.join(missing)}: run `pip install -r requirements-radar.txt`"
        )


def import_reflectivity(
    path: Path, radar_format: str, scale: RainScale, time_step_minutes: float
) -> np.ndarray:
    """Reads a weather service's composite as reflectivity Z, where dBZ = 10 log10 Z.

    A rain rate R becomes Z = a R^b, whatever a and b the service uses; so R comes back
    from the scale as it was. Rain gathered (mm) becomes a rate by the minutes that the
    file names; where it names none, those of one time step.

    Args:
        path: the file. Of "mch_gif" it has the product at the beginning of its name.
        radar_format: a name of `RADAR_FORMATS` other than "picture".
        scale: gives a and b.
        time_step_minutes: from one composite to the next.

    Returns:
        float64 `[H, W]`, mm⁶/m³, the northern row first; NaN where there is no data.

    Raises:
        UserError: the file cannot be read, or holds neither reflectivity nor rain.
    """
    try:
        with path.open("rb"):
            pass  # Which says in few words where a file may not be opened.
        found = _READERS[radar_format](path)
        if found.values.ndim != 2:
            raise ValueError(
                f"its field has {found.values.ndim} dimensions: it must have two"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            factor = _reflectivity(found, scale, time_step_minutes)
    except Exception as error:  # Of a damaged file the readers may raise anything.
        told = error
        if isinstance(error, KeyError) and error.args:
            told = ValueError(error.args[0])  # Its text has quotation marks.
        raise UserError(
            f"'{path}' cannot be read as {radar_format} ({reason(told)})"
        ) from error
    return np.where(np.isfinite(factor), factor, np.nan)


def _reflectivity(found: Field, scale: RainScale, minutes: float) -> np.ndarray:
    values, unit = found.values, found.unit
    if unit == "mm":
        values, unit = values / ((found.minutes or minutes) / 60), "mm/h"
    if unit not in _LIMITS:
        raise ValueError(f"its unit is {unit!r}: it must be 'dBZ', 'mm/h' or 'mm'")
    finite = values[np.isfinite(values)]
    if finite.size:  # What stands for no data without being said to.
        low, high = _LIMITS[unit]
        for value in (finite.min(), finite.max()):
            if not low <= value <= high:
                raise ValueError(
                    f"it holds a value of {value:g} {unit}: values must be from "
                    f"{low:g} to {high:g}, so it does not say which stands for no data"
                )
    if unit == "dBZ":
        return 10.0 ** (values / 10)
    return scale.zr_a * np.maximum(values, 0) ** scale.zr_b


def _read_mch(path: Path) -> Field:
    product = path.name[:3].upper()
    if product not in _UNITS_OF_PRODUCTS:
        raise ValueError(
            "its name must begin with MeteoSwiss's product: "
            f"{', '.join(_UNITS_OF_PRODUCTS)}"
        )
    unit = _UNITS_OF_PRODUCTS[product]
    # AQC162721445F_00005.801.gif: gathered in 5 minutes.
    gathered = re.search(r"_(\d{5})\.", path.name) if unit == "mm" else None
    minutes = float(gathered[1]) if gathered else None
    with _pysteps() as importers, path.open("rb") as file:
        # The importer closes none that it opens.
        values, _, facts = importers.import_mch_gif(file, product, unit, minutes or 5.0)
    return Field(_upright(values, facts), unit, minutes or None)


def _read_bom(path: Path) -> Field:
    with _pysteps() as importers:
        values, _, facts = importers.import_bom_rf3(str(path))
    minutes = facts.get("accutime")
    if facts.get("unit") == "mm" and not minutes:
        raise ValueError("it does not say in which time its rain was gathered")
    return Field(_upright(values, facts), str(facts.get("unit")), minutes)


def _upright(values: np.ndarray, facts: dict) -> np.ndarray:
    values = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
    return values[::-1] if facts.get("yorigin") == "lower" else values


@contextlib.contextmanager
def _pysteps():
    """The importers of pysteps, one caller at a time; what it prints is not shown."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A composite may have no data at all.
        with contextlib.redirect_stdout(io.StringIO()):  # Where its settings lie.
            from pysteps.io import importers
        yield importers


_READERS = {
    "odim_hdf5": read_odim,
    "knmi_hdf5": read_knmi,
    "mch_gif": _read_mch,
    "bom_rf3": _read_bom,
}


def read_picture(path: Path, factors: np.ndarray) -> np.ndarray:
    """Reads an 8-bit grey picture, each of whose values stands for a reflectivity.

    Args:
        path: the picture.
        factors: float64 `[256]`, Z of each value, mm⁶/m³, NaN for no data.

    Raises:
        UserError: it cannot be read, or is not grey with 8 bits.
    """
    try:
        with open_picture(path) as picture:
            picture.load()
            mode, values = picture.mode, np.asarray(picture)
    except PICTURE_ERRORS as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"'{path}' cannot be read ({reason(error)})") from error
    if mode != "L":
        raise UserError(
            f"'{path}' is a picture of mode {mode!r}: it must be grey with 8 bits"
        )
    return factors[values]
