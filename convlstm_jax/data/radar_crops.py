"""Clips cut out of radar composites, with the pixels marked that hold data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convlstm_jax.data.composites import CompositeReader
from convlstm_jax.data.prepared_composites import PreparedComposites
from convlstm_jax.data.radar_events import Event
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
        reader: CompositeReader | PreparedComposites,
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
