"""Composites in CF NetCDF and Zarr: a file holds many, along an axis of time."""

import contextlib
import importlib.util
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from convlstm_jax.data.files import check_budget, is_store, reason
from convlstm_jax.data.radar.field import Field, Grid, grid_of, unit_of
from convlstm_jax.data.radar.hdf5 import check_hdf5
from convlstm_jax.data.video.arrays import in_order
from convlstm_jax.errors import UserError
from convlstm_jax.quiet import quiet

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

_UNITS = ("dBZ", "mm/h", "mm")
# The units of lengths by their first letters, as `Grid` names them.
_LENGTHS = {"km": "km", "kil": "km", "m": "m", "deg": "degrees"}


def times_of(path: Path, config: "RadarConfig") -> list[datetime]:
    """The times of the composites of a file, as they stand in it."""
    try:
        with _opened(path, config) as (_, field):
            times = field["time"].to_numpy().astype("datetime64[s]").tolist()
            if not all(isinstance(one, datetime) for one in times):
                raise ValueError("some of its times are none")
            return times
    except Exception as error:  # Of a damaged file the readers may raise anything.
        raise UserError(f"'{path}' cannot be read ({reason(error)})") from error


def read_cf(path: Path, config: "RadarConfig", index: int) -> Field:
    """Composite `index` of a file; that of `data.product` if it holds several."""
    with _opened(path, config) as (data, field):
        values = field[index].to_numpy().astype(np.float64)
        unit, scale = unit_of(field.attrs.get("units"))
        rows = field.coords.get(field.dims[1])
        if rows is not None and rows.size > 1 and rows[0] < rows[-1]:
            values = values[::-1]
        minutes = None
        bounds = data.coords.get(field["time"].encoding.get("bounds"))
        if bounds is not None and bounds.shape == (len(field), 2):
            start, end = bounds[index].to_numpy()
            minutes = float((end - start) / np.timedelta64(1, "m"))
        return Field(scale * values, unit, minutes, _grid(field))


@contextlib.contextmanager
def _opened(path: Path, config: "RadarConfig") -> Iterator[tuple[Any, Any]]:
    """What a file holds, and its field `[time, y, x]`, read where it is used."""
    import xarray  # Slow, and optional.

    options: dict[str, Any] = {"engine": "scipy"}
    if is_store(path.name):
        # By default, xarray warns about stores without consolidated metadata.
        options = {"engine": "zarr", "consolidated": False}
        _check_store(path)
    elif h5py.is_hdf5(path):
        options["engine"] = "h5netcdf"
        with h5py.File(path) as file:
            check_hdf5(file, whole=False)
    options |= {"decode_coords": "all", "decode_timedelta": False, "cache": False}
    with quiet(), xarray.open_dataset(path.absolute(), **options) as data:
        if "time" in data.coords and not data["time"].ndim:
            data = data.expand_dims("time")
        field = _chosen(data, config.product)
        check_budget(path, len(field), 8 * int(np.prod(field.shape[1:], dtype=float)))
        yield data, field


def _check_store(path: Path) -> None:
    """Refuses links to other files, and arrays that would take all memory."""
    import zarr  # Optional.

    if any(one.is_symlink() for one in path.rglob("*")):
        raise ValueError("its parts must lie in the store itself, and not be links")
    for _, array in zarr.open_group(path, mode="r").arrays():
        values = max(math.prod(array.shape[-2:]), math.prod(array.chunks))
        check_budget(path, 1, 8 * values)


def _chosen(data: Any, product: str) -> Any:
    """The variable of rain or reflectivity along time, in order of its dimensions."""
    axes = [name for name in data.dims if name in data.coords]
    axes = [name for name in axes if data[name].dtype.kind == "M"]
    held = {
        str(name): axis
        for name, one in data.data_vars.items()
        for axis in axes
        if axis in one.dims and one.ndim > 2
    }
    units = {name: str(data[name].attrs.get("units")) for name in held}
    suited = [name for name in held if unit_of(units[name])[0] in _UNITS]
    if product in held or len(suited) == 1:
        name = product if product in held else suited[0]
        return in_order(data[name].rename({held[name]: "time"}))
    told = ", ".join(f"{name} in {units[name]}" for name in held)
    raise ValueError(
        f"along time it holds {told or 'nothing'}: "
        f"data.product must name one in {', '.join(_UNITS)}"
    )


def _grid(field: Any) -> Grid:
    """The grid of even steps along x and y; {} if they are not."""
    facts: dict[str, Any] = {}
    for name, axis in zip(field.dims[1:3], "yx", strict=True):
        along = field.coords.get(name)
        if along is None or along.ndim != 1 or along.size < 2:
            return {}
        places, unit = along.to_numpy().astype(float), str(along.attrs.get("units"))
        steps = np.diff(places)
        if not np.allclose(steps, steps.mean(), rtol=0.01):
            return {}
        side = abs(steps.mean())
        facts |= {f"{axis}pixelsize": side, f"{axis}1": places.min() - side / 2}
        facts |= {f"{axis}2": places.max() + side / 2}
        facts["cartesian_unit"] = next(
            (to for begin, to in _LENGTHS.items() if unit.startswith(begin)), ""
        )
    if not facts["cartesian_unit"]:
        return {}
    mapping = field.coords.get(field.encoding.get("grid_mapping"))
    if facts["cartesian_unit"] == "degrees":
        facts["projection"] = "+proj=longlat +datum=WGS84 +no_defs"
    elif mapping is not None and importlib.util.find_spec("pyproj"):
        import pyproj  # Optional.

        with contextlib.suppress(pyproj.exceptions.CRSError, KeyError):
            facts["projection"] = pyproj.CRS.from_cf(mapping.attrs).to_proj4()
    return grid_of(facts)
