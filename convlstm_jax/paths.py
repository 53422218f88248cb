"""Files that a user names: their paths, and reading them within limits."""

import errno
import gzip
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError

MAX_BYTES = 2**32
"""Most bytes that are read from one file into memory at once, also after unpacking."""


def local_path(path: str | Path) -> Path:
    """The path with `~` expanded; a `UserError` if no file can have such a path."""
    shown = text if len(text := str(path)) <= 200 else f"{text[:100]}…{text[-80:]}"
    try:
        found = Path(path).expanduser()
        os.lstat(found)
    except RuntimeError as error:
        raise UserError(f"'{shown}' is not a path here: {error}") from error
    except ValueError as error:
        raise UserError(f"{shown!r} is not a path: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"'{shown}' is not a path here: it is too long") from error
    return found


def check_regular(path: Path) -> None:
    """Refuses what is not a regular file: reading a pipe may never end."""
    try:
        _require_regular(path)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"'{path}' cannot be read ({why})") from error


def _require_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"'{path}' cannot be read: it must be a regular file")


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file, unpacked if its name ends in `.gz`.

    Raises a `UserError` if it is longer than the limit or no regular file, an
    `OSError`, `EOFError` or `zlib.error` if it is missing or damaged.
    """
    _require_regular(path)
    with path.open("rb") as file:
        packed = path.suffix.lower() == ".gz"
        content: Any = gzip.GzipFile(fileobj=file) if packed else file
        found = bytearray()
        # In parts: Python reserves as many bytes as are asked for.
        while len(found) <= max_bytes and (part := content.read(2**20)):
            found += part
    if len(found) > max_bytes:
        raise UserError(f"'{path}' has more than {max_bytes:,} bytes, the most allowed")
    return bytes(found)


def read_json(path: Path, **options: Any) -> Any:
    """The content of a JSON file; an `OSError` or `ValueError` if it is damaged."""
    return parse_json(read_bytes(path), **options)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """As `json.loads`, with a `ValueError` also where Python's recursion ends."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def seal(content: Any) -> dict[str, Any]:
    """JSON content with a CRC-32 of its canonical text, for `unseal`."""
    content = json.loads(json.dumps(content))
    return {"crc32": _checksum(content), "content": content}


def unseal(sealed: Any, named: str = "it") -> Any:
    """The content that `seal` was given; a `ValueError` if it has changed."""
    if not isinstance(sealed, dict) or sorted(sealed) != ["content", "crc32"]:
        raise ValueError(f"{named} has no checksum")
    if _checksum(sealed["content"]) != sealed["crc32"]:
        raise ValueError(f"{named} does not match its checksum")
    return sealed["content"]


def _checksum(content: Any) -> int:
    try:
        return zlib.crc32(json.dumps(content, sort_keys=True).encode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
