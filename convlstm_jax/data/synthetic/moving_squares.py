"""Moving squares: white squares that drift through a small window, with noise.

The film generator of Keras's first ConvLSTM example (`examples/conv_lstm.py` of Keras
2), generated here for one (seed, index) at a time.
"""

from functools import partial
from typing import ClassVar, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.synthetic.clips import (
    SyntheticClips,
    generated_splits,
    uniform_draws,
)

MIN_SQUARES = 3
MAX_SQUARES = 7

_DRAWS_PER_SQUARE = 5  # Row, column, direction in both, half of the side.
_DRAWS_PER_FRAME = 2 * MAX_SQUARES  # Whether there is noise, and its sign.


class MovingSquares(SyntheticClips["MovingSquaresConfig"]):
    """A random-access source of moving-square sequences, see `SyntheticClips`.

    The rule of the example. A sequence has 3 to 7 squares with sides of 4 or 6 pixels.
    Each starts with its centre uniform in the window and moves by −1, 0 or 1 pixels a
    frame along either axis, in a straight line, out of the window as well (the example
    draws on a canvas of 80×80 and cuts out the middle 40×40). Where a square lies the
    frame is one. In the noisy film, every square of every frame is with probability
    1/2 disturbed: 0.1 is added or taken away, either with probability 1/2, on the
    square and a margin of one pixel around it; then values above one become one. As in
    the example, values below zero stay: a margin may hold −0.1.

    Clips are {"frames": float32 `[T, H, W, 1]`, the noisy film, which bytes could not
    hold exactly; "targets": uint8 `[T, H, W, 1]`, the same without noise, 0 or 255}.
    """

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        height, width, _ = self._config.frame_shape
        shape = (self._num_frames, height, width)
        # Counted in tenths, which integers add up without rounding.
        noisy = np.zeros(shape, np.int16)
        clean = np.zeros(shape, np.uint8)
        first_noise = 1 + MAX_SQUARES * _DRAWS_PER_SQUARE
        draws = uniform_draws(
            self._seed, index, first_noise + self._num_frames * _DRAWS_PER_FRAME
        )
        choices = MAX_SQUARES - MIN_SQUARES + 1
        for number in range(MIN_SQUARES + int(draws[0] * choices)):
            first = 1 + number * _DRAWS_PER_SQUARE
            start_y, start_x, turn_y, turn_x, size = draws[first : first + 5]
            y, x = int(start_y * height), int(start_x * width)
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


class MovingSquaresConfig(DataConfig):
    """White squares that drift through a small window, with noise."""

    own_data: ClassVar[str] = "video"

    name: Literal["moving_squares"] = "moving_squares"
    height: int = field(40, "Height of a frame.", unit="pixels", ge=1)
    width: int = field(40, "Width of a frame.", unit="pixels", ge=1)
    num_train_sequences: int = field(950, "Maximum number of training clips.", ge=1)
    num_validation_sequences: int = field(
        50, "Maximum number of validation clips.", ge=1
    )
    num_test_sequences: int = field(1000, "Maximum number of test clips.", ge=1)

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits, see `DataConfig.sources`."""
        return Sources(
            **generated_splits(self, seed, partial(MovingSquares, self, num_frames)),
            description=(
                f"Moving squares, 3 to 7 on {self.height}x{self.width}, all sequences "
                "generated; noise in the frames given, none in those to be predicted."
            ),
        )
