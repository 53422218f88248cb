"""Clips cut out of radar composites, with the pixels marked that hold data."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from convlstm_jax.data.composites import CompositeReader
from convlstm_jax.data.radar_events import (
    Composite,
    Event,
    find_composites,
    split_at_gaps,
    split_events,
)
from convlstm_jax.data.sources import Sources, check_seed_and_counts
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale

RAIN_MM_PER_H = 0.1
"""From this rate on a pixel counts as rain where crops are chosen by it."""

_ORDER_SEED = 2**63 + 2  # Of the order of clips; no training seed is as large.


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
      least_rain_share: share of rain that a crop must have in its clip's first frame.
    """

    num_frames: int
    height: int
    width: int
    frame_stride: int
    clip_stride: int
    crop_stride: int
    least_rain_share: float

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

    Args:
      events: the events; their composites must be readable and of one size.
      reader: reads a composite.
      cutting: what a clip is.
      conditions: dates of events, to which a clip's "condition" is the index.
      most_clips: upper limit of the length of the source.
    """

    def __init__(
        self,
        events: Sequence[Event],
        reader: CompositeReader,
        cutting: Cutting,
        conditions: Sequence[str],
        most_clips: int,
    ) -> None:
        self._events = tuple(events)
        self._reader = reader
        self._cutting = cutting
        self._conditions = [conditions.index(event.date) for event in events]
        places = [
            (number, start, top, left)
            for number, event in enumerate(self._events)
            for start in range(0, len(event) - cutting.span + 1, cutting.clip_stride)
            for top, left in crop_places(
                reader.read(event.composites[start].path), cutting, reader.scale
            )
        ]
        self._places = np.array(places, np.int64).reshape(-1, 4)
        order = np.random.default_rng(_ORDER_SEED).permutation(len(places))
        self._places = self._places[order[:most_clips]]

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one clip.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, H, W, 1], "mask": uint8 [T, H, W, 1], 1 where there is
          data, "condition": int32 []}.

        Raises:
          IndexError: the index is out of range.
          UserError: a composite cannot be read; the message names it.
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
        crops = np.stack(
            [self._reader.read(one.path)[:, rows, columns, None] for one in chosen]
        )
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
    enough &= counts(rain) >= cutting.least_rain_share * known
    return [(int(tops[row]), int(lefts[column])) for row, column in np.argwhere(enough)]


def radar_sources(
    *,
    path: str,
    num_frames: int,
    height: int,
    width: int,
    downsample: int = 1,
    frame_stride: int = 1,
    clip_stride: int = 0,
    crop_stride: int = 0,
    least_rain_share: float = 0.0,
    time_step_minutes: float = 5.0,
    dbz_gain: float = 0.5,
    dbz_offset: float = -32.0,
    no_data_value: int = 255,
    scale: RainScale,
    test_conditions: tuple[str, ...] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    bad_files: str = "refuse",
    seed: int = 0,
    num_train_sequences: int,
    num_validation_sequences: int,
    num_test_sequences: int,
) -> Sources:
    """Clips from a folder of radar composites: 8-bit pictures with times as names.

    An event is a run of composites without a missing time step. Splits are by event,
    in the order of time; where there are fewer events than splits, each is cut in time.
    No frame is in two splits. Every composite is read once when the folder is opened.

    Args:
      path: the folder, see `find_composites`.
      num_frames: frames per clip, input and output together.
      height: H of a crop, pixels of the averaged composite.
      width: W of a crop.
      downsample: see `CompositeReader`.
      frame_stride: takes every so many-th composite.
      clip_stride: composites from one clip's start to the next one's; 0: one clip
        starts after the other's end.
      crop_stride: pixels from one crop to the next in training; 0: side by side, as
        they always are in validation and test.
      least_rain_share: share of pixels with rain of at least 0.1 mm/h that a crop must
        have in its clip's first frame.
      time_step_minutes: from one composite to the next.
      dbz_gain: see `CompositeReader`.
      dbz_offset: see `CompositeReader`.
      no_data_value: see `CompositeReader`.
      scale: what the pixels of the clips are to mean.
      test_conditions: dates, such as 2017-05-09; the events that begin on them are the
        test split and in no other, and `test_fraction` means nothing.
      validation_fraction: share of the events for validation, in (0, 1).
      test_fraction: share of the events for the test, in (0, 1).
      bad_files: whether a composite that cannot be read, is of another size or has no
        time of its own is to be refused ("refuse"), or left out as if it were missing,
        and counted ("skip").
      seed: the training seed; of no effect here, where nothing is drawn.
      num_train_sequences: upper limit of clips to learn from.
      num_validation_sequences: upper limit of clips for validation.
      num_test_sequences: upper limit of clips for the test.

    Returns:
      The splits; their conditions are the dates of the events.

    Raises:
      UserError: an argument is out of its range, a file is to be refused, or no clip
        is left in a split.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )
    if bad_files not in ("refuse", "skip"):
        raise UserError(f"bad_files is {bad_files!r}, but must be 'refuse' or 'skip'.")
    composites, left_out = find_composites(path)
    reader = CompositeReader(scale, downsample, dbz_gain, dbz_offset, no_data_value)
    composites = _readable(composites, reader, left_out)
    if left_out and bad_files == "refuse":
        sentences = next(iter(left_out.values()))
        raise UserError(
            f"{sentences[0]}; with data.bad_files='skip' such files are left out and "
            "counted."
        )
    if not composites:
        raise UserError(
            f"The folder '{path}' holds no radar composite that can be used"
            f"{_told(left_out)}."
        )
    runs, gaps = split_at_gaps(composites, time_step_minutes)
    cuttings = {
        split: Cutting(
            num_frames=num_frames,
            height=height,
            width=width,
            frame_stride=frame_stride,
            clip_stride=clip_stride or (num_frames - 1) * frame_stride + 1,
            crop_stride=crop_stride if split == "train" else 0,
            least_rain_share=least_rain_share,
        )
        for split in ("train", "validation", "test")
    }
    span = cuttings["train"].span
    events = [run for run in runs if len(run) >= span]
    conditions = tuple(dict.fromkeys(event.date for event in events))
    for date in test_conditions:
        if date not in conditions:
            raise UserError(
                f"test_conditions names {date!r}, but the events of '{path}' with at "
                f"least {span} composites {time_step_minutes:g} minutes apart begin on "
                f"{', '.join(conditions) or 'no day'}."
            )
    parts, cut_in_time = split_events(
        events, span, test_conditions, validation_fraction, test_fraction
    )
    limits = (num_train_sequences, num_validation_sequences, num_test_sequences)
    clips = {
        split: RadarClips(parts[split], reader, cuttings[split], conditions, most)
        for split, most in zip(cuttings, limits, strict=True)
    }
    told_clips = ", ".join(f"{len(clips[split])} {split}" for split in clips)
    tall, wide = reader.read(composites[0].path).shape[1:]
    facts = (
        f"{len(composites)} composites of {tall}x{wide} pixels after averaging over "
        f"{downsample}x{downsample}, {time_step_minutes:g} minutes apart; "
        f"{len(events)} events of at least {span} composites"
    )
    for split in clips:
        if not len(clips[split]):
            raise UserError(
                f"The {split} split of '{path}' is empty ({facts}; clips of "
                f"{num_frames} frames at {height}x{width}: {told_clips}"
                f"{_told(left_out)}); add composites, ask for fewer frames or smaller "
                "crops, or change data.least_rain_share, data.time_step_minutes, the "
                "fractions or data.test_conditions."
            )
    description = (
        f"Radar composites of '{path}': {facts} ("
        + ", ".join(f"{event.name}: {len(event)}" for event in events[:8])
        + (", …" if len(events) > 8 else "")
        + f"), {'each cut in time' if cut_in_time else 'split by event'}; clips of "
        f"{num_frames} frames at {height}x{width}: {told_clips}."
    )
    if test_conditions:
        description += f" Held out for the test: {', '.join(test_conditions)}."
    if gaps:
        description += f" Time steps missing: {len(gaps)} (first: {gaps[0]})."
    if left_out:
        description += f" Left out{_told(left_out)}."
    return Sources(
        train=clips["train"],
        validation=clips["validation"],
        test=clips["test"],
        description=description,
        height=height,
        width=width,
        channels=1,
        conditions=conditions,
    )


def _readable(
    composites: Sequence[Composite],
    reader: CompositeReader,
    left_out: dict[str, list[str]],
) -> list[Composite]:
    """Those that can be read and have the size of most; adds the others to left_out."""

    def size(composite: Composite) -> tuple[int, ...] | str:
        try:
            return reader.read(composite.path).shape
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(size, composites))
    known = [one for one in sizes if not isinstance(one, str)]
    usual = max(known, key=known.count, default=())
    good = []
    for composite, one in zip(composites, sizes, strict=True):
        if isinstance(one, str):
            left_out.setdefault("unreadable", []).append(one.rstrip("."))
        elif one != usual:
            left_out.setdefault("of another size", []).append(
                f"'{composite.path}' has {one[1]}×{one[2]} pixels after averaging, but "
                f"most composites have {usual[1]}×{usual[2]}"
            )
        else:
            good.append(composite)
    return good


def _told(left_out: dict[str, list[str]]) -> str:
    """What was left out by its reason, counted, with the first of each."""
    told = [
        f"{len(sentences)} {why} (first: {sentences[0]})"
        for why, sentences in left_out.items()
    ]
    return f": {'; '.join(told)}" if told else ""
