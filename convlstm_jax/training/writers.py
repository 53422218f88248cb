"""Logs of metrics and pictures: a CSV file and TensorBoard."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorboardX
from tensorboardX.proto import summary_pb2

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError

CSV_HEADER = ("step", "split", "metric", "value")


class Writers:
    """All logs of one run: `metrics.csv` and `tensorboard/` in its work folder.

    The CSV file is a table of `step,split,metric,value`, one line for each number.
    Lines are appended and flushed at once, so a killed run loses at most the line that
    it was writing. Values keep their full precision.
    """

    def __init__(self, workdir: str | Path, *, start_step: int, active: bool = True):
        """Opens the logs, which continue where they exist.

        Args:
            workdir: the folder of the run, created if need be.
            start_step: the step that training resumes from; entries of later steps are
                dropped from the table and hidden by TensorBoard, since they will be
                written again.
            active: whether to write at all; one of several processes does.

        Raises:
            UserError: `metrics.csv` is a file of another kind.
        """
        self._active = active
        if not active:
            return
        workdir = Path(workdir)
        path = workdir / "metrics.csv"
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        kept = _up_to(start_step, text, path)
        if kept != text:
            with atomic_file(path) as partial:
                partial.write_text(kept, encoding="utf-8", newline="")
        self._csv = path.open("a", encoding="utf-8", newline="")
        self._tensorboard = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=start_step + 1,
            flush_secs=10,
            # The name holds whole seconds only: a quick restart would overwrite it.
            filename_suffix=f".{time.time_ns()}",
        )

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes metrics by name, measured on `split` after `step` training steps.

        TensorBoard has each of them under the tag `split/name`.
        """
        if not self._active:
            return
        rows = [(step, split, name, repr(float(v))) for name, v in values.items()]
        self._csv.write(_csv_text(rows))
        self._csv.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{split}/{name}", float(value), step)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Adds an encoded GIF to TensorBoard, which shows it animated.

        Raises:
            ValueError: `gif` is not a GIF.
        """
        if gif[:6] not in (b"GIF87a", b"GIF89a") or len(gif) < 10:
            raise ValueError(
                f"the picture {tag} begins with {gif[:6]!r}: it must be an encoded GIF"
            )
        if not self._active:
            return
        image = summary_pb2.Summary.Image(
            width=int.from_bytes(gif[6:8], "little"),
            height=int.from_bytes(gif[8:10], "little"),
            colorspace=3,  # RGB
            encoded_image_string=gif,
        )
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._tensorboard.file_writer.add_summary(
            summary_pb2.Summary(value=[value]), step
        )

    def close(self) -> None:
        """Closes the logs; a second call does nothing."""
        if self._active:
            self._csv.close()
            self._tensorboard.close()
        self._active = False


def _up_to(step: int, text: str, path: Path) -> str:
    """The header and the complete lines of a table up to a step."""
    header = _csv_text([CSV_HEADER])
    # A line without its end was truncated when the run was killed.
    complete = text[: text.rfind("\n") + 1]
    if not complete and header.startswith(text):
        return header
    if not complete.startswith(header):
        raise UserError(
            f"'{path}' begins with {text[:80].splitlines()[0]!r}: it must be a table "
            f"that begins with {header.strip()!r}"
        )
    rows = list(csv.reader(io.StringIO(complete, newline="")))
    kept = [row for row in rows if not _is_later(row, step)]
    return complete if len(kept) == len(rows) else _csv_text(kept)


def _csv_text(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _is_later(row: list[str], step: int) -> bool:
    """Whether a row is of a later step; rows of other programs are kept."""
    return len(row) == len(CSV_HEADER) and row[0].isdecimal() and int(row[0]) > step
