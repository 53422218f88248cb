"""Videos of a prepared folder, which read like those it was made from."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.data.prepared import (
    VIDEOS,
    Kind,
    PreparedFolder,
    numbers_of,
    read_records,
)
from convlstm_jax.data.video_frames import Video
from convlstm_jax.data.video_search import FoundVideo


@dataclass(frozen=True, eq=False)
class ShardReader:
    """The frames of one video of a prepared folder, see `FrameReader`.

    Attributes:
      shards: the files of the folder's shards.
      shape: [H, W, C] of the frames.
      pieces: (shard, first record, first frame, count), ascending by frame.
      cut: always "".
    """

    shards: tuple[Path, ...]
    shape: tuple[int, ...]
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
            contents = read_records(
                self.shards[shard], [record for _, record in places]
            )
            for (number, _), content in zip(places, contents, strict=True):
                frame = np.frombuffer(content, np.uint8).reshape(self.shape)
                yield number, lambda frame=frame: frame  # type: ignore[misc]


class PreparedVideos(PreparedFolder):
    """A prepared folder of videos, opened for reading.

    Args:
      path: the folder.
      settings: what its frames must have been made with.
      kind: `VIDEOS`, or videos of another kind.

    Attributes:
      found: its videos, as `find_videos` would find those it was made from.

    Raises:
      UserError: see `PreparedFolder`.
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, Any], kind: Kind = VIDEOS
    ) -> None:
        super().__init__(path, kind, settings)
        self._shape = settings["height"], settings["width"], settings["channels"]
        self.found = [
            FoundVideo(self.folder / entry["name"], entry["name"])
            for entry in self.entries
        ]
        self._by_path = {
            one.path: entry for one, entry in zip(self.found, self.entries, strict=True)
        }

    def open_video(self, path: Path) -> Video:
        """Opens a video by its path in `found`."""
        entry = self._by_path[path]
        pieces = sorted(map(tuple, entry["pieces"]), key=lambda piece: piece[2])
        reader = ShardReader(self.shards, self._shape, tuple(pieces))
        readable = numbers_of(piece[2:] for piece in pieces)
        return Video(
            path,
            *self._shape,
            reader.num_frames,
            entry["problem"],
            frozenset(range(reader.num_frames)).difference(readable),
            frozenset(numbers_of(entry["blank"])),
            _reader=reader,
        )
