"""Moving squares, as in Keras's first ConvLSTM example, `examples/conv_lstm.py`."""

from typing import ClassVar, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import DataConfig, clip_limit
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.synthetic.clips import SyntheticClips, uniform_draws

MIN_SQUARES = 3
MAX_SQUARES = 7


class MovingSquares(SyntheticClips["MovingSquaresConfig"]):
    """A random-access source of moving-square sequences, see `SyntheticClips`.

    A clip has 3 to 7 squares with sides of 4 or 6 pixels. Each starts with its centre
    uniform in the window and moves by −1, 0 or 1 pixels a frame along either axis, out
    of the window as well. Where a square lies the frame is one. In the noisy film, each
    square of each frame is disturbed with probability 1/2: 0.1 is added or taken away,
    with equal probability, on the square and a margin of one pixel around it; then
    values above one become one. As in the example, values below zero stay.

    "frames" are the noisy film, float32; "targets" the same without noise, 0 or 255.
    """

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        height, width, _ = self.config.frame_shape
        shape = (self.num_frames, height, width)
        # Counted in tenths, which integers add up without rounding.
        noisy = np.zeros(shape, np.int16)
        clean = np.zeros(shape, np.uint8)
        # Their number; five of each square; and of each in each frame whether it is
        # disturbed, and the sign.
        count = 1 + 5 * MAX_SQUARES + 2 * MAX_SQUARES * self.num_frames
        first, *draws = uniform_draws(self.seed, index, count)
        squares = np.reshape(draws[: 5 * MAX_SQUARES], (MAX_SQUARES, 5))
        noise = np.reshape(draws[5 * MAX_SQUARES :], (-1, MAX_SQUARES, 2))
        for number in range(MIN_SQUARES + int(first * (MAX_SQUARES - MIN_SQUARES + 1))):
            start_y, start_x, turn_y, turn_x, size = squares[number]
            y, x = int(start_y * height), int(start_x * width)
            step_y, step_x = int(turn_y * 3) - 1, int(turn_x * 3) - 1
            half = 2 + int(size * 2)
            for t, (disturbed, sign) in enumerate(noise[:, number]):
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
    num_train_sequences: int = clip_limit(950, "training")
    num_validation_sequences: int = clip_limit(50, "validation")
    num_test_sequences: int = clip_limit(1000, "test", may_change=True)

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits, see `DataConfig.sources`."""
        return MovingSquares.splits(
            self,
            num_frames,
            seed,
            f"Moving squares, 3 to 7 on {self.height}x{self.width}, all sequences "
            "generated; noise in the frames given, none in those to be predicted.",
        )
