"""What a video's files hold: their bytes, and a hash that tells when they change."""

import hashlib
from pathlib import Path
from typing import Any

from convlstm_jax.data.pictures import picture_paths, reason
from convlstm_jax.errors import UserError


def content_of(path: Path) -> dict[str, Any]:
    """Reads the files of a video.

    Args:
      path: a file; a folder of pictures, of which these alone count; or a Zarr store.

    Returns:
      "sha256", of the file, or of the names and hashes of the folder's files in order
      (with "" for those that cannot be read); and "bytes", how many there are.

    Raises:
      UserError: the file or the folder cannot be read.
    """
    if path.is_file():
        try:
            return {"sha256": _hash_of(path), "bytes": path.stat().st_size}
        except OSError as error:
            raise UserError(f"'{path}' cannot be read ({reason(error)}).") from error
    if path.suffix.lower() == ".zarr":
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        files = picture_paths(path)
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(path).as_posix()
        try:
            content = _hash_of(file)
        except OSError:
            content = ""
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    size = sum(file.stat().st_size for file in files)
    return {"sha256": digest.hexdigest(), "bytes": size}


def _hash_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
