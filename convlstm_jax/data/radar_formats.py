"""The formats of radar composites: which files are of them, and what is needed."""

import importlib.util
from dataclasses import dataclass

from convlstm_jax.data.pictures import PICTURE_SUFFIXES
from convlstm_jax.errors import UserError


@dataclass(frozen=True)
class RadarFormat:
    """What tells the files of a format, and what has to be installed to read them.

    Attributes:
      suffixes: ends of the files' names, in lower case.
      packages: optional packages that read them, by the name they are imported by.
      day_of_year: whether the time in a name may also be written as MeteoSwiss does:
        two digits of the year, day of the year, hour and minute.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...] = ()
    day_of_year: bool = False

    def has(self, name: str) -> bool:
        """Tells whether a file of this name is of the format; hidden files are not."""
        return name.lower().endswith(self.suffixes) and not name.startswith(".")


_HDF5_SUFFIXES = (".h5", ".hdf", ".hdf5")

RADAR_FORMATS: dict[str, RadarFormat] = {
    "picture": RadarFormat(PICTURE_SUFFIXES),
    "odim_hdf5": RadarFormat(_HDF5_SUFFIXES, ("pysteps", "pyproj")),
    "knmi_hdf5": RadarFormat(_HDF5_SUFFIXES, ("pysteps",)),
    "mch_gif": RadarFormat((".gif",), ("pysteps",), day_of_year=True),
    "bom_rf3": RadarFormat((".nc",), ("pysteps", "netCDF4")),
}
"""The formats by name: "picture", and the others as pysteps' importers are named."""


def radar_format_of(name: str) -> RadarFormat:
    """Looks a format up, and whether it can be read here.

    Raises:
      UserError: there is no such format, or a package that reads it is missing.
    """
    if name not in RADAR_FORMATS:
        raise UserError(
            f"radar_format is {name!r}, but must be one of {', '.join(RADAR_FORMATS)}."
        )
    found = RADAR_FORMATS[name]
    missing = [one for one in found.packages if importlib.util.find_spec(one) is None]
    if missing:
        raise UserError(
            f"radar_format is {name!r}, which cannot be read without "
            f"{' and '.join(missing)}: run `pip install -r requirements-radar.txt`."
        )
    return found
