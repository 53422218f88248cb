"""Events, which are runs of composites without a gap, and the clips cut out of them."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from convlstm_jax.data.radar.composites import Composite
from convlstm_jax.data.sources import SPLITS, cut_in_time, deal, shares

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

RAIN_MM_PER_H = 0.1
"""From this rate on a pixel counts as rain where crops are chosen by it."""

_ORDER_SEED = 2**63 + 2  # Of the order of clips; no training seed is as large.


class _Timed(Protocol):
    @property
    def time(self) -> datetime: ...


TimedT = TypeVar("TimedT", bound=_Timed)
Event = tuple[Composite, ...]
"""Composites one time step apart, none missing, oldest first."""
Part = tuple[Event, Event]
"""An event and the part of it that is used, which may be the whole."""


def date_of(event: Sequence[_Timed]) -> str:
    """Date of the first composite, as 2016-09-28: the condition of its clips."""
    return f"{event[0].time:%Y-%m-%d}"


def name_of(event: Sequence[_Timed]) -> str:
    """Date and time of the first composite."""
    return f"{event[0].time:%Y-%m-%d %H:%M}"


def split_at_gaps(
    composites: Sequence[TimedT], time_step_minutes: float
) -> tuple[list[tuple[TimedT, ...]], list[tuple[datetime, int]]]:
    """Cuts a series, oldest first, into runs one time step apart.

    Returns:
        The runs; and for each gap of up to a day the time of the composite before it,
        and how many steps are missing (two events on different days are not one event
        with a gap).
    """
    step = timedelta(minutes=time_step_minutes)
    events: list[tuple[TimedT, ...]] = []
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
        events.append(tuple(composites[first:index]))
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
    events: Sequence[Event], span: int, config: "RadarConfig"
) -> tuple[dict[str, list[Part]], bool]:
    """Deals events of at least `span` composites out, in the order of time.

    Returns:
        The events, or parts of them, of each split; and whether there were so few that
        each was cut in time: the beginning to learn from, the end to test on.
    """
    test_dates = config.test_conditions
    held_out = [(event, event) for event in events if date_of(event) in test_dates]
    others = [event for event in events if date_of(event) not in test_dates]
    wanted = shares(
        config.validation_fraction, config.test_fraction, held_out=bool(test_dates)
    )
    dealt = deal([(event, event) for event in others], wanted)
    parts = dealt or {split: [] for split in SPLITS}
    for event in [] if dealt else others:
        for split, (first, end) in cut_in_time(len(event), span, wanted).items():
            if first < end:
                parts[split].append((event, event[first:end]))
    if test_dates:
        parts["test"] = held_out
    return parts, bool(others) and not dealt


class RadarClips:
    """A random-access source of crops of radar sequences.

    A clip is every place of a grid, from every `clip_stride`-th composite on, where at
    least half of the pixels hold data and enough of those are rain, both in the clip's
    first frame (later ones a forecaster could not know). They come in one scrambled
    order, so that the first few are a fair sample.

    Clips are {"frames": uint8 `[T, H, W, 1]`, "mask": uint8 `[T, H, W, 1]`, 1 where
    there is data, "condition": int32 []}.

    Args:
        config: the data set's config, which says how clips are cut out of an event.
        split: "train", "validation" or "test".
        parts: the events of the split; their composites must be of one size.
        num_frames: frames per clip, T.
        conditions: dates of events, to which a clip's "condition" is the index.
    """

    def __init__(
        self,
        config: "RadarConfig",
        split: str,
        parts: Sequence[Part],
        num_frames: int,
        conditions: Sequence[str],
    ) -> None:
        self._config = config
        self._parts = [part for _, part in parts]
        self._names = [name_of(event) for event, _ in parts]
        self._span = config.span(num_frames)
        self._conditions = [conditions.index(date_of(event)) for event, _ in parts]
        crop_stride = config.crop_stride if split == "train" else 0
        max_clips = getattr(config, f"num_{split}_sequences")
        places = [
            (number, start, top, left)
            for number, part in enumerate(self._parts)
            for start in range(
                0, len(part) - self._span + 1, config.clip_stride or self._span
            )
            for top, left in crop_places(part[start].read(), config, crop_stride)
        ]
        self._places = np.array(places, np.int64).reshape(-1, 4)
        order = np.random.default_rng(_ORDER_SEED).permutation(len(places))
        self._places = self._places[order[:max_clips]]

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._places)

    @property
    def film_names(self) -> list[str]:
        """The event that each clip is cut from, by the time of its first composite."""
        return [self._names[number] for number in self._places[:, 0]]

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
        config = self._config
        chosen = self._parts[number][start : start + self._span : config.frame_stride]
        rows = slice(top, top + config.height)
        columns = slice(left, left + config.width)
        frames, masks = [], []
        for _, group in groupby(chosen, key=lambda one: id(one.frames)):
            run = list(group)  # Of one entry of the cache, read at once.
            asked = (run[0].index, len(run), config.frame_stride)
            frames.append(run[0].frames.read(*asked)[:, rows, columns])
            masks.append(run[0].frames.read_mask(*asked)[:, rows, columns])
        return {
            "frames": np.concatenate(frames),
            "mask": np.concatenate(masks),
            "condition": np.asarray(self._conditions[number], np.int32),
        }


def crop_places(
    frame: np.ndarray, config: "RadarConfig", crop_stride: int
) -> list[tuple[int, int]]:
    """Top and left of the crops of a composite that hold data and rain enough."""
    pixels, valid = frame
    rain = pixels / 255 >= config.rain_scale.pixel_of_rain(RAIN_MM_PER_H)
    size = (config.height, config.width)
    tops, lefts = (
        np.arange(0, whole - side + 1, crop_stride or side)
        for whole, side in zip(pixels.shape, size, strict=True)
    )

    def counts(flags: np.ndarray) -> np.ndarray:
        """Set pixels in each crop, by differences of sums from the corner on."""
        sums = np.zeros((flags.shape[0] + 1, flags.shape[1] + 1), np.int64)
        sums[1:, 1:] = flags.astype(np.int64).cumsum(0).cumsum(1)
        rows = sums[tops + config.height] - sums[tops]
        return rows[:, lefts + config.width] - rows[:, lefts]

    known = counts(valid)
    enough = 2 * known >= config.height * config.width
    enough &= counts(rain) >= config.min_rain_share * known
    return [(int(tops[row]), int(lefts[column])) for row, column in np.argwhere(enough)]
