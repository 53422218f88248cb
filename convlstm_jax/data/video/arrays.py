"""Arrays as films: npy, npz, NetCDF and Zarr, read in blocks of frames."""

import importlib.util
import math
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.files import MAX_FRAME_BYTES, check_budget, reason
from convlstm_jax.data.video.fit import (
    Bad,
    FrameSettings,
    Opened,
    Raw,
    SetupError,
    check_channels,
)
from convlstm_jax.errors import UserError

SUFFIXES = (".npy", ".npz", ".nc", ".nc4", ".cdf", ".zarr")

_HEADS = threading.Lock()  # Parsing in two threads at once may fail (Python 3.11).
_BLOCK_VALUES = 2**23  # 64 MiB of floats with 64 bits.

# Words in the names of dimensions, in lower case and without digits.
_ROLES = {
    "time": "time times t frame frames step date datetime",
    "y": "y lat latitude row rows rlat nj ny nlat yc north northing h",
    "x": "x lon longitude col cols column columns rlon ni nx nlon xc east easting w "
         "width",
    "channel": "channel channels band bands c rgb",
    "other": "level lev plev height depth z member ensemble number realization "
             "isobaricinhpa pressure altitude",
}  # fmt: skip
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
_ROLE_OF_AXIS = {"T": "time", "Y": "y", "X": "x", "Z": "other"}


@dataclass(frozen=True)
class _Array:
    """An open array; `read` returns frames first .. end - 1.

    The first `held` can be read; `cut` says why there are no more.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    held: int
    cut: str = ""


def open_array(path: Path, settings: FrameSettings) -> Opened:
    """Opens a file or Zarr store as a film."""
    suffix = path.suffix.lower()
    closing = ExitStack()
    try:
        if suffix == ".npy":
            array = _open_npy(path)
        elif suffix == ".npz":
            array = _open_npz(path, settings.variable, closing)
        else:
            array = _open_xarray(path, settings, closing)
        _check(path, array, settings)
    except Exception as error:  # Of a damaged file, anything may be raised.
        closing.close()
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"'{path}' cannot be read as a {suffix} film ({reason(error)})"
        ) from error
    return Opened(_frames(array, closing), array.shape[0], None, array.cut)


def _check(path: Path, array: _Array, settings: FrameSettings) -> None:
    shape, dtype = array.shape, array.dtype
    if dtype != np.uint8 and dtype.kind not in ("fiu" if settings.value_range else "f"):
        must = "it must hold integers or floats"
        if dtype.kind in "iu":
            must = (
                "config.data.value_range must say which values become 0 and 1, unless "
                "they are uint8 or floats in [0, 1]"
            )
        raise ValueError(f"it has the type {dtype}: {must}")
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(
            f"it has the shape {tuple(shape)}: it must be [T, H, W] or [T, H, W, C]"
        )
    what = f"its shape {tuple(shape)}, [T, H, W, C],"
    check_channels((*shape, 1)[3], settings.channels, what)
    check_budget(path, shape[0], math.prod(shape[1:]) * dtype.itemsize)


def _frames(array: _Array, closing: ExitStack) -> Iterator[Raw | Bad]:
    size = max(1, _BLOCK_VALUES // math.prod(array.shape[1:]))
    with closing:
        valid: np.ndarray | None = None
        for first in range(0, array.held, size):
            end = min(first + size, array.held)
            try:
                steps: list[np.ndarray | Bad] = list(array.read(first, end))
            except Exception:  # Perhaps some of them can be read.
                steps = [_one(array, number) for number in range(first, end)]
            if first == 0 and isinstance(steps[0], np.ndarray):
                valid = _permanent_gap(steps[0], array, size)
            for frame in steps:
                if isinstance(frame, Bad):
                    yield frame
                else:
                    values = frame.reshape(*array.shape[1:3], -1)
                    yield Raw(values, white=0, scaled=True, valid=valid)


def _one(array: _Array, number: int) -> np.ndarray | Bad:
    try:
        return array.read(number, number + 1)[0]
    except Exception as error:
        return Bad(reason(error))


def _permanent_gap(first: np.ndarray, array: _Array, size: int) -> np.ndarray | None:
    """Where there is data, `[H, W]`, if some pixels have none in any frame."""
    if first.dtype.kind != "f" or np.isfinite(first).all():
        return None
    gap = np.ones(first.shape[:2], bool)
    for start in range(0, array.held, size):
        try:
            missing = np.isnan(array.read(start, min(start + size, array.held)))
        except Exception:
            continue
        gap &= missing.reshape(*missing.shape[:3], -1).all((0, 3))
        if not gap.any():
            return None
    return None if gap.all() else ~gap


def _read_head(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads shape, Fortran order and type; the file then stands at the values."""
    with _HEADS:
        if np.lib.format.read_magic(file) == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)


def _open_npy(path: Path) -> _Array:
    with path.open("rb") as file:
        shape, fortran, dtype = _read_head(file)
        offset = file.tell()
    size, whole = path.stat().st_size, math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not whole:  # `_check` refuses it.
        return _Array(shape, dtype, lambda first, end: np.empty(0), 0)
    held = min((size - offset) * shape[0] // whole, shape[0])
    cut = ""
    if held < shape[0]:
        cut = f"the file is cut short: {size} of {whole + offset} bytes"
        if fortran or not held:
            raise ValueError(cut)
    order: Any = "F" if fortran else "C"
    array = np.memmap(path, dtype, "r", offset, (held, *shape[1:]), order)
    return _Array(
        shape, dtype, lambda first, end: np.array(array[first:end]), held, cut
    )


def _open_npz(path: Path, variable: str, closing: ExitStack) -> _Array:
    archive = closing.enter_context(zipfile.ZipFile(path))
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    name = _chosen(variable, names, names)
    member = archive.infolist()[names.index(name)]
    with archive.open(member) as head:
        shape, fortran, dtype = _read_head(head)
    frame_bytes = math.prod(shape[1:]) * dtype.itemsize
    if fortran:  # Frames are not contiguous: read all of them.
        check_budget(path, 1, frame_bytes * shape[0])
        with archive.open(member) as file:
            _read_head(file)
            array = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        return _Array(shape, dtype, lambda first, end: array[first:end], shape[0])
    file = closing.enter_context(archive.open(member))
    _read_head(file)
    offset = file.tell()

    def read(first: int, end: int) -> np.ndarray:
        try:
            file.seek(offset + frame_bytes * first)
            content = file.read(frame_bytes * (end - first))
        except BaseException:
            file.seek(0)  # Or the state of the decompression stays broken.
            raise
        if len(content) < frame_bytes * (end - first):
            raise EOFError("it ends early")
        return np.frombuffer(content, dtype).reshape(end - first, *shape[1:])

    return _Array(shape, dtype, read, shape[0] if shape else 0)


def _chosen(variable: str, names: Sequence[str], films: Sequence[str]) -> str:
    """The name of the array to read, of those that may be films."""
    if variable and variable not in names:
        held = ", ".join(names) or "no array"
        raise ValueError(f"variable is {variable!r}, but it holds {held}")
    if not variable and len(films) != 1:
        held = ", ".join(films) or "no array of three or more dimensions"
        raise ValueError(f"it holds {held}: config.data.variable must name one")
    return variable or films[0]


def _open_xarray(path: Path, settings: FrameSettings, closing: ExitStack) -> _Array:
    is_zarr = path.suffix.lower() == ".zarr"
    needed = "xarray", "zarr" if is_zarr else "h5netcdf"
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"'{path}' cannot be read without {' and '.join(missing)}: run "
            "`pip install -r requirements-xarray.txt`"
        )
    import xarray  # Slow, and optional.

    # Not every calendar is known to NumPy.
    options: dict[str, Any] = {"decode_times": False, "cache": False}
    if is_zarr:
        # By default, xarray warns about stores without consolidated metadata.
        options |= {"engine": "zarr", "consolidated": False}
    else:
        with path.open("rb") as file:
            classic = file.read(3) == b"CDF"
        if classic:
            options["engine"] = "scipy"
        else:
            _refuse_links(path)
            options |= {"engine": "h5netcdf", "phony_dims": "sort"}
    data = closing.enter_context(xarray.open_dataset(path.absolute(), **options))
    names = sorted(map(str, data))
    large = [name for name in names if sum(size > 1 for size in data[name].shape) > 1]
    films = [name for name in large if data[name].ndim >= 3]
    variable = _chosen(settings.variable, names, films)
    encoding = data[variable].encoding
    field = in_order(data[variable])
    chunks = encoding.get("chunksizes") or encoding.get("chunks") or ()
    if math.prod(chunks) * field.dtype.itemsize > MAX_FRAME_BYTES * 4:
        raise ValueError(f"its chunks of {tuple(chunks)} values are too large to read")
    packed = {"scale_factor", "add_offset"} & set(encoding) or settings.value_range
    stored = np.dtype(encoding.get("dtype", field.dtype))
    # With a fill value, xarray makes floats of bytes.
    are_bytes = stored == np.uint8 and field.dtype.kind == "f" and not packed

    def read(first: int, end: int) -> np.ndarray:
        values = field[first:end].to_numpy()
        return values / np.float32(255) if are_bytes else values

    return _Array(field.shape, field.dtype, read, len(field))


def _refuse_links(path: Path) -> None:
    """Refuses HDF5 whose values lie in other files."""
    import h5py

    with h5py.File(path, "r") as file:
        for name in file:
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{name!r} is a link to another file")
            one = file.get(name)
            if isinstance(one, h5py.Dataset) and (one.external or one.is_virtual):
                raise ValueError(f"the values of {name!r} lie in another file")


def in_order(field: Any) -> Any:
    """A variable as `[T, H, W]` or `[T, H, W, C]`, by the names of its dimensions."""
    lengths = dict(zip(field.dims, field.shape, strict=True))
    roles = {name: _role(field, name) for name in field.dims}
    if "width" in map(str.lower, map(str, field.dims)):  # Then "height" is no altitude.
        roles |= {name: "y" for name in field.dims if str(name).lower() == "height"}
    chosen: dict[str, Any] = {}
    for role in ("time", "y", "x", "channel"):
        names = [name for name in field.dims if roles[name] == role]
        if names:  # Of a reference time and its steps, one may have length 1.
            chosen[role] = max(names, key=lambda name: lengths[name] > 1)
    lacking = [role for role in ("time", "y", "x") if role not in chosen]
    unknown = [name for name in field.dims if not roles[name]]
    long = [name for name in unknown if lengths[name] > 1]
    # The other roles go to unknown dimensions in their order.
    chosen |= dict(
        zip(lacking, long if len(long) >= len(lacking) else unknown, strict=False)
    )
    wrong = [n for n in field.dims if lengths[n] > 1 and n not in chosen.values()]
    if wrong == [field.dims[-1]] and wrong[0] in unknown and "channel" not in chosen:
        chosen["channel"], wrong = wrong[0], []
    found = ", ".join(f"{name} ({length})" for name, length in lengths.items())
    found = f"its dimensions are {found}"
    if wrong:
        raise ValueError(
            f"{found}: they must be time, y and x, and perhaps channel, so keep one of "
            f"{wrong[0]}, such as with xarray's isel"
        )
    lacking = [role for role in ("time", "y", "x") if role not in chosen]
    if lacking:
        raise ValueError(
            f"{found}, none of which is {lacking[0]}: rename them to time, y and x"
        )
    times = field.coords.get(chosen["time"])
    is_number = times is not None and times.dtype.kind in "iuf"
    if is_number and (np.diff(times.to_numpy().astype(float)) < 0).any():
        raise ValueError(
            f"its {chosen['time']} goes backwards: sort it, as by xarray's sortby"
        )
    order = [chosen[role] for role in ("time", "y", "x", "channel") if role in chosen]
    dropped = [name for name in field.dims if name not in order]
    return field.isel(dict.fromkeys(dropped, 0)).transpose(*order)


def _role(field: Any, name: Any) -> str:
    """The role of a dimension by its name or its coordinate's attributes, or ""."""
    facts = field.coords[name].attrs if name in field.coords else {}
    units = str(facts.get("units", ""))
    axis = _ROLE_OF_AXIS.get(str(facts.get("axis", "")).upper(), "")
    if axis or " since " in units:
        return axis or "time"
    for text in name, facts.get("standard_name", ""), units.removeprefix("degrees_"):
        words = re.findall("[a-z]+", str(text).lower())
        roles = {_ROLE_OF[word] for word in words if word in _ROLE_OF}
        if len(roles) == 1:
            return roles.pop()
    return ""
