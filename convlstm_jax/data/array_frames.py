"""Frames by number from a `.npy` file, which is mapped and never loaded whole.

What the values of an array may be, and how they become frames, is the same for every
kind of array file and stands here too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.data.pictures import luma, reason
from convlstm_jax.errors import UserError


@dataclass(frozen=True)
class ArrayValues:
    """What is wanted of the values of an array.

    Attributes:
      channels: C wanted: the number the array holds, or 1 of 3, or 3 of 1.
      value_range: the values that become 0 and 1; those between are scaled linearly,
        those beyond clipped. (): the array must be uint8 or floats in [0, 1].
    """

    channels: int
    value_range: tuple[float, ...] = ()

    def check(self, shape: Sequence[int], dtype: np.dtype) -> None:
        """Checks what the head of an array says of it.

        Raises:
          ValueError: it is no such array; the message is a clause without the file.
        """
        kinds = "fiu" if self.value_range else "f"
        if dtype != np.uint8 and dtype.kind not in kinds:
            wanted = "integers or floats" if self.value_range else "uint8 or floats"
            raise ValueError(f"it has the type {dtype}, not {wanted}")
        if len(shape) not in (3, 4) or 0 in shape:
            raise ValueError(
                f"it has the shape {tuple(shape)}, not [T, H, W] or [T, H, W, C]"
            )
        held = shape[3] if len(shape) == 4 else 1
        if self.channels != held and (held, self.channels) not in ((1, 3), (3, 1)):
            raise ValueError(
                f"it has {held} channels, not "
                f"{'1 or 3' if self.channels in (1, 3) else self.channels}"
            )

    def frame(self, path: Path, number: int, values: np.ndarray) -> np.ndarray:
        """Makes a frame of the values of one.

        Args:
          path: the file, for errors.
          number: the frame's number, for errors.
          values: [H, W] or [H, W, C] of the array.

        Returns:
          uint8, or floats in [0, 1], [H, W, channels].

        Raises:
          UserError: a value is not finite, or outside [0, 1] without a `value_range`.
        """
        if values.ndim == 2:
            values = values[..., np.newaxis]
        if values.dtype.kind == "f":
            strange = np.count_nonzero(~np.isfinite(values))
            if strange:
                raise UserError(
                    f"'{path}' has {strange} of {values.size} values in frame {number} "
                    "that are not finite (NaN or infinite)."
                )
        if self.value_range:
            low, high = self.value_range
            scaled = (values.astype(np.float64) - low) / (high - low)
            values = np.clip(scaled, 0, 1).astype(np.float32)
        elif values.dtype != np.uint8 and (values.min() < 0 or values.max() > 1):
            raise UserError(
                f"'{path}' has values from {values.min():g} to {values.max():g} in "
                f"frame {number}, but floats must lie in [0, 1]: use uint8, or tell "
                "with value_range which values are to become 0 and 1."
            )
        if (values.shape[-1], self.channels) == (3, 1):
            scale = 255 if values.dtype == np.uint8 else 1
            return luma(values.astype(np.float32) / np.float32(scale))
        if values.shape[-1] != self.channels:
            values = np.repeat(values, self.channels, axis=-1)
        return values


def read_array_head(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the head of an array in the format of `.npy`.

    Args:
      file: a file that stands at its beginning; it stands at the values afterwards.

    Returns:
      Its shape, whether its first axis varies fastest, and its type.

    Raises:
      ValueError, EOFError: it is no such array.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


@dataclass(frozen=True)
class ArrayReader:
    """The frames of a `.npy` file, or of an array that lies in a file as it would.

    Attributes:
      path: the file, which is memory-mapped.
      shape: [T, H, W] or [T, H, W, C], as its head says.
      dtype: of the values.
      fortran: whether its first axis varies fastest.
      offset: where its values begin, in bytes.
      num_held: frames that the file is long enough to hold.
      values: what is wanted of them.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int
    num_held: int
    values: ArrayValues

    @classmethod
    def open(
        cls, path: Path, values: ArrayValues, strict: bool, start: int = 0
    ) -> "ArrayReader":
        """Reads the head of the array.

        Args:
          path: the file.
          values: what is wanted of its values.
          strict: whether to refuse a file that is cut short.
          start: where the head begins, in bytes.

        Raises:
          UserError: it is no such array or has other channels, or (strict) is cut
            short.
        """
        try:
            with path.open("rb") as file:
                file.seek(start)
                shape, fortran, dtype = read_array_head(file)
                offset = file.tell()
            values.check(shape, dtype)
            size, whole = path.stat().st_size, int(np.prod(shape)) * dtype.itemsize
            num_held = min((size - offset) * shape[0] // whole, shape[0])
            if num_held < shape[0] and (strict or fortran):
                raise ValueError(
                    f"the file is cut short: {size} of {whole + offset} bytes"
                )
        except (OSError, ValueError, EOFError) as error:
            raise unreadable_array(path, error) from error
        return cls(path, shape, dtype, fortran, offset, num_held, values)

    @property
    def num_frames(self) -> int:
        """Frames by the head of the file."""
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return self.shape[2], self.shape[1]

    @property
    def cut(self) -> str:
        """Why the file ends early, or ""."""
        return "" if self.num_held == self.num_frames else "the file is cut short"

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`."""
        try:
            array = np.memmap(
                self.path,
                self.dtype,
                mode="r",
                offset=self.offset,
                shape=(self.num_held, *self.shape[1:]),
                order="F" if self.fortran else "C",
            )
        except (OSError, ValueError) as error:
            raise unreadable_array(self.path, error) from error
        for number in wanted:
            if number < self.num_held:
                yield number, lambda number=number: self._load(array, number)  # type: ignore[misc]

    def _load(self, array: np.ndarray, number: int) -> np.ndarray:
        return self.values.frame(self.path, number, np.array(array[number]))


def unreadable_array(path: Path, error: BaseException) -> UserError:
    """The error for an array file that failed with `error`."""
    return UserError(
        f"'{path}' cannot be read as a {path.suffix.lower()} video ({reason(error)})."
    )
