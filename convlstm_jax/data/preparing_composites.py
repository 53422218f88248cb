"""Prepares the radar composites below a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.composites import READER_FIELDS, CompositeReader
from convlstm_jax.data.frame_readers import LoadFrame
from convlstm_jax.data.prepared import COMPOSITES
from convlstm_jax.data.prepared_composites import TIME_FORMAT, composite_settings
from convlstm_jax.data.preparing import Item, Opened, Report, Work, prepare
from convlstm_jax.data.preparing_progress import leave_out
from convlstm_jax.data.radar_events import find_composites
from convlstm_jax.data.radar_opening import (
    OTHER_SIZE,
    refuse_left_out,
    refused_composite,
    told_other_size,
    usual_shape,
)
from convlstm_jax.data.video_readers import UnreadableVideo
from convlstm_jax.errors import UserError


def prepare_composites(
    path: str, output: Path, *, reader: CompositeReader, bad_files: str, report: Report
) -> dict[str, Any]:
    """Decodes and averages composites once and writes them with their times.

    Args:
      path: the folder, see `find_composites`.
      output: see `prepare`.
      reader: reads a composite.
      bad_files: whether a composite that cannot be used is to be refused ("refuse"), or
        left out ("skip"), see `radar_sources`. One of another size than most is told at
        the end alone.
      report: see `prepare`.

    Returns:
      The manifest, see `prepare`.

    Raises:
      UserError: a file is to be refused, there are no composites, or `prepare` raises
        it.
    """
    root = Path(path).expanduser()
    strict = bad_files == "refuse"
    composites, left_out = find_composites(path, reader.radar_format)
    refuse_left_out(left_out, bad_files)
    if not composites:
        raise UserError(f"The folder '{path}' holds no radar composite with a time.")

    def judge(entries: list[dict[str, Any]]) -> None:
        read = [entry for entry in entries if entry["pieces"]]
        usual = usual_shape(tuple(entry["shape"]) for entry in read)
        for entry in read:
            if tuple(entry["shape"]) != usual:
                told = told_other_size(root / entry["name"], entry["shape"], usual)
                if strict:
                    raise refused_composite(told)
                leave_out(entry, OTHER_SIZE, told)

    items = [
        Item(
            one.path.relative_to(root).as_posix(),
            one.path,
            {"time": f"{one.time:{TIME_FORMAT}}"},
            partial(_open, one.path, reader, strict),
        )
        for one in composites
    ]
    how_read = {name: getattr(reader, name) for name in READER_FIELDS}
    settings = composite_settings(reader.scale, how_read, bad_files)
    work = Work(COMPOSITES, path, settings, items, left_out, judge)
    return prepare(work, output, report)


def _open(path: Path, reader: CompositeReader, strict: bool) -> Opened:
    try:
        frame = reader.decode(path)
    except UserError as error:
        told = str(error).rstrip(".")
        raise refused_composite(told) if strict else UnreadableVideo(told) from error
    return Opened(_OneFrame(frame), frame.shape, lambda decoded: decoded)


@dataclass(frozen=True, eq=False)
class _OneFrame:
    """A composite that is decoded already, see `FrameReader`.

    Attributes:
      frame: its frame.
      num_frames: 1.
      cut: always "".
    """

    frame: np.ndarray
    num_frames: int = 1
    cut: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return self.frame.shape[-1], self.frame.shape[-2]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`."""
        for number in wanted:
            yield number, lambda: self.frame
