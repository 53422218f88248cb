"""Writes a prepared folder: decodes named sequences of frames once, into shards.

What is prepared is a `Work`; `preparing_videos`, `preparing_annotations` and
`preparing_composites` make one of a folder. Shards are filled with frames one after
the other, by their bytes alone; a long video lies in several, a shard may hold many
sequences. A shard gets its name when it is whole, and then a line in the file of the
progress, from which the work goes on after whatever ended it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.frame_readers import FrameReader
from convlstm_jax.data.prepared import (
    MANIFEST_FILE,
    PROGRESS_FILE,
    Kind,
    numbers_of,
    read_manifest,
)
from convlstm_jax.data.preparing_progress import (
    Progress,
    check_same,
    manifest_of,
    manifest_text,
)
from convlstm_jax.data.shard_writer import ShardWriter, write_whole
from convlstm_jax.data.source_files import content_of
from convlstm_jax.data.video_frames import is_blank
from convlstm_jax.data.video_readers import UnreadableVideo, decode_frames
from convlstm_jax.errors import UserError

SHARD_BYTES = 128 * 2**20
"""Bytes of frames in a shard, before compression."""

_FRAMES_BETWEEN_REPORTS = 100

Report = Callable[[float, int], None]
"""Is told how many items are done, the one at work by its share, and of how many."""


@dataclass(frozen=True)
class Opened:
    """An item whose frames can be had.

    Attributes:
      reader: decodes them.
      shape: of a frame that is written.
      fit: makes a decoded frame such a one, uint8.
    """

    reader: FrameReader
    shape: tuple[int, ...]
    fit: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Item:
    """A named sequence of frames that is to be prepared.

    Attributes:
      name: its path below the folder searched, with "/" between the levels.
      path: where it is.
      facts: what is written down of it besides, as JSON has it. All but "condition",
        which is told anew where the folder is read, must stay as they are.
      open: opens it; raises an `UnreadableVideo` if it is to be left out, or refused.
    """

    name: str
    path: Path
    facts: Mapping[str, Any]
    open: Callable[[], Opened]


@dataclass(frozen=True)
class Work:
    """All that a folder is prepared from.

    Attributes:
      kind: of what the prepared folder is.
      source: the folder that the items are of.
      settings: what shapes the frames, as JSON has it; with "bad_files", whether to
        "refuse" what cannot be read or to "skip" it.
      items: what is to be prepared.
      left_out: sentences on files that are none of the items, by the reason.
      judge: is given the manifest's entries once all are read, for what can be told of
        one by the others alone; see `leave_out`.
    """

    kind: Kind
    source: str
    settings: Mapping[str, Any]
    items: Sequence[Item]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    judge: Callable[[list[dict[str, Any]]], None] = lambda entries: None


def prepare(work: Work, output: Path, report: Report) -> dict[str, Any]:
    """Decodes all items once and writes their frames.

    Args:
      work: what is to be prepared.
      output: the folder to write, a new one or one that this function left unfinished.
      report: is told how the work goes on.

    Returns:
      The manifest, see `prepared`; of a folder that is whole already, the one there.

    Raises:
      UserError: an item is to be refused; the output cannot be written, or was made of
        other items or with other settings. Shards written before are kept.
    """
    kind, items = work.kind, work.items
    head = {
        "format": kind.format,
        "source": str(Path(work.source).expanduser().resolve()),
        "settings": dict(work.settings),
    }
    if (output / MANIFEST_FILE).exists():
        manifest = read_manifest(output, kind)
        check_same(output, manifest, head)
        _check_items(output, manifest[kind.listed], work)
        return manifest
    progress = Progress.open(output, head, kind)
    _check_items(output, list(progress.entries.values()), work, whole=False)
    writer = _Writer(output, work.settings["bad_files"] == "refuse", progress)
    try:
        for index in range(max(0, len(progress.entries) - 1), len(items)):

            def tell(share: float, index: int = index) -> None:
                report(index + share, len(items))

            writer.add(items[index], tell)
        writer.finish_shard()
    finally:
        writer.drop_shard()
    manifest = manifest_of(head, kind, progress, work.left_out, work.judge)
    write_whole(output / MANIFEST_FILE, manifest_text(manifest))
    (output / PROGRESS_FILE).unlink()
    return manifest


def _check_items(
    output: Path,
    entries: Sequence[Mapping[str, Any]],
    work: Work,
    *,
    whole: bool = True,
) -> None:
    """Checks that the items are those that were there when the work began.

    Args:
      output: the prepared folder.
      entries: what is written down of the items in it.
      work: what there is now.
      whole: whether it must be all of them, and not only the first.

    Raises:
      UserError: naming the first that is new, gone or changed.
    """
    there = [entry["name"] for entry in entries]
    here = [item.name for item in work.items]
    for old, new in zip_longest(there, here if whole else here[: len(there)]):
        if old != new:
            strange = f"'{new}' is new" if old in (None, *here) else f"'{old}' is gone"
            raise UserError(
                f"'{output}' was prepared from other {work.kind.listed} ({strange} "
                "since), so prepare another folder."
            )
    for entry, item in zip(entries, work.items, strict=False):
        for name, fact in item.facts.items():
            if name != "condition" and entry[name] != fact:
                raise UserError(
                    f"'{item.path}' has other {name} than when it was prepared in "
                    f"'{output}', so prepare another folder."
                )


class _Writer:
    """Fills shards with the frames of one item after the other."""

    def __init__(self, output: Path, strict: bool, progress: Progress) -> None:
        self._output = output
        self._strict = strict
        self._progress = progress
        self._open_shard()

    def _open_shard(self) -> None:
        self._room_bytes = SHARD_BYTES
        self._entries: list[dict[str, Any]] = []
        file = f"shard-{len(self._progress.shards):05d}.array_record"
        self._shard = ShardWriter(self._output / file)

    def finish_shard(self) -> None:
        """Closes the shard that is being written, if anything was done since."""
        if self._entries:
            self._progress.add(self._shard.finish(), self._entries)

    def drop_shard(self) -> None:
        """Removes a shard that was not finished."""
        self._shard.drop()

    def _room(self, shape: tuple[int, ...]) -> int:
        """Frames of a shape for which there is room; for one in any empty shard."""
        count = self._room_bytes // math.prod(shape)
        return max(count, 1) if self._room_bytes == SHARD_BYTES else max(count, 0)

    def add(self, item: Item, report: Callable[[float], None]) -> None:
        """Writes an item, or what is left to be written of it."""
        done = self._progress.entries.get(item.name)
        if done and done["end"] == done["frames"]:
            report(1.0)
            return
        entry: dict[str, Any] = {"name": item.name, **item.facts}
        try:
            opened = item.open()
            entry |= content_of(item.path)
        except UnreadableVideo as error:
            if self._strict:
                raise UserError(str(error)) from error
            self._entries.append(
                {**entry, "sha256": "", "bytes": 0, "shape": [], "frames": 0, "end": 0}
                | {"cut": "", "pieces": [], "blank": [], "error": str(error)}
            )
            report(1.0)
            return
        if done and done["sha256"] != entry["sha256"]:
            raise UserError(
                f"'{item.path}' has changed since its first frames were prepared in "
                f"'{self._output}', so prepare another folder."
            )
        start, total = done["end"] if done else 0, opened.reader.num_frames
        entry |= {"shape": list(opened.shape), "frames": total}
        entry["cut"] = opened.reader.cut
        while start < total:
            if not self._room(opened.shape):  # Frames before were smaller.
                self.finish_shard()
                self._open_shard()
            end = min(start + self._room(opened.shape), total)
            pieces, blank, why = self._store(item, opened, range(start, end), report)
            self._entries.append(
                {**entry, "end": end, "pieces": pieces, "blank": blank, "error": why}
            )
            self._room_bytes -= (end - start) * math.prod(opened.shape)
            start = end
            if not self._room(opened.shape):
                self.finish_shard()
                self._open_shard()
            report(end / total)

    def _store(
        self,
        item: Item,
        opened: Opened,
        wanted: range,
        report: Callable[[float], None],
    ) -> tuple[list[list[int]], list[list[int]], str]:
        """Writes frames; where they are, which are blank, why the first one failed."""
        pieces: list[list[int]] = []  # [record, first frame, count]
        blank: list[list[int]] = []  # [first frame, count]

        def keep(number: int, frame: np.ndarray) -> None:
            record = self._shard.write(frame)
            if number % _FRAMES_BETWEEN_REPORTS == _FRAMES_BETWEEN_REPORTS - 1:
                report((number + 1) / opened.reader.num_frames)
            if pieces and number == pieces[-1][1] + pieces[-1][2]:
                pieces[-1][2] += 1
            else:
                pieces.append([record, number, 1])
            if is_blank(frame):
                if blank and number == blank[-1][0] + blank[-1][1]:
                    blank[-1][1] += 1
                else:
                    blank.append([number, 1])

        why = decode_frames(opened.reader, wanted, opened.fit, keep)
        if self._strict:
            kept = set(numbers_of([piece[1:] for piece in pieces]))
            missing = next((number for number in wanted if number not in kept), None)
            if missing is not None:
                raise UserError(
                    f"'{item.path}' cannot be read whole (frame {missing}: "
                    f"{why or 'cannot be decoded'})."
                )
        return pieces, blank, why
