"""Frames by number from a `.npz` file, one array of it, within bounded memory."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlstm_jax.data.array_frames import (
    ArrayReader,
    ArrayValues,
    read_array_head,
    unreadable_array,
)
from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.errors import UserError

# An encrypted file is a RuntimeError to zipfile, an unknown compression a
# NotImplementedError, which is one too.
_ZIP_ERRORS = (
    OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class CompressedArrayReader:
    """The frames of an array in a zip file that is compressed, read from its start.

    Attributes:
      path: the file.
      member: name of the array in it.
      shape: [T, H, W] or [T, H, W, C], as its head says.
      dtype: of the values.
      values: what is wanted of them.
      cut: always "": what is cut short is no zip file.
    """

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    values: ArrayValues
    cut: str = ""

    @property
    def num_frames(self) -> int:
        """Frames by the head of the array."""
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return self.shape[2], self.shape[1]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`; all frames on the way come."""
        frame_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        try:
            with (
                zipfile.ZipFile(self.path) as archive,
                archive.open(self.member) as file,
            ):
                read_array_head(file)  # type: ignore[arg-type]
                for number in range(wanted[-1] + 1):
                    content = file.read(frame_bytes)
                    if len(content) < frame_bytes:
                        raise EOFError(f"it ends in frame {number}")
                    array = np.frombuffer(content, self.dtype).reshape(self.shape[1:])
                    yield (
                        number,
                        lambda number=number, array=array: self.values.frame(  # type: ignore[misc]
                            self.path, number, array
                        ),
                    )
        except UserError:
            raise
        except _ZIP_ERRORS as error:
            raise unreadable_array(self.path, error) from error


def open_npz(
    path: Path, values: ArrayValues, strict: bool, variable: str = ""
) -> ArrayReader | CompressedArrayReader:
    """Opens one array of a `.npz` file.

    Args:
      path: the file, as `np.savez` (mapped) or `np.savez_compressed` (decompressed
        from its start whenever it is read) writes it.
      values: what is wanted of the values.
      strict: see `ArrayReader.open`.
      variable: name of the array; "": the only one there is.

    Raises:
      UserError: the file cannot be read, has no such array, or several and none is
        named, or the array is no video.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if variable and variable not in names:
                raise ValueError(
                    f"variable is {variable!r}, but it holds {', '.join(names)}"
                )
            if not variable and len(names) != 1:
                raise ValueError(
                    f"it holds {', '.join(names) or 'no array'}: variable must name one"
                )
            member = archive.infolist()[names.index(variable or names[0])]
            if member.compress_type != zipfile.ZIP_STORED:
                with archive.open(member) as file:
                    shape, fortran, dtype = read_array_head(file)  # type: ignore[arg-type]
                values.check(shape, dtype)
                if fortran:
                    raise ValueError(
                        "its first axis varies fastest (Fortran order), which is read "
                        "only where it is not compressed"
                    )
                return CompressedArrayReader(
                    path, member.filename, shape, dtype, values
                )
        start = _start_of(path, member)
    except _ZIP_ERRORS as error:
        raise unreadable_array(path, error) from error
    return ArrayReader.open(path, values, strict, start)


def _start_of(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member that is not compressed begin in the file."""
    head_bytes = 30  # Then its name and extra field, whose lengths end the head.
    with path.open("rb") as file:
        file.seek(member.header_offset)
        head = file.read(head_bytes)
    return member.header_offset + head_bytes + sum(struct.unpack("<HH", head[26:30]))
