"""Films of a bubble column, made by the program: a stand-in for measured ones."""

import numpy as np

from convlstm_jax.data.bubble_motion import COLUMN_HEIGHT_M, follow_bubbles
from convlstm_jax.data.bubble_pictures import draw_bubbles, empty_column
from convlstm_jax.data.made_clips import TEST_SEED, VALIDATION_SEED, MadeClips
from convlstm_jax.data.sources import Sources, check_seed_and_counts
from convlstm_jax.errors import UserError

FLOWS_L_PER_MIN = (1, 2, 4, 8)
"""The gas flows, litres per minute, that clips are taken under."""

CONDITIONS = tuple(f"{flow} L/min" for flow in FLOWS_L_PER_MIN)
"""Their names, to which a clip's "condition" is the index."""

LEAST_SIZE = 16
"""Fewest pixels along an axis with which the column can be told from its walls."""


class BubbleColumn(MadeClips):
    """A random-access source of bubble-column films, made when they are read.

    The camera looks through a flat column of water at a lamp and takes 100 frames a
    second, 15 cm from the lower to the upper edge. Needles at the bottom, walls at the
    sides and the surface near the top stand still; bubbles rise by their size, wobble,
    merge where they touch and vanish at the surface. A clip begins when the column has
    been running for a while. See `bubble_motion` and `bubble_pictures`.

    A clip depends on the geometry, its condition and (seed, index) alone, so any one
    can be made again, in any order and in any process; a longer one begins as the
    shorter one.

    Args:
      num_sequences: length of the source.
      num_frames: frames per sequence, T.
      height: frame height H in pixels, at least 16.
      width: frame width W in pixels, at least 16; a wider frame shows a wider column.
      conditions: indices into `CONDITIONS` that the clips take in turn.
      seed: names the stream of sequences, 0 <= seed < 2**64.

    Raises:
      ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        num_sequences: int,
        num_frames: int,
        height: int = 128,
        width: int = 128,
        conditions: tuple[int, ...] = tuple(range(len(CONDITIONS))),
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_sequences, num_frames, height, width, seed, least_size=LEAST_SIZE
        )
        if not conditions or not set(conditions) <= set(range(len(CONDITIONS))):
            raise ValueError(
                f"conditions is {conditions}, but must be some of 0 .. "
                f"{len(CONDITIONS) - 1}."
            )
        self._column = empty_column(int(height), int(width))
        self._conditions = tuple(conditions)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Makes one sequence.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, H, W, 1], "condition": int32 []}.

        Raises:
          IndexError: the index is out of range.
        """
        index = self._in_range(index)
        condition = self._conditions[index % len(self._conditions)]
        height, width = self._column.shape
        tracks = follow_bubbles(
            FLOWS_L_PER_MIN[condition],
            self._num_frames,
            COLUMN_HEIGHT_M * width / height,
            self._seed,
            index,
        )
        return {
            "frames": draw_bubbles(self._column, tracks, self._num_frames),
            "condition": np.asarray(condition, np.int32),
        }


def bubbles_sources(
    *,
    num_frames: int,
    seed: int,
    height: int = 128,
    width: int = 128,
    test_conditions: tuple[str, ...] = (),
    num_train_sequences: int = 10_000_000,
    num_validation_sequences: int = 100,
    num_test_sequences: int = 1000,
) -> Sources:
    """A bubble column under four gas flows, see `BubbleColumn`.

    Validation and test sequences are fixed: they depend on neither the seed nor their
    own number.

    Args:
      num_frames: frames per sequence, input and output together.
      seed: names the stream of training sequences, 0 <= seed < 2**32.
      height: frame height in pixels.
      width: frame width in pixels.
      test_conditions: names in `CONDITIONS` that the test sequences are taken under and
        no others; empty: all splits are taken under all.
      num_train_sequences: length of an epoch.
      num_validation_sequences: length of the validation split.
      num_test_sequences: length of the test split.

    Returns:
      The splits.

    Raises:
      UserError: an argument is out of its range; the message names it.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )
    for name in test_conditions:
        if name not in CONDITIONS:
            raise UserError(
                f"test_conditions names {name!r}, but the bubble column has the "
                f"conditions {', '.join(map(repr, CONDITIONS))}."
            )
    every = tuple(range(len(CONDITIONS)))
    held_out = tuple(one for one in every if CONDITIONS[one] in test_conditions)
    learned = tuple(one for one in every if one not in held_out)
    if not learned:
        raise UserError(
            f"test_conditions is {test_conditions}, which holds out all conditions and "
            "leaves none to learn from."
        )

    def made(count: int, conditions: tuple[int, ...], seed: int) -> BubbleColumn:
        return BubbleColumn(count, num_frames, height, width, conditions, seed)

    description = (
        f"Bubble column on {height}x{width}, all sequences generated. Gas flows: "
        f"{', '.join(CONDITIONS)}"
    )
    held = ", ".join(CONDITIONS[one] for one in held_out)
    return Sources(
        train=made(num_train_sequences, learned, seed),
        validation=made(num_validation_sequences, learned, VALIDATION_SEED),
        test=made(num_test_sequences, held_out or every, TEST_SEED),
        description=description
        + (f"; held out for the test: {held}." if held else "."),
        height=height,
        width=width,
        channels=1,
        conditions=CONDITIONS,
    )
