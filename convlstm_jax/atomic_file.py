"""Writes a file whole or not at all."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convlstm_jax.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces it at the end.

    A reader sees the old file or the new one, also after a power failure. If the body
    fails, the old file stays and the temporary one is removed. Parent folders are
    created. The temporary name keeps the suffix, by which writers choose the format.
    Temporary files that killed processes have left of `path` are removed.
    """
    path = Path(path)
    host = f"{socket.gethostname()}-"
    writer = f"{host}{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f".{path.stem}.{writer}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_partials(path, f".{path.stem}.{host}", f".partial{path.suffix}")
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        # The folder may be missing or not a folder; then there is nothing to remove.
        if os.path.lexists(partial):
            os.unlink(partial)


def _remove_partials(path: Path, start: str, end: str) -> None:
    """Removes temporary files whose process is gone."""
    for name in os.listdir(path.parent):
        if name.startswith(start) and name.endswith(end):
            with suppress(OSError, ValueError):
                try:
                    os.kill(int(name.removeprefix(start).partition("-")[0]), 0)
                except ProcessLookupError:
                    path.with_name(name).unlink()


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
