"""Writes a prepared folder: decodes videos once, into ArrayRecord shards.

Shards are filled with frames one after the other, by a number that depends on the size
of the frames alone; a long video lies in several, a shard may hold many videos. A shard
gets its name when it is whole, and then a line in the file of the progress, from which
the work goes on after whatever ended it.
"""

import json
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.frame_fitting import fit_frame
from convlstm_jax.data.frame_readers import FrameReader
from convlstm_jax.data.prepared import (
    MANIFEST_FILE,
    PROGRESS_FILE,
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
from convlstm_jax.data.video_opening import conditions_of
from convlstm_jax.data.video_readers import (
    UnreadableVideo,
    decode_frames,
    open_reader,
)
from convlstm_jax.data.video_search import FoundVideo, find_videos
from convlstm_jax.errors import UserError

SHARD_BYTES = 128 * 2**20
"""Bytes of frames in a shard, before compression."""

_FRAMES_BETWEEN_REPORTS = 100

Report = Callable[[float, int], None]
"""Is told how many videos are done, the one at work by its share, and of how many."""


def prepare_videos(
    path: str,
    output: Path,
    *,
    settings: Mapping[str, Any],
    condition: str = "",
    report: Report,
) -> dict[str, Any]:
    """Decodes the videos below a folder once and writes their frames.

    Args:
      path: the folder, see `find_videos`.
      output: the folder to write, a new one or one that this function left unfinished.
      settings: the arguments of `open_video` by name, with "bad_files" for
        `bad_frames`.
      condition: see `condition_pattern`; of each video its condition is written down.
      report: is told how the work goes on.

    Returns:
      The manifest, see `prepared`; of a folder that is whole already, the one there.

    Raises:
      UserError: a video is to be refused; the output cannot be written, or was made of
        other videos or with other settings. Shards written before are kept.
    """
    found = find_videos(path)
    if not found:
        raise UserError(f"The folder '{path}' holds no video and no pictures.")
    conditions = conditions_of(found, condition, settings["bad_files"])
    head = {
        "source": str(Path(path).expanduser().resolve()),
        "settings": json.loads(json.dumps(settings)),
    }
    names = [one.name for one in found]
    if (output / MANIFEST_FILE).exists():
        manifest = read_manifest(output)
        check_same(output, manifest, head)
        _check_names(output, [video["name"] for video in manifest["videos"]], names)
        return manifest
    progress = Progress.open(output, head)
    _check_names(output, progress.names, names, whole=False)
    writer = _Writer(output, head["settings"], progress)
    try:
        for index in range(max(0, len(progress.names) - 1), len(found)):
            name = "" if conditions is None else conditions[index]

            def tell(share: float, index: int = index) -> None:
                report(index + share, len(found))

            writer.add(found[index], name, tell)
        writer.finish_shard()
    finally:
        writer.drop_shard()
    manifest = manifest_of(head, progress)
    write_whole(output / MANIFEST_FILE, manifest_text(manifest))
    (output / PROGRESS_FILE).unlink()
    return manifest


def _check_names(
    output: Path, there: list[str], here: list[str], *, whole: bool = True
) -> None:
    """Checks that the videos are those that were there when the work began.

    Args:
      output: the prepared folder.
      there: names of the videos in it.
      here: names of the videos found now.
      whole: whether it must be all of them, and not only the first.

    Raises:
      UserError: naming the first that is new or gone.
    """
    for old, new in zip_longest(there, here if whole else here[: len(there)]):
        if old != new:
            strange = f"'{new}' is new" if old in (None, *here) else f"'{old}' is gone"
            raise UserError(
                f"'{output}' was prepared from other videos ({strange} since), so "
                "prepare another folder."
            )


class _Writer:
    """Fills shards with the frames of one video after the other."""

    def __init__(
        self, output: Path, settings: Mapping[str, Any], progress: Progress
    ) -> None:
        self._output = output
        self._settings = settings
        self._progress = progress
        shape = [settings[name] for name in ("height", "width", "channels")]
        self._shard_frames = max(1, SHARD_BYTES // int(np.prod(shape)))
        self._open_shard()

    def _open_shard(self) -> None:
        self._room = self._shard_frames
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

    def add(
        self, one: FoundVideo, condition: str, report: Callable[[float], None]
    ) -> None:
        """Writes a video, or what is left to be written of it."""
        done = self._progress.videos.get(one.name)
        if done and done["end"] == done["frames"]:
            report(1.0)
            return
        settings = self._settings
        strict = settings["bad_files"] == "refuse"
        entry: dict[str, Any] = {"name": one.name, "condition": condition}
        try:
            reader = open_reader(
                one.path,
                settings["channels"],
                strict=strict,
                crop_box=tuple(settings["crop_box"]),
                value_range=tuple(settings["value_range"]),
                variable=settings["variable"],
            )
            entry |= content_of(one.path)
        except UnreadableVideo as error:
            if strict:
                raise UserError(str(error)) from error
            self._entries.append(
                {**entry, "sha256": "", "bytes": 0, "frames": 0, "end": 0}
                | {"cut": "", "pieces": [], "blank": [], "error": str(error)}
            )
            report(1.0)
            return
        if done and done["sha256"] != entry["sha256"]:
            raise UserError(
                f"'{one.path}' has changed since its first frames were prepared in "
                f"'{self._output}', so prepare another folder."
            )
        start, total = done["end"] if done else 0, reader.num_frames
        entry |= {"frames": total, "cut": reader.cut}
        while start < total:
            end = min(start + self._room, total)
            pieces, blank, why = self._store(
                one.path, reader, range(start, end), report
            )
            self._entries.append(
                {**entry, "end": end, "pieces": pieces, "blank": blank, "error": why}
            )
            self._room -= end - start
            start = end
            if not self._room:
                self.finish_shard()
                self._open_shard()
            report(end / total)

    def _store(
        self,
        path: Path,
        reader: FrameReader,
        wanted: range,
        report: Callable[[float], None],
    ) -> tuple[list[list[int]], list[list[int]], str]:
        """Writes frames; where they are, which are blank, why the first one failed."""
        settings = self._settings
        height, width = settings["height"], settings["width"]
        crop_box = tuple(settings["crop_box"])
        pieces: list[list[int]] = []  # [record, first frame, count]
        blank: list[list[int]] = []  # [first frame, count]

        def keep(number: int, frame: np.ndarray) -> None:
            record = self._shard.write(frame)
            if number % _FRAMES_BETWEEN_REPORTS == _FRAMES_BETWEEN_REPORTS - 1:
                report((number + 1) / reader.num_frames)
            if pieces and number == pieces[-1][1] + pieces[-1][2]:
                pieces[-1][2] += 1
            else:
                pieces.append([record, number, 1])
            if is_blank(frame):
                if blank and number == blank[-1][0] + blank[-1][1]:
                    blank[-1][1] += 1
                else:
                    blank.append([number, 1])

        why = decode_frames(
            reader, wanted, lambda f: fit_frame(f, height, width, crop_box), keep
        )
        if settings["bad_files"] == "refuse":
            kept = set(numbers_of([piece[1:] for piece in pieces]))
            missing = next((number for number in wanted if number not in kept), None)
            if missing is not None:
                raise UserError(
                    f"'{path}' cannot be read whole (frame {missing}: "
                    f"{why or 'cannot be decoded'})."
                )
        return pieces, blank, why
