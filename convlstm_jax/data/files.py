"""Data files: limits, order, content hashes, and what is left out."""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convlstm_jax.atomic_file import replacing
from convlstm_jax.errors import UserError
from convlstm_jax.paths import read_json

MAX_FRAMES = 10_000_000
"""Most frames that are read from one file."""

MAX_FRAME_BYTES = 2**29
"""Most bytes of one decoded frame."""

# A file that changed this shortly before it was hashed may change again unnoticed.
_SETTLED_SECONDS = 2.0


@dataclass
class LeftOut:
    """What is left out of the data: names or sentences, by the reason."""

    reasons: dict[str, list[str]] = field(default_factory=dict)
    noun: str = "video"

    def add(self, why: str, what: str) -> None:
        """Adds one thing."""
        self.reasons.setdefault(why, []).append(what.rstrip("."))

    def __str__(self) -> str:
        """For each reason the count and the first."""
        return "; ".join(
            f"{plural(len(names), self.noun)} {why} (first: {names[0]})"
            for why, names in self.reasons.items()
        )


def check_budget(path: Path, num_frames: int, frame_bytes: int) -> None:
    """Refuses a file whose header announces too many or too large frames."""
    for found, limit, what in (
        (frame_bytes, MAX_FRAME_BYTES, "bytes in a frame"),
        (num_frames, MAX_FRAMES, "frames"),
    ):
        if found > limit:
            raise UserError(
                f"'{path}' claims {found:,} {what}: it must have at most {limit:,}"
            )


def walk(root: Path) -> Iterator[tuple[str, list[os.DirEntry[str]] | OSError]]:
    """Visits the folder `root` and all below it once, following links.

    Yields a folder's path below `root`, "" or ending in "/", and its entries by name,
    or why it cannot be read. Hidden entries are left out. A Zarr store is an entry, and
    not searched.
    """
    seen: set[tuple[int, int]] = set()
    folders = [""]
    while folders:  # No recursion: folders may be nested deeper than calls can be.
        prefix = folders.pop()
        folder = str(root / prefix)
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:  # Links may form cycles.
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as entries:
                visible = [one for one in entries if not one.name.startswith(".")]
        except OSError as error:
            yield prefix, error
            continue
        visible.sort(key=lambda entry: entry.name)
        folders += [
            f"{prefix}{entry.name}/"
            for entry in visible
            if entry.is_dir() and not is_store(entry.name)
        ]
        yield prefix, visible


def is_store(name: str) -> bool:
    """Whether a folder of this name is a Zarr store."""
    return name.lower().endswith(".zarr")


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts `frame2` before `frame10`, ignoring case."""
    return [
        (0, int(part)) if part.isdecimal() else (1, part.casefold())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def plural(count: int, word: str) -> str:
    """The count and the noun, such as `2 videos`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def reason(error: BaseException) -> str:
    """The first line of an error's message, without the error number."""
    text = str(getattr(error, "strerror", None) or error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", first).rstrip(".")


def content_hash(files: Sequence[Path], index: Path) -> str:
    """SHA-256 of the names and contents of files, in their order.

    The hash is kept in the folder `index` and reused as long as the size, times and
    inode of every file are the same. An unreadable file counts as empty.
    """
    state = [_state(file) for file in files]
    names = "\0".join(map(str, files)).encode("utf-8", "surrogateescape")
    kept = index / f"{hashlib.sha256(names).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        found_state, found = read_json(kept)
        if found_state == state:
            return str(found)
    began = time.time()
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode("utf-8", "surrogateescape") + b"\0")
        with contextlib.suppress(OSError), file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
        digest.update(b"\n")
    changed = max((max(one[1:3]) for one in state if one), default=0)
    if began - changed / 1e9 > _SETTLED_SECONDS:
        # If it cannot be kept, the next run hashes again.
        with contextlib.suppress(OSError), replacing(kept) as partial:
            partial.write_text(json.dumps([state, digest.hexdigest()]), "utf-8")
    return digest.hexdigest()


def _state(file: Path) -> list[int]:
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
