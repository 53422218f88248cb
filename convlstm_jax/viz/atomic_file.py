"""Writes a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convlstm_jax.errors import UserError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place at the end.

    A reader sees the old file or the new one, never half of one; when the body fails,
    the old file stays and the temporary one is removed. Missing parent folders are
    made. The temporary name keeps the suffix, because image and video writers choose
    the format by it.

    Args:
      path: The file to write.

    Yields:
      The temporary path to write to.

    Raises:
      UserError: The file system refuses (permission, disk full, a folder of that name).
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"'{path}' cannot be written ({reason}); choose a file in a folder that "
            "can be written to and has room."
        ) from error
    finally:
        # The folder may be missing or not a folder; then there is nothing to remove.
        if os.path.lexists(partial):
            os.unlink(partial)
