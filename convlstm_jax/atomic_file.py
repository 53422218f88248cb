"""Writes a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convlstm_jax.errors import UserError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces it at the end.

    A reader sees the old file or the new one, also after a power failure. If the body
    fails, the old file stays and the temporary one is removed. Missing parent folders
    are created. The temporary name keeps the suffix, by which image and video writers
    choose the format.

    Raises:
        UserError: the file system refuses (permission, disk full, a folder of that
            name).
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"'{path}' cannot be written ({reason}): it must be a file in a folder "
            "that can be written to and has room"
        ) from error
    finally:
        # The folder may be missing or not a folder; then there is nothing to remove.
        if os.path.lexists(partial):
            os.unlink(partial)
