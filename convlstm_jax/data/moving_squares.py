"""Moving squares: white squares that drift through a small window, with noise.

The film generator of Keras's first ConvLSTM example (`examples/conv_lstm.py` of Keras
2), made here frame by frame for one (seed, index) at a time.
"""

import numpy as np

from convlstm_jax.data.made_clips import MadeClips
from convlstm_jax.data.moving_mnist import uniform_draws

FEWEST_SQUARES = 3
MOST_SQUARES = 7

_DRAWS_PER_SQUARE = 5  # Row, column, direction in both, half of the side.
_DRAWS_PER_FRAME = 2 * MOST_SQUARES  # Whether there is noise, and its sign.


class MovingSquares(MadeClips):
    """A random-access source of moving-square sequences, made when they are read.

    The rule of the example. A sequence has 3 to 7 squares with sides of 4 or 6 pixels.
    Each starts with its centre uniform in the window and moves by −1, 0 or 1 pixels a
    frame along either axis, in a straight line, out of the window as well (the example
    draws on a canvas of 80×80 and cuts out the middle 40×40). Where a square lies the
    frame is one. In the noisy film, every square of every frame is with probability
    1/2 disturbed: 0.1 is added or taken away, either with probability 1/2, on the
    square and a margin of one pixel around it; then values above one become one. As in
    the example, values below zero stay: a margin may hold −0.1.

    A sequence depends on the geometry and (seed, index) alone, so any one can be made
    again, in any order and in any process; a longer one begins as the shorter one.

    Args:
      num_sequences: length of the source.
      num_frames: frames per sequence, T.
      height: height H of the window in pixels.
      width: width W of the window in pixels; may differ from the height.
      seed: names the stream of sequences, 0 <= seed < 2**64.

    Raises:
      ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        num_sequences: int,
        num_frames: int,
        height: int = 40,
        width: int = 40,
        seed: int = 0,
    ) -> None:
        super().__init__(num_sequences, num_frames, height, width, seed)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Makes one sequence.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": float32 [T, H, W, 1], the noisy film, which bytes could not hold
          exactly; "targets": uint8 [T, H, W, 1], the same frames without noise, 0 or
          255}.

        Raises:
          IndexError: the index is out of range.
        """
        index = self._in_range(index)
        shape = (self._num_frames, self._height, self._width)
        # Counted in tenths, which integers add up without rounding.
        noisy = np.zeros(shape, np.int16)
        clean = np.zeros(shape, np.uint8)
        first_noise = 1 + MOST_SQUARES * _DRAWS_PER_SQUARE
        draws = uniform_draws(
            self._seed, index, first_noise + self._num_frames * _DRAWS_PER_FRAME
        )
        choices = MOST_SQUARES - FEWEST_SQUARES + 1
        for number in range(FEWEST_SQUARES + int(draws[0] * choices)):
            first = 1 + number * _DRAWS_PER_SQUARE
            start_y, start_x, turn_y, turn_x, size = draws[first : first + 5]
            y, x = int(start_y * self._height), int(start_x * self._width)
            step_y, step_x = int(turn_y * 3) - 1, int(turn_x * 3) - 1
            half = 2 + int(size * 2)
            for t in range(self._num_frames):
                noise = first_noise + t * _DRAWS_PER_FRAME + 2 * number
                disturbed, sign = draws[noise], draws[noise + 1]
                square = (t, _span(y, half), _span(x, half))
                noisy[square] += 10
                clean[square] = 255
                if disturbed < 0.5:
                    margin = (t, _span(y, half + 1), _span(x, half + 1))
                    noisy[margin] += 1 if sign < 0.5 else -1
                y, x = y + step_y, x + step_x
        frames = np.minimum(noisy, 10).astype(np.float32) / np.float32(10)
        return {"frames": frames[..., np.newaxis], "targets": clean[..., np.newaxis]}


def _span(centre: int, half: int) -> slice:
    """The part of [centre − half, centre + half) that is not before the window."""
    return slice(max(0, centre - half), max(0, centre + half))
