"""Arrays as films: npy, npz, NetCDF and Zarr, read frame by frame."""

import importlib.util
import math
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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

NETCDF_SUFFIXES = (".nc", ".nc4", ".cdf")
ARRAY_SUFFIXES = (".npy", ".npz", *NETCDF_SUFFIXES, ".zarr")

# What the libraries raise on files that are damaged; an encrypted zip is a
# RuntimeError, an unknown compression a NotImplementedError, which is one too.
_ARRAY_ERRORS = (
    OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, EOFError,
    AttributeError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_HEADS = threading.Lock()  # Parsed by two threads at once, one fails (Python 3.11).
_BLOCK_VALUES = 2**23  # 64 MiB of floats with 64 bits.

# What a dimension is by the words of its name, in lower case and without digits.
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
    """An array that is open.

    Attributes:
        shape: `[T, H, W]` or `[T, H, W, C]`, unless the file is to be refused.
        dtype: of the values that are stored.
        read: gives frames first .. end - 1.
        held: frames that are there.
        cut: why there are no more; "" if these are all.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    held: int
    cut: str = ""


def open_array(path: Path, settings: FrameSettings) -> Opened:
    """Opens a file or Zarr store as a film.

    Raises:
        UserError: it cannot be read, or is no film.
    """
    suffix = path.suffix.lower()
    if suffix in (*NETCDF_SUFFIXES, ".zarr"):
        _require_xarray(path)
    closing = ExitStack()
    try:
        if suffix == ".npy":
            array = _open_npy(path)
        elif suffix == ".npz":
            array = _open_npz(path, settings.variable, closing)
        else:
            array = _open_xarray(path, settings.variable, closing)
        shape, dtype = array.shape, array.dtype
        wanted = "fiu" if settings.value_range else "f"
        if dtype != np.uint8 and dtype.kind not in wanted:
            told = "it must hold integers or floats"
            if dtype.kind in "iu":
                told = (
                    "config.data.value_range must say which values become 0 and 1, "
                    "unless they are uint8 or floats in [0, 1]"
                )
            raise ValueError(f"it has the type {dtype}: {told}")
        if len(shape) not in (3, 4) or 0 in shape:
            raise ValueError(
                f"it has the shape {tuple(shape)}: it must be [T, H, W] or [T, H, W, C]"
            )
        what = f"its shape {tuple(shape)}, [T, H, W, C],"
        check_channels((*shape, 1)[3], settings.channels, what)
        check_budget(path, shape[0], math.prod(shape[1:]) * dtype.itemsize)
    except _ARRAY_ERRORS as error:
        closing.close()
        if isinstance(error, UserError):
            raise
        why = f"no {error}" if isinstance(error, KeyError) else reason(error)
        told = f"'{path}' cannot be read as a {suffix} film ({why})"
        raise UserError(told) from error
    frames = _frames(array, closing)
    return Opened((shape[1], shape[2]), frames, shape[0], None, array.cut)


def _frames(array: _Array, closing: ExitStack) -> Iterator[Raw | Bad]:
    size = max(1, _BLOCK_VALUES // math.prod(array.shape[1:]))
    with closing:
        valid: np.ndarray | None = None
        for first in range(0, array.held, size):
            end = min(first + size, array.held)
            try:
                steps: list[np.ndarray | Bad] = list(array.read(first, end))
            except _ARRAY_ERRORS:  # Perhaps some of them can be read.
                steps = [_one(array, number) for number in range(first, end)]
            if first == 0 and isinstance(steps[0], np.ndarray):
                valid = _permanent_gap(steps[0], array, size)
            for frame in steps:
                if isinstance(frame, np.ndarray):
                    frame = frame.reshape(*array.shape[1:3], -1)
                    if array.dtype == np.uint8 and frame.dtype != np.uint8:
                        frame = _bytes(frame, valid)
                if isinstance(frame, Bad):
                    yield frame
                else:
                    yield Raw(frame, white=0, scaled=True, valid=valid)


def _bytes(frame: np.ndarray, valid: np.ndarray | None) -> np.ndarray | Bad:
    """Bytes of which xarray made floats, as some are the fill value: NaN."""
    missing = np.isnan(frame)
    count = np.count_nonzero(missing if valid is None else missing[valid])
    if count:
        return Bad(
            f"{count} of {frame.size} values are missing; gaps may only lie at the "
            "same pixels in all frames: fill the others"
        )
    return np.where(missing, 0, frame).astype(np.uint8)


def _one(array: _Array, number: int) -> np.ndarray | Bad:
    try:
        return array.read(number, number + 1)[0]
    except _ARRAY_ERRORS as error:
        return Bad(reason(error))


def _permanent_gap(first: np.ndarray, array: _Array, size: int) -> np.ndarray | None:
    """Where there is data, `[H, W]`, if some pixels have none in any frame."""
    if first.dtype.kind != "f" or np.isfinite(first).all():
        return None
    gap = np.ones(first.shape[:2], bool)
    for start in range(0, array.held, size):
        try:
            strange = np.isnan(array.read(start, min(start + size, array.held)))
        except _ARRAY_ERRORS:
            continue  # What can be read of it decides.
        gap &= strange.reshape(*strange.shape[:3], -1).all((0, 3))
        if not gap.any():
            return None
    return None if gap.all() else ~gap


def _read_head(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis varies fastest, and type; stands at the values."""
    with _HEADS:
        if np.lib.format.read_magic(file) == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)


def _open_npy(path: Path) -> _Array:
    with path.open("rb") as file:
        shape, fortran, dtype = _read_head(file)
        offset = file.tell()
    size, whole = path.stat().st_size, math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not whole:  # To be refused.
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
    if variable and variable not in names:
        raise ValueError(f"variable is {variable!r}, but it holds {', '.join(names)}")
    if not variable and len(names) != 1:
        raise ValueError(
            f"it holds {', '.join(names) or 'no array'}: config.data.variable must "
            "name one"
        )
    member = archive.infolist()[names.index(variable or names[0])]
    with archive.open(member) as head:
        shape, fortran, dtype = _read_head(head)
    frame_bytes = math.prod(shape[1:]) * dtype.itemsize
    if fortran:  # Each of its frames lies everywhere.
        check_budget(path, 1, frame_bytes * shape[0])
        with archive.open(member) as file:
            _read_head(file)
            array = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        return _Array(shape, dtype, lambda first, end: array[first:end], shape[0])
    # The file is read from its beginning to its end, and from the beginning again.
    opened: list[tuple[int, IO[bytes]]] = []

    def read(first: int, end: int) -> np.ndarray:
        position, file = opened.pop() if opened else (-1, None)
        if file is None or position != first:
            if file is not None:
                file.close()
            file = closing.enter_context(archive.open(member))
            _read_head(file)
            for _ in range(first):
                file.read(frame_bytes)
        content = file.read(frame_bytes * (end - first))
        if len(content) < frame_bytes * (end - first):
            raise EOFError("it ends early")
        opened.append((end, file))
        return np.frombuffer(content, dtype).reshape(end - first, *shape[1:])

    return _Array(shape, dtype, read, shape[0] if shape else 0)


def _require_xarray(path: Path) -> None:
    engine = "zarr" if path.suffix.lower() == ".zarr" else "h5netcdf"
    missing = [
        name for name in ("xarray", engine) if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise SetupError(
            f"'{path}' cannot be read without {' and '.join(missing)}: run "
            "`pip install -r requirements-xarray.txt`"
        )


def _open_xarray(path: Path, variable: str, closing: ExitStack) -> _Array:
    import xarray  # Slow, and not everybody has it.

    # Times are not looked at, and not every calendar is one that NumPy knows.
    options: dict[str, Any] = {"decode_times": False, "cache": False}
    if path.suffix.lower() == ".zarr":
        # Without it xarray warns where a store has no summary of itself.
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
    if not variable:
        names = sorted(map(str, data))
        found = [
            name for name in names if sum(size > 1 for size in data[name].shape) >= 2
            and data[name].ndim >= 3
        ]  # fmt: skip
        if len(found) != 1:
            raise ValueError(
                f"it holds {', '.join(found) or 'no variable'} of three or more "
                "dimensions: config.data.variable must name one"
            )
        (variable,) = found
    if variable not in data:
        held = ", ".join(sorted(map(str, data))) or "no variable"
        raise ValueError(f"variable is {variable!r}, but it holds {held}")
    encoding = data[variable].encoding
    field = _in_order(data[variable])
    chunks = encoding.get("chunksizes") or encoding.get("chunks") or ()
    if math.prod(chunks) * field.dtype.itemsize > MAX_FRAME_BYTES * 4:
        raise ValueError(f"its chunks of {tuple(chunks)} values are too large to read")
    dtype = field.dtype
    if not {"scale_factor", "add_offset"} & set(encoding) and dtype.kind == "f":
        # With a fill value, xarray makes floats of bytes.
        stored = np.dtype(encoding.get("dtype", dtype))
        dtype = stored if stored == np.uint8 else dtype
    return _Array(
        field.shape, dtype, lambda first, end: field[first:end].to_numpy(), len(field)
    )


def _refuse_links(path: Path) -> None:
    """Refuses HDF5 whose values lie in other files, which nobody asked to be read."""
    import h5py

    with h5py.File(path, "r") as file:
        for name in file:
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{name!r} is a link to another file")
            one = file.get(name)
            if isinstance(one, h5py.Dataset) and (one.external or one.is_virtual):
                raise ValueError(f"the values of {name!r} lie in another file")


def _in_order(field: Any) -> Any:
    """A variable as `[T, H, W]` or `[T, H, W, C]`, by the names of its dimensions.

    Raises:
        ValueError: they do not tell, or there is another dimension, longer than 1.
    """
    lengths = dict(zip(field.dims, field.shape, strict=True))
    role_of = {name: _role(field, name) for name in field.dims}
    if "width" in map(str.lower, map(str, field.dims)):  # Then this is no altitude.
        role_of |= {name: "y" for name in field.dims if str(name).lower() == "height"}
    chosen: dict[str, Any] = {}
    for role in ("time", "y", "x", "channel"):
        names = [name for name in field.dims if role_of[name] == role]
        if names:  # Of an analysis time and its steps, those of length 1 tell nothing.
            chosen[role] = max(names, key=lambda name: lengths[name] > 1)
    lacking = [role for role in ("time", "y", "x") if role not in chosen]
    unknown = [name for name in field.dims if not role_of[name]]
    long = [name for name in unknown if lengths[name] > 1]
    # The others are taken in the order that arrays have.
    taken = long if len(long) >= len(lacking) else unknown
    chosen |= dict(zip(lacking, taken, strict=False))
    wrong = [n for n in field.dims if lengths[n] > 1 and n not in chosen.values()]
    if wrong == [field.dims[-1]] and wrong[0] in unknown and "channel" not in chosen:
        chosen["channel"], wrong = wrong[0], []
    told = ", ".join(f"{name} ({length})" for name, length in lengths.items())
    if wrong:
        name = wrong[0]
        values = field[name].to_numpy() if name in field.coords else ()
        choices = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise ValueError(
            f"its dimensions are {told}: they must be time, y and x, and perhaps "
            f"channel, so keep one of {name}{f' ({choices})' if choices else ''} and "
            "save it again, such as with xarray's isel"
        )
    lacking = [role for role in ("time", "y", "x") if role not in chosen]
    if lacking:
        raise ValueError(
            f"its dimensions are {told}, of which none is {lacking[0]}: rename them to "
            "time, y and x"
        )
    times = field.coords.get(chosen["time"])
    is_told = times is not None and times.dtype.kind in "iuf"
    if is_told and (np.diff(times.to_numpy().astype(float)) < 0).any():
        raise ValueError(
            f"its {chosen['time']} goes backwards: sort it, as by xarray's sortby"
        )
    order = [chosen[role] for role in ("time", "y", "x", "channel") if role in chosen]
    dropped = [name for name in field.dims if name not in order]
    return field.isel(dict.fromkeys(dropped, 0)).transpose(*order)


def _role(field: Any, name: Any) -> str:
    """What a dimension is, by its name or the attributes of its coordinate, or ""."""
    facts = field.coords[name].attrs if name in field.coords else {}
    axis = _ROLE_OF_AXIS.get(str(facts.get("axis", "")).upper(), "")
    units = str(facts.get("units", ""))
    if " since " in units:
        axis = axis or "time"
    texts = name, facts.get("standard_name", ""), units.removeprefix("degrees_")
    # The axis, if it tells, is what is meant: a level may have any name.
    return axis or next(filter(None, map(_role_of_text, texts)), "")


def _role_of_text(text: Any) -> str:
    """The one role that the words of a text have; "" for none, or for several."""
    words = re.findall("[a-z]+", str(text).lower())
    roles = {_ROLE_OF[word] for word in words if word in _ROLE_OF}
    return roles.pop() if len(roles) == 1 else ""
