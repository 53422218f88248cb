"""Reads a prepared folder: videos decoded once, in ArrayRecord shards by a manifest.

`preparing` writes such a folder. Its `manifest.json` holds

- "format" and "version", by which the folder is known;
- "source", the folder it was made from, and "settings", what shaped the frames;
- "counts" of videos and frames, used and left out;
- "shards": file, records and bytes of each;
- "videos", in natural order: name, sha256 and bytes of the source, its condition, how
  many frames it should have, "problem" (what was left out and why, "" for nothing),
  "blank" (frames of one value everywhere, as runs [first, count]) and "pieces", where
  its frames are: runs [shard, first record, first frame, count].

A record is one frame, uint8 [H, W, C] in C order.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.data.pictures import reason
from convlstm_jax.data.video_frames import Video
from convlstm_jax.data.video_search import FoundVideo
from convlstm_jax.errors import UserError

MANIFEST_FILE = "manifest.json"
PROGRESS_FILE = "progress.jsonl"
"""What a folder has in place of a manifest until it is whole."""

FORMAT = "convlstm_jax prepared videos"
VERSION = 1

_OPEN_SHARDS = 32


def is_prepared(path: str | Path) -> bool:
    """Tells whether a folder is a prepared one, be it only in part."""
    folder = Path(path).expanduser()
    if (folder / PROGRESS_FILE).is_file():
        return True
    try:
        with (folder / MANIFEST_FILE).open("rb") as file:
            return FORMAT.encode() in file.read(200)
    except OSError:
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a prepared folder.

    Raises:
      UserError: there is none, or it is damaged or of another version.
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
                f"{VERSION}"
            )
        _ = manifest["settings"], manifest["shards"], manifest["videos"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise UserError(f"'{path}' cannot be read ({why}).") from error
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


@dataclass(frozen=True, eq=False)
class ShardReader:
    """The frames of one video of a prepared folder, see `FrameReader`.

    Attributes:
      folder: the folder.
      files: names of its shards.
      shape: [H, W, C] of the frames.
      pieces: (shard, first record, first frame, count), ascending by frame.
      cut: always "".
    """

    folder: Path
    files: tuple[str, ...]
    shape: tuple[int, int, int]
    pieces: tuple[tuple[int, int, int, int], ...]
    cut: str = ""

    @property
    def num_frames(self) -> int:
        """Frames up to the last one."""
        return self.pieces[-1][2] + self.pieces[-1][3] if self.pieces else 0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return self.shape[1], self.shape[0]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`; the frames wanted come and no other."""
        firsts = [first for _, _, first, _ in self.pieces]
        numbers: dict[int, list[tuple[int, int]]] = {}
        for number in wanted:
            place = bisect_right(firsts, number) - 1
            shard, record, first, count = self.pieces[max(place, 0)]
            if place >= 0 and number < first + count:
                numbers.setdefault(shard, []).append((number, record + number - first))
        for shard, places in numbers.items():
            path = self.folder / self.files[shard]
            try:
                records = _opened(path).read([record for _, record in places])
            except RuntimeError as error:
                raise UserError(
                    f"'{path}' cannot be read ({reason(error)}): prepare the folder "
                    "anew."
                ) from error
            for (number, _), content in zip(places, records, strict=True):
                frame = np.frombuffer(content, np.uint8).reshape(self.shape)
                yield number, lambda frame=frame: frame  # type: ignore[misc]


class PreparedFolder:
    """A prepared folder, opened for reading.

    Args:
      path: the folder.

    Attributes:
      found: its videos, as `find_videos` would find those it was made from.

    Raises:
      UserError: it is not whole, or its manifest or a shard is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path).expanduser()
        self._manifest = read_manifest(self._folder)
        shards = self._manifest["shards"]
        for shard in shards:
            file = self._folder / shard["file"]
            size = file.stat().st_size if file.is_file() else 0
            if size != shard["bytes"]:
                raise UserError(
                    f"'{file}' has {size} bytes, but by the manifest it must have "
                    f"{shard['bytes']}: prepare the folder anew."
                )
        self._files = tuple(shard["file"] for shard in shards)
        videos = self._manifest["videos"]
        self.found = [
            FoundVideo(self._folder / video["name"], video["name"]) for video in videos
        ]
        self._videos = {
            one.path: video for one, video in zip(self.found, videos, strict=True)
        }

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Checks that the frames were made as they are wanted.

        Raises:
          UserError: naming every setting that differs.
        """
        differing = differing_settings(self._manifest["settings"], settings)
        if differing:
            raise UserError(
                f"'{self._folder}' was prepared with other settings, so give the same "
                f"or prepare another folder: {', '.join(differing)}."
            )

    def open_video(self, path: Path) -> Video:
        """Opens a video by its path in `found`."""
        video, settings = self._videos[path], self._manifest["settings"]
        shape = settings["height"], settings["width"], settings["channels"]
        pieces = sorted(map(tuple, video["pieces"]), key=lambda piece: piece[2])
        reader = ShardReader(self._folder, self._files, shape, tuple(pieces))
        readable = numbers_of(piece[2:] for piece in pieces)
        return Video(
            path,
            *shape,
            reader.num_frames,
            video["problem"],
            frozenset(range(reader.num_frames)).difference(readable),
            frozenset(numbers_of(video["blank"])),
            _reader=reader,
        )


def numbers_of(runs: Iterator[Sequence[int]] | Sequence[Sequence[int]]) -> list[int]:
    """The numbers in runs [first, count]."""
    return list(chain.from_iterable(range(f, f + count) for f, count in runs))


@lru_cache(maxsize=_OPEN_SHARDS)
def _opened(path: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # Clips come from anywhere: what follows a record is not likely to be wanted next.
    return ArrayRecordReader(str(path), options="readahead_buffer_size:0")
