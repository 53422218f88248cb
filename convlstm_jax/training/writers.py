"""Logs of metrics and pictures: a CSV file, TensorBoard, and any further writer."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError


@contextmanager
def _without_pytorch() -> Iterator[None]:
    """Keeps tensorboardX from importing PyTorch where it can: seconds, for nothing."""
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
_FLUSH_SECONDS = 10.0


class Writer(Protocol):
    """What keeps the metrics and pictures of a run."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes metrics of a split, such as `train`, by name."""

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Writes an encoded GIF."""

    def close(self, *, failed: bool) -> None:
        """Ends the run."""


class Writers:
    """All logs of one run: `metrics.csv` and `tensorboard/` in its work folder.

    They continue where they exist; entries after `start_step` are dropped from the
    table and hidden by TensorBoard. What is written goes to `trackers` too, which are
    not closed. One of several processes is `active`; the others write nothing.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        start_step: int,
        active: bool = True,
        trackers: Writer | None = None,
    ):
        """Opens the logs; raises `UserError` if `metrics.csv` is of another kind."""
        self._own: list[Writer] = []
        if active:
            csv_writer = _CsvWriter(Path(workdir, "metrics.csv"), start_step)
            board = _TensorBoardWriter(Path(workdir, "tensorboard"), start_step)
            self._own = [csv_writer, board]
        self._all = [*self._own, *([trackers] if active and trackers else [])]

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        for writer in self._own:
            writer.close(failed=kind is not None)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes metrics by name."""
        for writer in self._all:
            writer.write(step, split, values)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Writes an encoded GIF where one can be shown."""
        for writer in self._all:
            writer.write_gif(step, tag, gif)


class _CsvWriter:
    """A table of `step,split,metric,value`, of full precision.

    Lines are flushed at once: a killed run loses at most the one it was writing.
    """

    def __init__(self, path: Path, start_step: int):
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        kept = _up_to(start_step, text, path)
        if kept != text:
            with atomic_file(path) as partial:
                partial.write_text(kept, encoding="utf-8", newline="")
        self._file = path.open("a", encoding="utf-8", newline="")

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        rows = [(step, split, name, repr(float(v))) for name, v in values.items()]
        csv.writer(self._file, lineterminator="\n").writerows(rows)
        self._file.flush()

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        pass  # A table has no pictures.

    def close(self, *, failed: bool) -> None:
        with suppress(OSError) if failed else nullcontext():
            self._file.close()


class _TensorBoardWriter:
    """Metrics under the tag `split/name`, and GIFs, which it shows animated.

    `SummaryWriter` would write in a thread, whose errors end in a traceback.
    """

    def __init__(self, folder: Path, start_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        # The name holds whole seconds only: a quick restart would overwrite it.
        suffix = f".{time.time_ns()}"
        self._file = event_file_writer.EventsWriter(str(folder / "events"), suffix)
        self._flushed = 0.0
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(step=start_step + 1, session_log=log)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            one = summary.scalar(f"{split}/{name}", float(value))
            self._add(step=step, summary=one)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        image = summary_pb2.Summary.Image(
            width=int.from_bytes(gif[6:8], "little"),
            height=int.from_bytes(gif[8:10], "little"),
            colorspace=3,  # RGB
            encoded_image_string=gif,
        )
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._add(step=step, summary=summary_pb2.Summary(value=[value]))

    def _add(self, **content: Any) -> None:
        now = time.time()
        self._file.write_event(event_pb2.Event(wall_time=now, **content))
        if now - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = now

    def close(self, *, failed: bool) -> None:
        with suppress(OSError) if failed else nullcontext():
            self._file.close()


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
