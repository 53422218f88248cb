"""A prepared folder: frames decoded once, in ArrayRecord shards by a manifest.

`preparing` writes such a folder. Its `manifest.json` holds

- "format" and "version", by which the folder is known, and of which kind it is;
- "source", the folder it was made from, and "settings", what shaped the frames;
- "left_out": by the reason, sentences on files that are none of those listed below;
- "counts" of what is listed below and of frames, used and left out;
- "shards": file, records and bytes of each;
- "videos" or "composites", see `Kind`: the named sequences of frames. Each has its
  name, sha256 and bytes of the source, facts of its kind, the shape of its frames, how
  many it should have, "problem" (what was left out and why, "" for nothing), "blank"
  (frames of one value everywhere, as runs [first, count]) and "pieces", where its
  frames are: runs [shard, first record, first frame, count].

A record is one frame, uint8 in C order.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from convlstm_jax.data.pictures import reason
from convlstm_jax.errors import UserError

MANIFEST_FILE = "manifest.json"
PROGRESS_FILE = "progress.jsonl"
"""What a folder has in place of a manifest until it is whole."""

VERSION = 2


@dataclass(frozen=True)
class Kind:
    """What a prepared folder is of.

    Attributes:
      words: the same in words, as they stand in the format.
      listed: what its sequences of frames are, as the manifest lists them.
    """

    words: str
    listed: str

    @property
    def format(self) -> str:
        """The format that the manifest names."""
        return f"convlstm_jax prepared {self.words}"


VIDEOS = Kind("videos", "videos")
ANNOTATED_VIDEOS = Kind("annotated videos", "videos")
COMPOSITES = Kind("radar composites", "composites")

_FORMAT = re.compile(rb'"convlstm_jax prepared ([a-z ]+)"')

_OPEN_SHARDS = 32


def is_prepared(path: str | Path) -> bool:
    """Tells whether a folder is a prepared one, be it only in part."""
    return (Path(path).expanduser() / PROGRESS_FILE).is_file() or bool(kind_of(path))


def kind_of(path: str | Path) -> str:
    """What a prepared folder is of, in words; "" if it does not tell, or is none."""
    folder = Path(path).expanduser()
    for name in (MANIFEST_FILE, PROGRESS_FILE):
        try:
            with (folder / name).open("rb") as file:
                match = _FORMAT.search(file.read(200))
        except OSError:
            continue
        if match:
            return match[1].decode()
    return ""


def read_manifest(folder: Path, kind: Kind) -> dict[str, Any]:
    """Reads the manifest of a prepared folder.

    Raises:
      UserError: there is none, or it is damaged, of another version or another kind.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file() and (folder / PROGRESS_FILE).is_file():
        raise UserError(
            f"'{folder}' is not prepared to its end: run the same command of "
            "--mode=prepare again, which goes on where it stopped."
        )
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(
                f"its version is {manifest['version']}, but this program reads "
                f"{VERSION}: prepare the folder anew"
            )
        found = manifest["format"]
        if found == kind.format:
            _ = manifest["settings"], manifest["shards"], manifest[kind.listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise UserError(f"'{path}' cannot be read ({why}).") from error
    if found != kind.format:
        raise UserError(
            f"'{folder}' is of the format {found!r}, but must be '{kind.format}'."
        )
    return manifest


def differing_settings(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str]:
    """Names the settings that differ, each with both values; tuples may be lists."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return [
        f"{name} is {plain(found.get(name))!r} there and {plain(value)!r} here"
        for name, value in wanted.items()
        if plain(found.get(name)) != plain(value)
    ]


class PreparedFolder:
    """A prepared folder, opened for reading.

    Args:
      path: the folder.
      kind: what it must be of.
      settings: what its frames must have been made with.

    Attributes:
      folder: the folder.
      entries: what the manifest lists, in its order.
      left_out: sentences on the files that were left out beside those, by the reason.
      shards: the files of its shards.

    Raises:
      UserError: it is not whole or of another kind, its manifest or a shard is damaged,
        or settings differ; the message names every one.
    """

    def __init__(
        self, path: str | Path, kind: Kind, settings: Mapping[str, Any]
    ) -> None:
        self.folder = Path(path).expanduser()
        manifest = read_manifest(self.folder, kind)
        differing = differing_settings(manifest["settings"], settings)
        if differing:
            raise UserError(
                f"'{self.folder}' was prepared with other settings, so give the same "
                f"or prepare another folder: {', '.join(differing)}."
            )
        for shard in manifest["shards"]:
            file = self.folder / shard["file"]
            size = file.stat().st_size if file.is_file() else 0
            if size != shard["bytes"]:
                raise UserError(
                    f"'{file}' has {size} bytes, but by the manifest it must have "
                    f"{shard['bytes']}: prepare the folder anew."
                )
        self.entries: list[dict[str, Any]] = manifest[kind.listed]
        self.left_out: dict[str, list[str]] = manifest["left_out"]
        self.shards = tuple(self.folder / one["file"] for one in manifest["shards"])


def read_records(shard: Path, records: Sequence[int]) -> list[bytes]:
    """Reads records of a shard by their numbers.

    Raises:
      UserError: the shard is damaged.
    """
    try:
        return _opened(shard).read(records)
    except RuntimeError as error:
        raise UserError(
            f"'{shard}' cannot be read ({reason(error)}): prepare the folder anew."
        ) from error


@lru_cache(maxsize=_OPEN_SHARDS)
def _opened(path: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # Clips come from anywhere: what follows a record is not likely to be wanted next.
    return ArrayRecordReader(str(path), options="readahead_buffer_size:0")


def numbers_of(runs: Iterable[Sequence[int]]) -> list[int]:
    """The numbers in runs [first, count]."""
    return list(chain.from_iterable(range(f, f + count) for f, count in runs))
