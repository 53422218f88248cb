"""Radar composites in the formats of weather services, read by pysteps' importers.

pysteps is Pulkkinen et al. 2019, 10.5194/gmd-12-4185-2019; it is optional, and
`radar_formats` says what is needed for which format.
"""

import contextlib
import io
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.pictures import reason
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale

# netCDF's library must not be entered twice at once, and which warnings are shown is
# a matter of the whole process.
_ONE_AT_A_TIME = threading.Lock()

# MeteoSwiss's products, and what a pixel of theirs is: rain gathered, or its rate.
_UNITS_OF_PRODUCTS = {"AQC": "mm", "CPC": "mm", "AZC": "mm", "RZC": "mm/h"}
# What an ODIM file may be that has no rows and columns of an area.
_POLAR_OBJECTS = ("PVOL", "SCAN", "RAY", "AZIM", "ELEV", "XSEC", "VP")
# The unit at the end of what KNMI calls a field's parameter: the importer's name of it.
_QUANTITIES_OF_UNITS = {"[DBZ]": "DBZH", "[MM]": "ACRR"}
# Above 655.33 mm KNMI's two bytes stand for no data; the importer knows 65535 alone.
_MOST_KNMI_MM = 655.335


def import_reflectivity(
    path: Path, radar_format: str, scale: RainScale, time_step_minutes: float
) -> np.ndarray:
    """Reads a composite as the radar reflectivity factor Z, where dBZ = 10 log10 Z.

    Of ODIM's quantities DBZH (reflectivity) is read, or RATE where there is no DBZH. A
    rain rate R becomes Z = a R^b, whatever a and b the service uses; so R comes back
    from the scale as it was. Rain that was gathered (mm) becomes a rate by the minutes
    that a file of "bom_rf3" names; in the others it is taken to be that of one time
    step.

    Args:
      path: the file. Of "mch_gif" it has the product at the beginning of its name.
      radar_format: a name of `RADAR_FORMATS` other than "picture".
      scale: gives a and b.
      time_step_minutes: from one composite to the next.

    Returns:
      float64 `[H, W]`, mm⁶/m³, the northern row first; NaN where there is no data.

    Raises:
      UserError: the file cannot be read by this importer, or holds neither
        reflectivity nor rain.
    """
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A composite may have no data at all.
            with contextlib.redirect_stdout(io.StringIO()):  # Where its settings lie.
                from pysteps.io import importers
            with path.open("rb"):
                pass  # Which says in few words where a file may not be opened.
            read = _READERS[radar_format]
            field, _, facts = read(importers, path, time_step_minutes)
            factor = _reflectivity(np.asarray(field, np.float64), facts, scale)
    except Exception as error:  # Of a damaged file the importers may raise anything.
        raise UserError(
            f"'{path}' cannot be read as {radar_format} ({_reason(error)})."
        ) from error
    return factor[::-1] if facts.get("yorigin") == "lower" else factor


def _reflectivity(
    field: np.ndarray, facts: dict[str, Any], scale: RainScale
) -> np.ndarray:
    if field.ndim != 2:
        raise ValueError(f"its field has {field.ndim} dimensions, but must have two")
    unit = facts.get("unit")
    if unit == "dBZ":
        factor = 10.0 ** (field / 10)
    elif unit in ("mm", "mm/h"):
        hours = 1.0
        if unit == "mm":
            if not facts.get("accutime"):
                raise ValueError("it does not say in which time its rain was gathered")
            hours = facts["accutime"] / 60
        factor = scale.zr_a * np.maximum(field / hours, 0) ** scale.zr_b
    else:
        raise ValueError(f"its unit is {unit!r}, but must be 'dBZ', 'mm/h' or 'mm'")
    return np.where(np.isfinite(factor), factor, np.nan)


def _read_odim(importers: Any, path: Path, time_step_minutes: float) -> tuple:
    del time_step_minutes  # ODIM's ACRR is of a time that the importer does not read.
    import h5py

    with h5py.File(path) as file:
        kind = file["what"].attrs.get("object", b"") if "what" in file else b""
    # Of a fixed length or not, alone or in an array, as the writer had it.
    kind = np.ravel(kind).astype(str)[0].rstrip("\0").upper()
    if kind in _POLAR_OBJECTS:
        raise ValueError(
            f"it is a {kind!r} of one radar, by angle and distance, but must be a "
            "composite or another picture of an area"
        )
    for quantity in ("DBZH", "RATE"):
        try:
            return importers.import_odim_hdf5(str(path), qty=quantity)
        except OSError as error:
            if "requested quantity" not in str(error):
                raise
    raise ValueError("it holds neither of ODIM's quantities DBZH and RATE")


def _read_knmi(importers: Any, path: Path, time_step_minutes: float) -> tuple:
    import h5py

    with h5py.File(path) as file:  # The importer has to be told what it will find.
        parameter = file["image1"].attrs["image_geo_parameter"]
    text = parameter.decode() if isinstance(parameter, bytes) else str(parameter)
    quantity = _QUANTITIES_OF_UNITS.get(text[text.find("[") :].upper())
    if quantity is None:
        raise ValueError(
            f"its image_geo_parameter is {text!r}, but must end in "
            f"{' or '.join(_QUANTITIES_OF_UNITS)}"
        )
    field, quality, facts = importers.import_knmi_hdf5(
        str(path), qty=quantity, accutime=time_step_minutes
    )
    if quantity == "ACRR":
        field[field > _MOST_KNMI_MM] = np.nan
    return field, quality, facts


def _read_mch(importers: Any, path: Path, time_step_minutes: float) -> tuple:
    product = path.name[:3].upper()
    if product not in _UNITS_OF_PRODUCTS:
        raise ValueError(
            "its name must begin with MeteoSwiss's product: "
            f"{', '.join(_UNITS_OF_PRODUCTS)}"
        )
    with path.open("rb") as file:  # The importer closes none that it opens.
        return importers.import_mch_gif(
            file, product, _UNITS_OF_PRODUCTS[product], time_step_minutes
        )


def _read_bom(importers: Any, path: Path, time_step_minutes: float) -> tuple:
    del time_step_minutes  # The files say themselves when their rain was gathered.
    return importers.import_bom_rf3(str(path))


_READERS = {
    "odim_hdf5": _read_odim,
    "knmi_hdf5": _read_knmi,
    "mch_gif": _read_mch,
    "bom_rf3": _read_bom,
}


def _reason(error: Exception) -> str:
    """The first line of an error; a KeyError's text without quotation marks."""
    if isinstance(error, KeyError) and error.args:
        return reason(ValueError(error.args[0]))
    return reason(error)
