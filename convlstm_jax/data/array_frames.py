"""Frames by number from a `.npy` file, which is mapped and never loaded whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.data.pictures import luma, reason
from convlstm_jax.errors import UserError


@dataclass(frozen=True)
class ArrayReader:
    """The frames of a `.npy` file, memory-mapped.

    Attributes:
      path: the file.
      shape: [T, H, W] or [T, H, W, C], as its head says.
      dtype: uint8 or floats.
      fortran: whether its first axis varies fastest.
      offset: where its values begin, in bytes.
      num_held: frames that the file is long enough to hold.
      channels: C wanted.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int
    num_held: int
    channels: int

    @classmethod
    def open(cls, path: Path, channels: int, strict: bool) -> "ArrayReader":
        """Reads the head of the file.

        Args:
          path: the file.
          channels: C wanted: the number it holds, or 1 of 3, or 3 of 1.
          strict: whether to refuse a file that is cut short.

        Raises:
          UserError: the file is no such array or has other channels, or (strict) is
            cut short.
        """
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read_head = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read_head(file)
                offset = file.tell()
            if dtype != np.uint8 and dtype.kind != "f":
                raise ValueError(f"it has the type {dtype}, not uint8 or floats")
            if len(shape) not in (3, 4) or 0 in shape:
                raise ValueError(
                    f"it has the shape {shape}, not [T, H, W] or [T, H, W, C]"
                )
            size, whole = path.stat().st_size, int(np.prod(shape)) * dtype.itemsize
            num_held = min((size - offset) * shape[0] // whole, shape[0])
            if num_held < shape[0] and (strict or fortran):
                raise ValueError(
                    f"the file is cut short: {size} of {whole + offset} bytes"
                )
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"'{path}' cannot be read as a .npy video ({reason(error)})."
            ) from error
        held = shape[3] if len(shape) == 4 else 1
        if channels != held and (held, channels) not in ((1, 3), (3, 1)):
            raise UserError(
                f"'{path}' has {held} channels and cannot be read with {channels}; "
                f"{'1, 3' if held in (1, 3) else held} would do."
            )
        return cls(path, shape, dtype, fortran, offset, num_held, channels)

    @property
    def num_frames(self) -> int:
        """Frames by the head of the file."""
        return self.shape[0]

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
            raise UserError(
                f"'{self.path}' cannot be read as a .npy video ({reason(error)})."
            ) from error
        for number in wanted:
            if number < self.num_held:
                yield number, lambda number=number: self._load(array, number)  # type: ignore[misc]

    def _load(self, array: np.ndarray, number: int) -> np.ndarray:
        frame = np.array(array[number])
        if frame.ndim == 2:
            frame = frame[..., np.newaxis]
        # Written so that NaN, which compares false, is refused as well.
        if frame.dtype != np.uint8 and not (frame.min() >= 0 and frame.max() <= 1):
            raise UserError(
                f"'{self.path}' has values from {frame.min():g} to {frame.max():g} in "
                f"frame {number}, but floats must lie in [0, 1] (or use uint8)."
            )
        if (frame.shape[-1], self.channels) == (3, 1):
            scale = 255 if frame.dtype == np.uint8 else 1
            return luma(frame.astype(np.float32) / np.float32(scale))
        if frame.shape[-1] != self.channels:
            frame = np.repeat(frame, self.channels, axis=-1)
        return frame
