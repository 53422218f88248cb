"""Writes a file whole or not at all."""

import itertools
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from convlstm_jax.errors import UserError

_HOST = socket.gethostname()
_PARTIAL = re.compile(rf"\.{re.escape(_HOST)}-(\d{{1,9}})-\d+\.partial.*")
_numbers = itertools.count()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces it at the end.

    A reader sees the old file or the new one, also after a power failure. If the body
    fails, the old file stays and the temporary one is removed. Parent folders are
    created. The temporary name keeps the suffix, by which writers choose the format.
    Temporary files that killed processes have left in the folder are removed.
    """
    path = Path(path)
    writer = f"{_HOST}-{os.getpid()}-{next(_numbers)}"
    partial = path.with_name(f".{writer}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_partials(path.parent)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        # The folder may be missing or not a folder; then there is nothing to remove.
        if os.path.lexists(partial):
            os.unlink(partial)


@cache
def _remove_partials(folder: Path) -> None:
    """Removes temporary files of processes of this machine that are gone.

    Once for each folder: listing a large one before every file would take long.
    """
    for name in os.listdir(folder):
        if found := _PARTIAL.fullmatch(name):
            with suppress(OSError):
                try:
                    os.kill(int(found[1]), 0)
                except ProcessLookupError:
                    (folder / name).unlink()


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """As `replacing`, but raises a `UserError` if the file system refuses."""
    try:
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be written ({error.strerror or error}): it must be a "
            "file in a folder that can be written to and has room"
        ) from error
