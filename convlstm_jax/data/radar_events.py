"""Finds radar composites by the time in their names, and runs of them without a gap."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from convlstm_jax.data.pictures import reason
from convlstm_jax.data.radar_formats import radar_format_of
from convlstm_jax.errors import UserError

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})[-_T]?(\d{4})(?:\d{2})?(?!\d)")
_DAY_OF_YEAR = re.compile(r"(?<!\d)(\d{5})(\d{4})(?!\d)")


@dataclass(frozen=True)
class Composite:
    """One radar composite.

    Attributes:
      path: its file.
      time: when it was taken, to the minute.
    """

    path: Path
    time: datetime


@dataclass(frozen=True)
class Event:
    """Composites one time step apart, none missing.

    Attributes:
      composites: oldest first.
    """

    composites: tuple[Composite, ...]

    def __len__(self) -> int:
        """Returns the number of composites."""
        return len(self.composites)

    def __getitem__(self, part: slice) -> "Event":
        """Returns a part of the event, from one composite to another."""
        return Event(self.composites[part])

    @property
    def date(self) -> str:
        """Date of the first composite, as 2016-09-28: the condition of its clips."""
        return f"{self.composites[0].time:%Y-%m-%d}"

    @property
    def name(self) -> str:
        """Date and time of the first composite."""
        return f"{self.composites[0].time:%Y-%m-%d %H:%M}"


def time_of(name: str, *, day_of_year: bool = False) -> datetime | None:
    """The time a file's name holds: year to minute, 12 digits; None if it holds none.

    A `-`, `_` or `T` may stand between date and time, and seconds may follow.

    Args:
      name: the file's name.
      day_of_year: whether 9 digits are a time too: the year's last two, the day of the
        year, hour and minute.
    """
    writings = [(_DATE, "%Y%m%d%H%M")]
    if day_of_year:
        writings.append((_DAY_OF_YEAR, "%y%j%H%M"))
    for pattern, written in writings:
        for match in pattern.finditer(name):
            try:
                return datetime.strptime("".join(match.groups()), written)
            except ValueError:
                continue
    return None


def find_composites(
    folder: str | Path, radar_format: str = "picture"
) -> tuple[list[Composite], dict[str, list[str]]]:
    """Searches a folder and the folders in it, however deep, for radar composites.

    All of them make one series, in whichever folders they lie. Hidden files and
    folders are passed over, as is all that is not of the format by its name.

    Args:
      folder: the folder.
      radar_format: a name of `RADAR_FORMATS`.

    Returns:
      The composites, oldest first; and by the reason, a sentence for each file that
      cannot take part: it has no time in its name, or one that there was already.

    Raises:
      UserError: there is no such folder, or a folder cannot be read; or the format
        cannot.
    """
    wanted = radar_format_of(radar_format)
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"path is '{root}', but must be a folder of radar composites.")

    def refuse(error: OSError) -> None:
        raise UserError(
            f"The folder '{error.filename}' cannot be read ({reason(error)})."
        ) from error

    by_time: dict[datetime, Composite] = {}
    left_out: dict[str, list[str]] = {}
    written = "year to minute in 12 digits"
    if wanted.day_of_year:
        written += ", or year, day of the year, hour and minute in 9"
    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(filter(wanted.has, names)):
            time = time_of(name, day_of_year=wanted.day_of_year)
            path = Path(place, name)
            if time is None:
                left_out.setdefault("without a time", []).append(
                    f"'{path}' has no time in its name, {written}"
                )
            elif time in by_time:
                left_out.setdefault("of a time there was", []).append(
                    f"'{path}' is of the same time as '{by_time[time].path}'"
                )
            else:
                by_time[time] = Composite(path, time)
    return [by_time[time] for time in sorted(by_time)], left_out


def split_at_gaps(
    composites: Sequence[Composite], time_step_minutes: float
) -> tuple[list[Event], list[str]]:
    """Cuts a series into runs in which one composite follows another by a time step.

    Args:
      composites: oldest first.
      time_step_minutes: from one composite to the next.

    Returns:
      The runs; and in words the gaps of up to a day, between which steps are missing
      (two events on different days are not one event with a gap).
    """
    step = timedelta(minutes=time_step_minutes)
    events: list[Event] = []
    gaps: list[str] = []
    first = 0
    for index in range(1, len(composites) + 1):
        if index < len(composites):
            before, after = composites[index - 1].time, composites[index].time
            if after - before == step:
                continue
            if after - before < timedelta(days=1):
                gaps.append(f"{before:%Y-%m-%d %H:%M} to {after:%H:%M}")
        events.append(Event(tuple(composites[first:index])))
        first = index
    return events, gaps


def split_events(
    events: Sequence[Event],
    span: int,
    test_dates: Sequence[str],
    validation_fraction: float,
    test_fraction: float,
) -> tuple[dict[str, list[Event]], bool]:
    """Deals events out to training, validation and test, in the order of time.

    Args:
      events: at least `span` composites each, oldest first.
      span: composites from the first to the last of a clip.
      test_dates: the events of these dates are the test split and in no other.
      validation_fraction: share for validation, of the events not held out.
      test_fraction: share for the test where no dates are held out.

    Returns:
      The events of each split; and whether there were so few that each was cut in
      time: the beginning to learn from, the end to test on.
    """
    parts: dict[str, list[Event]] = {"train": [], "validation": [], "test": []}
    parts["test"] += [event for event in events if event.date in test_dates]
    others = [event for event in events if event.date not in test_dates]
    # The last ones first: what is forecast lies after what was learned.
    shares = [("validation", validation_fraction)]
    if not test_dates:
        shares.insert(0, ("test", test_fraction))
    if len(others) > len(shares):
        end = len(others)
        for left, (split, share) in enumerate(shares):
            spare = end - (len(shares) - left)
            count = min(max(1, round(share * len(others))), spare)
            parts[split] += others[end - count : end]
            end -= count
        parts["train"] += others[:end]
        return parts, False
    for event in others:
        end = len(event)
        for split, share in (*shares, ("train", 1.0)):
            first = max(0, end - max(span, round(share * len(event))))
            if first < end:
                parts[split].append(event[first:end])
            end = first
    return parts, bool(others)
