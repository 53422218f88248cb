"""Writes one shard of a prepared folder: whole, or not at all."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.errors import UserError


class ShardWriter:
    """An ArrayRecord file that gets its name once it is whole and on the disk.

    Args:
      path: its name. Nothing is written before the first record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._writer: Any = None
        self._num_records = 0

    def write(self, frame: np.ndarray) -> int:
        """Adds a frame as a record; returns the record's number.

        Raises:
          UserError: the disk is full, or refuses otherwise.
        """
        try:
            if self._writer is None:
                from array_record.python.array_record_module import ArrayRecordWriter

                # One record a group, as clips are read from anywhere.
                self._writer = ArrayRecordWriter(str(self._partial), "group_size:1")
            self._writer.write(frame.tobytes())
        except RuntimeError as error:
            raise refused(self._path.parent, error) from error
        self._num_records += 1
        return self._num_records - 1

    def finish(self) -> dict[str, Any] | None:
        """Gives the file its name; returns its "file", "records" and "bytes".

        Returns:
          None if no record was written, and so no file.

        Raises:
          UserError: the disk is full, or refuses otherwise.
        """
        if self._writer is None:
            return None
        try:
            self._writer.close()
            self._writer = None
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
            self._partial.replace(self._path)
        except (RuntimeError, OSError) as error:
            raise refused(self._path.parent, error) from error
        size = self._path.stat().st_size
        return {"file": self._path.name, "records": self._num_records, "bytes": size}

    def drop(self) -> None:
        """Removes what was written, unless it was finished."""
        if self._writer is None:
            return
        # Where the disk is full, closing fails as writing did.
        with contextlib.suppress(RuntimeError):
            self._writer.close()
        self._writer = None
        self._partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a small file; a crash leaves the old one or the new one.

    Raises:
      UserError: the disk is full, or refuses otherwise.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise refused(path.parent, error) from error


def refused(folder: Path, error: BaseException) -> UserError:
    """The error for a folder that cannot be written to.

    Args:
      folder: the prepared folder.
      error: an OSError, or what ArrayRecord makes of one: "write() failed: No space
        left on device; writing FILE; ...".
    """
    why = getattr(error, "strerror", None) or str(error)
    match = re.search(r"failed: ([^;\n]+)", why)
    why = match.group(1) if match else why
    if not folder.is_dir():
        return UserError(
            f"'{folder}' cannot be written to ({why}): choose another folder."
        )
    return UserError(
        f"'{folder}' cannot be written to ({why}): the shards written so far are kept, "
        "so make room and run the same command again, which goes on from there."
    )
