"""Logs of metrics and pictures: a CSV file, TensorBoard, and any other writer."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError


@contextmanager
def _without_pytorch() -> Iterator[None]:
    """Keeps tensorboardX from importing PyTorch where it can: that takes seconds."""
    without = "torch" not in sys.modules
    if without:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if without:
            del sys.modules["torch"]


with _without_pytorch():
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2, summary_pb2

_HEADER = "step,split,metric,value\n"
_FLUSH_SECONDS = 10.0  # Between writes of TensorBoard's events to the disk.


class Writer(Protocol):
    """Takes the metrics and pictures of a run."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Takes metrics of a split, such as `train`, by name."""

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Takes an encoded GIF."""


class Writers:
    """All logs of one run: `metrics.csv` and `tensorboard/` in its work folder.

    `others` receive everything too; the caller closes them.

    The CSV file is a table of `step,split,metric,value`, of full precision. Lines are
    flushed at once: a killed run loses at most the one it was writing.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        start_step: int,
        active: bool = True,
        others: Sequence[Writer] = (),
    ):
        """Opens the logs, which continue where they exist.

        Entries after `start_step` are dropped from the table and hidden by TensorBoard.
        One of several processes is `active`; the others write nothing. Raises
        `UserError` if `metrics.csv` is a file of another kind.
        """
        self._active, self._others = active, others
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
        folder = workdir / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        # The name holds whole seconds only: a quick restart would overwrite it. Not a
        # `SummaryWriter`, whose thread ends in a traceback where the disk is full.
        suffix, self._flushed = f".{time.time_ns()}", 0.0
        self._events = event_file_writer.EventsWriter(str(folder / "events"), suffix)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add_event(step=start_step + 1, session_log=start)

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._active:
            # On a full disk closing fails as well; the first error is reported.
            with suppress(OSError) if kind else nullcontext():
                self._csv.close()
                self._events.close()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes metrics by name; TensorBoard has each under the tag `split/name`."""
        if not self._active:
            return
        rows = [(step, split, name, repr(float(v))) for name, v in values.items()]
        csv.writer(self._csv, lineterminator="\n").writerows(rows)
        self._csv.flush()
        for name, value in values.items():
            scalar = summary.scalar(f"{split}/{name}", float(value))
            self._add_event(step=step, summary=scalar)
        for writer in self._others:
            writer.write(step, split, values)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Adds an encoded GIF to TensorBoard, which shows it animated."""
        if not self._active:
            return
        image = summary_pb2.Summary.Image(
            width=int.from_bytes(gif[6:8], "little"),
            height=int.from_bytes(gif[8:10], "little"),
            colorspace=3,  # RGB
            encoded_image_string=gif,
        )
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._add_event(step=step, summary=summary_pb2.Summary(value=[value]))
        for writer in self._others:
            writer.write_gif(step, tag, gif)

    def _add_event(self, **content: Any) -> None:
        now = time.time()
        self._events.write_event(event_pb2.Event(wall_time=now, **content))
        if now - self._flushed > _FLUSH_SECONDS:
            self._events.flush()
            self._flushed = now


def _up_to(step: int, text: str, path: Path) -> str:
    """The header and the complete lines of a table up to a step."""
    # A line without its end was truncated when the run was killed.
    complete = text[: text.rfind("\n") + 1]
    if not complete and _HEADER.startswith(text):
        return _HEADER
    if not complete.startswith(_HEADER):
        raise UserError(
            f"'{path}' begins with {text[:80].splitlines()[0]!r}: it must be a table "
            f"that begins with {_HEADER.strip()!r}"
        )
    lines = [(line, line.partition(",")[0]) for line in complete.splitlines(True)]
    return "".join(
        line for line, first in lines if not first.isdecimal() or int(first) <= step
    )
