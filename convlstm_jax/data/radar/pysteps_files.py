"""Composites that the importers of pysteps read, one caller at a time."""

import contextlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from convlstm_jax.data.files import check_budget
from convlstm_jax.data.radar.field import Field, grid_of, unit_of
from convlstm_jax.data.radar.hdf5 import check_hdf5, odim_quantities
from convlstm_jax.data.video.pictures import open_picture
from convlstm_jax.errors import UserError
from convlstm_jax.quiet import quiet

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

IMPORTERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bom_rf3": ((".nc",), ("netCDF4",)),
    "dwd_hdf5": ((".h5", ".hd5", ".hdf", ".hdf5"), ()),
    "dwd_radolan": (("",), ()),
    "mch_gif": ((".gif",), ()),
    "mch_hdf5": ((".h5", ".hdf", ".hdf5"), ()),
    "mch_metranet": (("",), ("metranet",)),
    "mrms_grib": ((".grib2", ".grb2", ".grib"), ("pygrib",)),
    "saf_crri": ((".nc",), ("netCDF4",)),
}
"""How the names of their files end, and the packages that they need besides."""

# MeteoSwiss's products, and the unit of each: rain accumulated, or its rate.
_MCH_UNITS = {"AQC": "mm", "CPC": "mm", "AZC": "mm", "RZC": "mm/h"}

# The DWD's products in files of RADOLAN, and minutes for rain accumulated, or dBZ.
_RADOLAN_MINUTES = {"RY": 5.0, "YW": 5.0, "RW": 60.0, "WN": None, "EX": None}

# Quantities of HDF5 that importers know.
_QUANTITIES = ("RATE", "ACRR", "DBZH")


def check_importer(name: str) -> None:
    """Raises a `UserError` where pysteps, which is installed, has no such importer."""
    with _pysteps() as importers:
        if not hasattr(importers, f"import_{name}"):
            known = sorted(one[7:] for one in dir(importers) if one[:7] == "import_")
            raise UserError(
                f"radar_format is 'pysteps:{name}': pysteps has no importer of this "
                f"name, but {', '.join(known)}"
            )


def read_pysteps(path: Path, config: "RadarConfig", *, importer: str) -> Field:
    """The field that an importer reads, in the unit that it or the product tells."""
    _check(path)
    with _pysteps() as importers, path.open("rb") as file:
        read = getattr(importers, f"import_{importer}")
        asked = set(inspect.signature(read).parameters)
        given, told = _arguments(path, config, asked)
        if "qty" in asked:
            given["qty"] = _quantities(path, config.product, importer)
        # The importer of GIF closes none that it opens.
        source = file if importer == "mch_gif" else str(path)
        values, facts = _imported(read, source, given)
    facts = {**facts, **told}
    unit, scale = unit_of(facts.get("unit"))
    minutes = facts.get("accutime")
    if unit == "mm" and not minutes and "accutime" not in told:
        raise ValueError("it does not say over which time its rain accumulated")
    values = scale * np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
    # RADOLAN begins in the south, whatever its importer says.
    if facts.get("yorigin") == "lower" or importer == "dwd_radolan":
        values = values[::-1]
    return Field(values, unit, minutes, grid_of(facts))


def _imported(read: Any, source: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    *others, last = [{"qty": one} for one in given.pop("qty", ())] or [{}]
    for quantity in others:
        with contextlib.suppress(OSError):  # The file does not hold it.
            values, _, facts = read(source, **given, **quantity)
            return values, facts
    values, _, facts = read(source, **given, **last)
    return values, facts


def _quantities(path: Path, product: str, importer: str) -> tuple[str, ...]:
    """The quantity that is read; those to try where the file's are not known."""
    held = odim_quantities(path) if h5py.is_hdf5(path) else {}
    held = {name: one for name, one in held.items() if one in _QUANTITIES}
    wanted = [one for one in held.values() if product in ("", one)]
    if not held:
        return (product,) if product else _QUANTITIES
    if len(wanted) != 1:
        told = ", ".join(f"{one} in {name}" for name, one in held.items())
        asked = f" and data.product is {product!r}" if product else ""
        once = [one for one in _QUANTITIES if [*held.values()].count(one) == 1]
        other = f"data.product must be {' or '.join(once)}, or " if once else ""
        raise ValueError(
            f"it holds {told}{asked}: {other}radar_format must be 'odim_hdf5', which "
            "reads any of these"
        )
    if importer == "dwd_hdf5" and held.get("dataset1/data1") != wanted[0]:
        raise ValueError(
            f"its {wanted[0]} is not in dataset1/data1, the only field that "
            "pysteps:dwd_hdf5 reads: radar_format='odim_hdf5' reads others"
        )
    return (wanted[0],)


def _arguments(
    path: Path, config: "RadarConfig", asked: set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an importer asks for, and facts that it does not tell itself."""
    given: dict[str, Any] = {}
    if "window_size" in asked:
        given["window_size"] = 1
    if "gzipped" in asked:
        given["gzipped"] = path.suffix.lower() == ".gz"
    if "product_name" in asked:
        with path.open("rb") as file:
            product = file.read(2).decode("ascii", "replace")
        if product not in _RADOLAN_MINUTES:
            raise ValueError(
                f"its product is {product!r}: it must be {', '.join(_RADOLAN_MINUTES)}"
            )
        minutes = _RADOLAN_MINUTES[product]
        told = {"unit": "mm" if minutes else "dBZ", "accutime": minutes}
        return {**given, "product_name": product}, told
    if "accutime" not in asked:
        return given, {}
    product = path.name[:3].upper()
    if product not in _MCH_UNITS:
        raise ValueError(
            f"its name must begin with MeteoSwiss's product: {', '.join(_MCH_UNITS)}"
        )
    unit = _MCH_UNITS[product]
    # AQC162721445F_00005.801.gif: accumulated in 5 minutes.
    named = re.search(r"_(\d{5})\.", path.name) if unit == "mm" else None
    minutes = float(named[1]) if named else None
    given |= {"product": product, "unit": unit, "accutime": minutes or 5.0}
    return given, {"accutime": minutes or None}


def _check(path: Path) -> None:
    """Refuses what would make a library read other files, or take all memory."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89HDF"):
        with h5py.File(path) as hdf5:
            check_hdf5(hdf5)
    elif head.startswith(b"CDF"):
        import netCDF4  # Optional.

        with quiet(), netCDF4.Dataset(path) as netcdf:
            for variable in netcdf.variables.values():
                check_budget(path, 1, 8 * int(np.prod(variable.shape, dtype=float)))
    elif head.startswith(b"GRIB"):
        import pygrib  # Optional.

        with contextlib.closing(pygrib.open(str(path))) as file:
            check_budget(path, 1, 8 * file.message(1)["numberOfDataPoints"])
    elif path.suffix.lower() in (".gif", ".tif", ".tiff", ".pgm", ".png"):
        with open_picture(path) as picture:
            check_budget(path, 1, 8 * picture.width * picture.height)
    check_budget(path, 1, path.stat().st_size)


@contextlib.contextmanager
def _pysteps() -> Iterator[Any]:
    """The importers of pysteps, one caller at a time."""
    with quiet():  # It prints where its settings lie, and warns of no data.
        from pysteps.io import importers

        yield importers
