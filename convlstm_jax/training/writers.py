"""Where a run writes its numbers and pictures: a CSV file and TensorBoard."""

from __future__ import annotations

import csv
import io
import pathlib
import time
from collections.abc import Mapping
from types import TracebackType

import tensorboardX
from tensorboardX.proto import summary_pb2

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError

CSV_HEADER = ("step", "split", "metric", "value")


class MetricsCsv:
    """A table of `step,split,metric,value`, one line for each number.

    Lines are appended and flushed at once, so a killed run loses at most the line
    that it was writing. Values keep their full precision.
    """

    def __init__(self, path: str | pathlib.Path):
        """Opens the file, which continues if it exists.

        Args:
          path: the file; its folder is created if need be.

        Raises:
          UserError: if a file of another kind is there.
        """
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = self.path.read_text("utf-8") if self.path.exists() else ""
        # A line without its end was cut short when the run was killed.
        complete = text[: text.rfind("\n") + 1]
        header = ",".join(CSV_HEADER) + "\n"
        if not complete and header.startswith(text):
            complete = header
        if not complete.startswith(header):
            raise UserError(
                f"The file {self.path} must begin with the line {header.strip()!r}, "
                f"but begins with {text[:80].splitlines()[0]!r}."
            )
        if complete != text:
            self._replace(complete)
        self._open()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends one line for each of `values`.

        Args:
          step: the number of training steps done.
          split: what was measured, such as "train", "validation" or "test".
          values: the metrics by name.
        """
        rows = [(step, split, name, repr(float(v))) for name, v in values.items()]
        self._file.write(_csv_text(rows))
        self._file.flush()

    def truncate_after(self, step: int) -> None:
        """Drops the lines of later steps, which a resumed run will write again."""
        with self.path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        kept = [row for row in rows if not _is_later(row, step)]
        if len(kept) == len(rows):
            return
        self._file.close()
        self._replace(_csv_text([header, *kept]))
        self._open()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def _replace(self, text: str) -> None:
        with atomic_file(self.path) as partial:
            partial.write_text(text, encoding="utf-8", newline="")


class TensorBoard:
    """Scalars and animated pictures for TensorBoard."""

    def __init__(self, logdir: str | pathlib.Path, purge_step: int | None = None):
        """Starts a new event file.

        Args:
          logdir: the folder of the event files.
          purge_step: on resume, the first step that will be written again;
            TensorBoard then hides what earlier files hold from this step on.
        """
        self._writer = tensorboardX.SummaryWriter(
            str(logdir),
            purge_step=purge_step,
            flush_secs=10,
            # The name holds whole seconds only: a quick restart would overwrite it.
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Adds each of `values` under the tag `split/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", float(value), step)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Adds an encoded GIF, which TensorBoard shows animated.

        Raises:
          ValueError: if `gif` is not a GIF.
        """
        if gif[:6] not in (b"GIF87a", b"GIF89a") or len(gif) < 10:
            raise ValueError(
                f"The picture {tag} must be an encoded GIF, "
                f"but its bytes begin with {gif[:6]!r}."
            )
        image = summary_pb2.Summary.Image(
            width=int.from_bytes(gif[6:8], "little"),
            height=int.from_bytes(gif[8:10], "little"),
            colorspace=3,  # RGB
            encoded_image_string=gif,
        )
        summary = summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(tag=tag, image=image)]
        )
        self._writer.file_writer.add_summary(summary, step)

    def close(self) -> None:
        """Writes what is pending and closes the file."""
        self._writer.close()


class Writers:
    """All logs of one run: `metrics.csv` and `tensorboard/` in its work folder."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        resumed_step: int | None = None,
        active: bool = True,
    ):
        """Opens the logs, which continue where they exist.

        Args:
          workdir: the folder of the run, created if need be.
          resumed_step: the step that training goes on from; what the logs hold of
            later steps is dropped, since it will be written again. None drops nothing.
          active: whether to write at all. In a run of several processes one of them
            does, and the others write nowhere.

        Raises:
          UserError: if `metrics.csv` is a file of another kind.
        """
        self._csv: MetricsCsv | None = None
        self._tensorboard: TensorBoard | None = None
        if not active:
            return
        workdir = pathlib.Path(workdir)
        self._csv = MetricsCsv(workdir / "metrics.csv")
        if resumed_step is not None:
            self._csv.truncate_after(resumed_step)
        purge_step = None if resumed_step is None else resumed_step + 1
        self._tensorboard = TensorBoard(workdir / "tensorboard", purge_step)

    def __enter__(self) -> Writers:
        """Returns itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the logs."""
        self.close()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes metrics by name, measured on `split` after `step` training steps."""
        if self._csv is not None:
            self._csv.write(step, split, values)
        if self._tensorboard is not None:
            self._tensorboard.write(step, split, values)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Adds an animated picture to TensorBoard; see `TensorBoard.write_gif`."""
        if self._tensorboard is not None:
            self._tensorboard.write_gif(step, tag, gif)

    def close(self) -> None:
        """Closes the logs; a second call does nothing."""
        if self._csv is not None:
            self._csv.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._csv = self._tensorboard = None


def _csv_text(rows: list) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _is_later(row: list[str], step: int) -> bool:
    """Whether a row is of a later step; a row that is not ours is left alone."""
    return len(row) == len(CSV_HEADER) and row[0].isdecimal() and int(row[0]) > step
