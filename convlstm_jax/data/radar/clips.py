"""Events, which are runs of composites without a gap, and the clips cut out of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

import numpy as np

from convlstm_jax.data.radar.composites import Composite
from convlstm_jax.data.split import SPLITS, cut_in_time, deal, shares
from convlstm_jax.rain import RainScale

RAIN_MM_PER_H = 0.1
"""From this rate on a pixel counts as rain where crops are chosen by it."""

_ORDER_SEED = 2**63 + 2  # Of the order of clips; no training seed is as large.


class _Timed(Protocol):
    @property
    def time(self) -> datetime: ...


TimedT = TypeVar("TimedT", bound=_Timed)


@dataclass(frozen=True)
class Event(Generic[TimedT]):
    """Composites one time step apart, none missing, oldest first."""

    composites: tuple[TimedT, ...]

    def __len__(self) -> int:
        """Returns the number of composites."""
        return len(self.composites)

    def __getitem__(self, part: slice) -> "Event[TimedT]":
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


def split_at_gaps(
    composites: Sequence[TimedT], time_step_minutes: float
) -> tuple[list[Event[TimedT]], list[tuple[datetime, int]]]:
    """Cuts a series, oldest first, into runs one time step apart.

    Returns:
        The runs; and for each gap of up to a day the time of the composite before it,
        and how many steps are missing (two events on different days are not one event
        with a gap).
    """
    step = timedelta(minutes=time_step_minutes)
    events: list[Event[TimedT]] = []
    gaps: list[tuple[datetime, int]] = []
    first = 0
    for index in range(1, len(composites) + 1):
        if index < len(composites):
            before, after = composites[index - 1].time, composites[index].time
            if after - before == step:
                continue
            missing = math.ceil((after - before) / step) - 1
            if missing and after - before < timedelta(days=1):
                gaps.append((before, missing))
        events.append(Event(tuple(composites[first:index])))
        first = index
    return events, gaps


def format_gaps(gaps: Sequence[tuple[datetime, int]], time_step_minutes: float) -> str:
    """How many time steps are missing, and the first of them; "" if none is."""
    if not gaps:
        return ""
    total = sum(missing for _, missing in gaps)
    first = gaps[0][0] + timedelta(minutes=time_step_minutes)
    return f" Time steps missing: {total} (first: {first:%Y-%m-%d %H:%M})."


def split_events(
    events: Sequence[Event[Composite]],
    span: int,
    test_dates: Sequence[str],
    validation_fraction: float,
    test_fraction: float,
) -> tuple[dict[str, list[Event[Composite]]], bool]:
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
    held_out = [event for event in events if event.date in test_dates]
    others = [event for event in events if event.date not in test_dates]
    wanted = shares(validation_fraction, test_fraction, held_out=bool(test_dates))
    parts = deal(others, wanted)
    cut = parts is None and bool(others)
    if parts is None:
        parts = {split: [] for split in SPLITS}
        for event in others:
            ends = cut_in_time(len(event), span, wanted)
            for split, (first, end) in ends.items():
                if first < end:
                    parts[split].append(event[first:end])
    return {**parts, **({"test": held_out} if test_dates else {})}, cut


@dataclass(frozen=True)
class Cutting:
    """How clips are cut out of an event.

    Attributes:
        num_frames: frames per clip, T.
        height: H of a crop, pixels of the averaged composite.
        width: W of a crop.
        frame_stride: distance of two frames of a clip, in composites.
        clip_stride: distance of the first frames of two clips, in composites.
        crop_stride: distance of two crops, pixels; 0: height and width, side by side.
        min_rain_share: share of rain that a crop must have in its clip's first frame.
    """

    num_frames: int
    height: int
    width: int
    frame_stride: int
    clip_stride: int
    crop_stride: int
    min_rain_share: float

    @property
    def span(self) -> int:
        """Composites from the first to the last of a clip."""
        return (self.num_frames - 1) * self.frame_stride + 1


class RadarClips:
    """A random-access source of crops of radar sequences.

    A clip is every place of a grid, from every `clip_stride`-th composite on, where at
    least half of the pixels hold data and enough of those are rain, both in the clip's
    first frame (later ones a forecaster could not know). They come in one scrambled
    order, so that the first few are a fair sample.

    Clips are {"frames": uint8 `[T, H, W, 1]`, "mask": uint8 `[T, H, W, 1]`, 1 where
    there is data, "condition": int32 []}.

    Args:
        events: the events; their composites must be of one size.
        scale: what the pixels mean.
        cutting: what a clip is.
        conditions: dates of events, to which a clip's "condition" is the index.
        max_clips: upper limit of the length of the source.
    """

    def __init__(
        self,
        events: Sequence[Event[Composite]],
        scale: RainScale,
        cutting: Cutting,
        conditions: Sequence[str],
        max_clips: int,
    ) -> None:
        self._events = tuple(events)
        self._cutting = cutting
        self._conditions = [conditions.index(event.date) for event in events]
        places = [
            (number, start, top, left)
            for number, event in enumerate(self._events)
            for start in range(0, len(event) - cutting.span + 1, cutting.clip_stride)
            for top, left in crop_places(event.composites[start].read(), cutting, scale)
        ]
        self._places = np.array(places, np.int64).reshape(-1, 4)
        order = np.random.default_rng(_ORDER_SEED).permutation(len(places))
        self._places = self._places[order[:max_clips]]

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._places)

    def films(self) -> list[str]:
        """The event that each clip is cut from, by the time of its first composite."""
        return [self._events[number].name for number in self._places[:, 0]]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads clip `index` of `len(self)`, see `ClipSource`.

        Raises:
            IndexError: the index is out of range.
            UserError: the decoded frames cannot be read.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"Clip {index} is out of range: the source holds {len(self)} clips."
            )
        number, start, top, left = map(int, self._places[index])
        cutting = self._cutting
        event = self._events[number]
        chosen = event.composites[start : start + cutting.span : cutting.frame_stride]
        rows = slice(top, top + cutting.height)
        columns = slice(left, left + cutting.width)
        crops = np.stack([one.read()[:, rows, columns, None] for one in chosen])
        return {
            "frames": np.ascontiguousarray(crops[:, 0]),
            "mask": np.ascontiguousarray(crops[:, 1]),
            "condition": np.asarray(self._conditions[number], np.int32),
        }


def crop_places(
    frame: np.ndarray, cutting: Cutting, scale: RainScale
) -> list[tuple[int, int]]:
    """Top and left of the crops of a composite that hold data and rain enough."""
    pixels, valid = frame
    rain = pixels / 255 >= scale.pixel_of_rain(RAIN_MM_PER_H)
    tops, lefts = (
        np.arange(0, whole - side + 1, cutting.crop_stride or side)
        for whole, side in zip(
            pixels.shape, (cutting.height, cutting.width), strict=True
        )
    )

    def counts(flags: np.ndarray) -> np.ndarray:
        """Set pixels in each crop, by differences of sums from the corner on."""
        sums = np.zeros((flags.shape[0] + 1, flags.shape[1] + 1), np.int64)
        sums[1:, 1:] = flags.astype(np.int64).cumsum(0).cumsum(1)
        rows = sums[tops + cutting.height] - sums[tops]
        return rows[:, lefts + cutting.width] - rows[:, lefts]

    known = counts(valid)
    enough = 2 * known >= cutting.height * cutting.width
    enough &= counts(rain) >= cutting.min_rain_share * known
    return [(int(tops[row]), int(lefts[column])) for row, column in np.argwhere(enough)]
