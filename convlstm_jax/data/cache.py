"""A cache of decoded frames on disk.

An entry is a folder named by the hash of its key, with `frames.npy`, `mask.npy` if some
pixels have no data, `checks.npy`, the CRC-32 of every frame, and `entry.json`. It is
written under a temporary name and renamed: a process that ends early leaves no entry.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import uuid
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convlstm_jax.data.files import reason
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path, read_json, seal, unseal
from convlstm_jax.waiting import reported_if_long

VERSION = 2
"""Part of every key; raised when decoding changes."""

FOLDER_VARIABLE = "CONVLSTM_CACHE_DIR"
LIMIT_VARIABLE = "CONVLSTM_CACHE_GB"
_DEFAULT_GB = 20.0

_log = logging.getLogger(__name__)


class CacheError(UserError):
    """The cache cannot be written to, or is damaged."""


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of an entry, of shape `(N, H, W, C)`, read by slices; can be pickled.

    `masked` is whether some pixels have no data; `extra` what the producer returned.
    """

    folder: Path
    shape: tuple[int, ...]
    masked: bool
    extra: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        """The number of frames, N."""
        return self.shape[0]

    def read(self, start: int, count: int = 1, stride: int = 1) -> np.ndarray:
        """Reads frames start, start + stride, ...: uint8 `[count, H, W, C]`, a copy."""
        clip = self._slice("frames.npy", self.shape, start, count, stride)
        checks = self._slice("checks.npy", self.shape[:1], start, count, stride)
        for number, (frame, check) in enumerate(zip(clip, checks, strict=True)):
            if zlib.crc32(frame) != check:
                raise self._damaged(f"frame {start + number * stride} has changed")
        return clip

    def read_mask(self, start: int, count: int = 1, stride: int = 1) -> np.ndarray:
        """Reads masks, uint8 `[count, H, W, 1]`: 1 where there is data."""
        shape = (*self.shape[:-1], 1)
        if self.masked:
            return self._slice("mask.npy", shape, start, count, stride)
        return np.ones((count, *shape[1:]), np.uint8)

    def _slice(
        self, name: str, shape: tuple[int, ...], start: int, count: int, stride: int
    ) -> np.ndarray:
        end = start + (count - 1) * stride + 1
        if start < 0 or count < 1 or stride < 1 or end > len(self):
            raise IndexError(f"{start}:{end}:{stride} of {len(self)} frames")
        try:
            return np.array(_opened(self.folder / name, shape)[start:end:stride])
        except (OSError, ValueError) as error:
            raise self._damaged(reason(error)) from error

    def _damaged(self, why: str) -> CacheError:
        return CacheError(
            f"'{self.folder}' cannot be read ({why}): remove this folder to decode its "
            "frames again"
        )


@lru_cache(maxsize=64)
def _opened(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    # Not `np.load`: it may fail where two threads parse headers (Python 3.11).
    with path.open("rb") as file:
        offset = 10 + int.from_bytes(file.read(10)[8:], "little")
    return np.memmap(path, np.uint8 if shape[1:] else np.uint32, "r", offset, shape)


class FrameWriter:
    """Writes the frames of an entry one by one; see `FrameCache.cached`."""

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._files: dict[str, BinaryIO] = {}
        self._shape: tuple[int, ...] = ()
        self._checks: list[int] = []
        self.num_bytes = 0

    def add(self, frame: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Writes a frame, uint8 `[H, W, C]`, and its mask, `[H, W, 1]`, or none."""
        self._shape = self._shape or frame.shape
        if frame.dtype != np.uint8 or frame.shape != self._shape:
            raise ValueError(f"a frame is {frame.dtype} {frame.shape}")
        frame = np.ascontiguousarray(frame)
        self._append("frames.npy", frame)
        if mask is not None:
            self._append("mask.npy", np.ascontiguousarray(mask, np.uint8))
        self._checks.append(zlib.crc32(frame.data))

    def _append(self, name: str, values: np.ndarray) -> None:
        self.num_bytes += values.nbytes
        if self._max_bytes is not None and self.num_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        with _disk_errors(self._folder):
            if name not in self._files:
                self._files[name] = (self._folder / name).open("wb")
                _write_header(self._files[name], (0, *values.shape))
            self._files[name].write(values.data)

    def finish(self, key_parts: Mapping[str, Any], extra: dict[str, Any]) -> None:
        """Completes the files and syncs them to the disk."""
        shape = (len(self._checks), *self._shape)
        with _disk_errors(self._folder):
            for name, file in self._files.items():
                file.seek(0)
                channels = 1 if name == "mask.npy" else shape[-1]
                _write_header(file, (*shape[:-1], channels))
                _sync(file)
            with (self._folder / "checks.npy").open("wb") as file:
                np.save(file, np.array(self._checks, np.uint32))
                _sync(file)
            sizes = {one.name: one.stat().st_size for one in self._folder.iterdir()}
            entry = {"shape": shape, "masked": "mask.npy" in sizes, "sizes": sizes}
            entry |= {"key": key_parts, "extra": extra}
            with (self._folder / "entry.json").open("wb") as file:
                file.write(json.dumps(seal(entry)).encode())
                _sync(file)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # On a full disk, closing fails too.
                file.close()


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # NumPy pads the header for any length, so that it can be written again in place.
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"'{folder.parent}', the cache of decoded frames, cannot be written to "
            f"({reason(error)}): make room, or choose another folder with the "
            f"environment variable {FOLDER_VARIABLE} (in --mode=prepare: --output)"
        ) from error


def _too_large(max_bytes: int) -> CacheError:
    return CacheError(
        f"the decoded frames take more than the {max_bytes / 1e9:.3g} GB of the cache: "
        f"raise the environment variable {LIMIT_VARIABLE}, ask for smaller frames, or "
        "decode them into a folder with --mode=prepare"
    )


Producer = Callable[[FrameWriter], dict[str, Any]]


class FrameCache:
    """Entries in a folder, for several threads and processes at once.

    Beyond `max_bytes` the least recently used entries that no living process has asked
    for are removed.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._lease: Path | None = None
        self._num_bytes: int | None = None  # Estimated size of all entries.

    def cached(self, key_parts: Mapping[str, Any], produce: Producer) -> Frames:
        """Returns the frames of a key, which `produce` adds to a writer the first time.

        The key is all that determines the frames, as JSON: the hash of the source's
        content and the settings. `produce` returns facts to store, as JSON.
        """
        name = entry_name(key_parts)
        with _disk_errors(self.folder / name):
            self.folder.mkdir(parents=True, exist_ok=True)
            lease = self._own_lease()
            with self._locked("cache.lock"), lease.open("a") as file:
                file.write(f"{name}\n")  # Not while entries are removed.
        found = self.find(name)
        if found is None:
            with self._locked(f"{name[:2]}.lock"):
                found = self.find(name) or self._fill(name, key_parts, produce)
        with contextlib.suppress(OSError):
            os.utime(found.folder / "entry.json")
        return found

    def find(self, name: str) -> Frames | None:
        """The entry of a name (see `entry_name`); None if missing or incomplete."""
        folder = self.folder / name
        try:
            entry = unseal(read_json(folder / "entry.json"))
            for file, size in entry["sizes"].items():
                if (folder / file).stat().st_size != size:
                    return None
            shape = tuple(entry["shape"])
            return Frames(folder, shape, entry["masked"], entry["extra"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _fill(
        self, name: str, key_parts: Mapping[str, Any], produce: Producer
    ) -> Frames:
        lease = self._own_lease().name
        partial = self.folder / f".{lease}.{uuid.uuid4().hex}.partial"
        writer = FrameWriter(partial, self._max_bytes)
        try:
            with _disk_errors(partial):
                partial.mkdir()
            extra = produce(writer)
            writer.finish(key_parts, extra)
            with _disk_errors(partial), self._locked("cache.lock"):
                self._make_room(writer.num_bytes)
                shutil.rmtree(self.folder / name, ignore_errors=True)  # A damaged one.
                partial.rename(self.folder / name)
            _opened.cache_clear()
        finally:
            writer.close()
            shutil.rmtree(partial, ignore_errors=True)
        found = self.find(name)
        if found is None:
            raise CacheError(f"'{self.folder / name}' was removed while in use")
        return found

    def _make_room(self, num_bytes: int) -> None:
        """Removes the least recently used entries that no living process uses."""
        if self._max_bytes is None:
            return
        if self._num_bytes is not None:
            self._num_bytes += num_bytes
            if self._num_bytes < 0.9 * self._max_bytes:  # Other processes may add, too.
                return
        entries = []
        for folder in self.folder.iterdir():
            with contextlib.suppress(OSError):
                used = (folder / "entry.json").stat().st_mtime_ns
                size = sum(file.stat().st_size for file in folder.iterdir())
                entries.append((used, size, folder))
        total = num_bytes + sum(size for _, size, _ in entries)
        in_use = self._in_use()
        for _, size, folder in sorted(entries):
            if total > self._max_bytes and folder.name not in in_use:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size
        if total > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._num_bytes = total

    def _own_lease(self) -> Path:
        """A file that lists the entries in use, locked while this object lives."""
        with self._lock:
            if self._lease is None:
                lease = self.folder / ".in_use" / uuid.uuid4().hex
                lease.parent.mkdir(exist_ok=True)
                with self._locked("cache.lock"):
                    self._in_use()  # Cleans up after dead processes.
                    file = lease.open("ab")
                    _flock(file.fileno(), fcntl.LOCK_EX)
                weakref.finalize(self, file.close)
                self._lease = lease
            return self._lease

    def _in_use(self) -> set[str]:
        """The entries that living processes use; cleans up after dead ones."""
        names: set[str] = set()
        alive: set[str] = set()
        for path in (self.folder / ".in_use").iterdir():
            with path.open("rb") as file:
                if _flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                    path.unlink()
                else:
                    alive.add(path.name)
                    names.update(file.read().decode().split())
        for partial in self.folder.glob(".*.partial"):
            if partial.name.split(".")[1] not in alive:
                shutil.rmtree(partial, ignore_errors=True)
        return names

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self.folder / ".locks"
        with _disk_errors(folder):
            folder.mkdir(exist_ok=True)
            file = (folder / name).open("ab")
        with file:
            if not _flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                words = "waiting for another process, which decodes frames into '%s'"
                with reported_if_long(_log.warning, words, self.folder):
                    _flock(file.fileno(), fcntl.LOCK_EX)
            yield


def _flock(descriptor: int, operation: int) -> bool:
    """Whether the lock was taken, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def entry_name(key_parts: Mapping[str, Any]) -> str:
    """The name of a key's entry."""
    text = json.dumps({**key_parts, "version": VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@lru_cache(maxsize=4)
def _cache(folder: Path, max_bytes: int) -> FrameCache:
    return FrameCache(folder, max_bytes)


def default_cache() -> FrameCache:
    """The cache that the environment variables describe."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given) if given else Path("~/.cache/convlstm_jax/frames")
    text = os.environ.get(LIMIT_VARIABLE, str(_DEFAULT_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise CacheError(
            f"the environment variable {LIMIT_VARIABLE} is {text!r}: it must be a "
            "number above 0"
        )
    return _cache(local_path(folder).absolute(), int(gigabytes * 1e9))
