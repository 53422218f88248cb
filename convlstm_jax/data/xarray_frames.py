"""Frames by number from NetCDF and Zarr, read by xarray where it is installed."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.array_frames import ArrayValues, unreadable_array
from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.errors import UserError

XARRAY_SUFFIXES = (".nc", ".zarr")

# What reads a kind beside xarray itself.
_ENGINES = {".nc": "h5netcdf", ".zarr": "zarr"}
_BLOCK_VALUES = 2**23  # 64 MiB of floats with 64 bits.
# What xarray and the libraries under it raise on files that are damaged.
_XARRAY_ERRORS = (
    OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, EOFError,
)  # fmt: skip


def require_xarray(path: Path) -> None:
    """Checks that what is needed to read a file is installed.

    Raises:
      UserError: it is not; the message says what to install.
    """
    packages = ("xarray", _ENGINES[path.suffix.lower()])
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"'{path}' cannot be read without {' and '.join(missing)}: run "
            "`pip install -r requirements-xarray.txt`."
        )


@dataclass(frozen=True)
class XarrayReader:
    """The frames of one variable of a NetCDF file or Zarr store.

    Attributes:
      path: the file or folder.
      variable: name of the variable.
      shape: [T, H, W] or [T, H, W, C].
      values: what is wanted of its values.
      cut: always "": the libraries do not open a file that is cut short.
    """

    path: Path
    variable: str
    shape: tuple[int, ...]
    values: ArrayValues
    cut: str = ""

    @classmethod
    def open(cls, path: Path, values: ArrayValues, variable: str) -> "XarrayReader":
        """Reads what the file says of its variables.

        Args:
          path: the file or folder.
          values: what is wanted of its values.
          variable: name of the variable, whose dimensions are time, y, x and perhaps
            channels; "": the only one with three or four dimensions.

        Raises:
          UserError: the file cannot be read, has no such variable, or several and none
            is named, or the variable is no video.
        """
        try:
            with _opened(path) as data:
                if not variable:
                    names = sorted(map(str, data))
                    fields = [name for name in names if data[name].ndim in (3, 4)]
                    if len(fields) != 1:
                        raise ValueError(
                            f"it holds {', '.join(fields) or 'no variable'} of three "
                            "or four dimensions: variable must name one"
                        )
                    (variable,) = fields
                if variable not in data:
                    held = ", ".join(sorted(map(str, data))) or "no variable"
                    raise ValueError(f"variable is {variable!r}, but it holds {held}")
                field = data[variable]
                values.check(field.shape, field.dtype)
                if "time" in field.dims[1:]:
                    raise ValueError(
                        f"the dimensions of {variable!r} are {', '.join(field.dims)}, "
                        "but time must be the first, then y and x"
                    )
                return cls(path, variable, field.shape, values)
        except _XARRAY_ERRORS as error:
            raise unreadable_array(path, error) from error

    @property
    def num_frames(self) -> int:
        """Length of the first dimension."""
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return self.shape[2], self.shape[1]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`."""
        try:
            with _opened(self.path) as data:
                field = data[self.variable]
                for numbers in self._blocks(wanted):
                    yield from self._block(field, numbers)
        except UserError:
            raise
        except _XARRAY_ERRORS as error:
            raise unreadable_array(self.path, error) from error

    def _blocks(self, wanted: Sequence[int]) -> Iterator[range]:
        """Runs of frames to be read at once: a chunk on disk may hold many frames."""
        most = max(1, _BLOCK_VALUES // int(np.prod(self.shape[1:])))
        first = end = wanted[0]
        for number in wanted:
            if number != end or end - first == most:
                yield range(first, end)
                first = number
            end = number + 1
        yield range(first, end)

    def _block(self, field: Any, numbers: range) -> Iterator[tuple[int, LoadFrame]]:
        try:
            place = {field.dims[0]: slice(numbers.start, numbers.stop)}
            block = field.isel(place).to_numpy()
        except _XARRAY_ERRORS:  # Perhaps some of them can be read.
            for number in numbers:
                yield number, lambda number=number: self._load(field, number)  # type: ignore[misc]
            return
        for number, frame in zip(numbers, block, strict=True):
            yield (
                number,
                # A copy, or one frame in the cache would keep the whole block alive.
                lambda number=number, frame=frame: self.values.frame(  # type: ignore[misc]
                    self.path, number, np.array(frame)
                ),
            )

    def _load(self, field: Any, number: int) -> np.ndarray:
        try:
            frame = field.isel({field.dims[0]: number}).to_numpy()
        except _XARRAY_ERRORS as error:
            raise unreadable_array(self.path, error) from error
        return self.values.frame(self.path, number, frame)


def _opened(path: Path) -> Any:
    """The file as a dataset of xarray whose values are read when they are asked for."""
    import xarray  # Slow, and not everybody has it.

    # Times are not looked at, and not every calendar is one that NumPy knows.
    options: dict[str, Any] = {"decode_times": False, "cache": False}
    if path.suffix.lower() == ".zarr":
        # Without it xarray warns where a store has no summary of itself.
        options |= {"engine": "zarr", "consolidated": False}
    return xarray.open_dataset(path, **options)
