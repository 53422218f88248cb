"""Moving squares against the plain generator of the Keras example."""

import numpy as np
import pytest

from convlstm_jax.data.synthetic.clips import uniform_draws
from convlstm_jax.data.synthetic.moving_squares import (
    MovingSquares,
    MovingSquaresConfig,
)


def generated(count, num_frames, height=40, width=40, seed=0):
    config = MovingSquaresConfig(height=height, width=width)
    return MovingSquares(config, num_frames, count, seed)


def reference_sequence(seed, index, num_frames, height=40, width=40, border=40):
    """The example's loop on a large canvas, its random numbers replaced by ours.

    Pixel by pixel; returns the noisy film and the one without noise.
    """
    draws = uniform_draws(seed, index, 1 + 7 * 5 + 14 * num_frames)
    canvas = (num_frames, height + 2 * border, width + 2 * border)
    noisy, clean = np.zeros(canvas), np.zeros(canvas)
    for square in range(3 + int(5 * draws[0])):
        y, x, direction_y, direction_x, size = draws[1 + 5 * square : 6 + 5 * square]
        y = border + int(y * height)
        x = border + int(x * width)
        direction_y = int(3 * direction_y) - 1
        direction_x = int(3 * direction_x) - 1
        w = 2 + int(2 * size)
        for t in range(num_frames):
            y_shift, x_shift = y + direction_y * t, x + direction_x * t
            disturbed, sign = draws[36 + 14 * t + 2 * square :][:2]
            for row in range(y_shift - w, y_shift + w):
                for column in range(x_shift - w, x_shift + w):
                    noisy[t, row, column] += 1
                    clean[t, row, column] += 1
            if disturbed < 0.5:
                noise = 0.1 if sign < 0.5 else -0.1
                for row in range(y_shift - w - 1, y_shift + w + 1):
                    for column in range(x_shift - w - 1, x_shift + w + 1):
                        noisy[t, row, column] += noise
    noisy = noisy[:, border : border + height, border : border + width, None]
    clean = clean[:, border : border + height, border : border + width, None]
    noisy[noisy >= 1] = 1
    clean[clean >= 1] = 1
    return noisy, clean


@pytest.mark.parametrize(
    ("num_frames", "height", "width"), [(15, 40, 40), (23, 40, 40), (9, 7, 25)]
)
def test_clips_equal_the_plain_generator(num_frames, height, width):
    source = generated(10**7, num_frames, height, width, seed=3)
    for index in (0, 1, 9_999_999):
        noisy, clean = reference_sequence(3, index, num_frames, height, width)
        clip = source[index]
        assert set(clip) == {"frames", "targets"}
        assert clip["frames"].dtype == np.float32
        assert clip["targets"].dtype == np.uint8
        np.testing.assert_allclose(clip["frames"], noisy, atol=1e-6)
        np.testing.assert_array_equal(clip["targets"], 255 * clean)


def test_the_first_clip_of_each_fixed_stream_does_not_change():
    """The validation and test sets must stay what they are."""
    for seed, lit, total in (
        (0, 252, 2504),
        (2**63, 160, 1509),
        (2**63 + 1, 462, 4502),
    ):
        clip = generated(1, 3, seed=seed)[0]
        assert int((clip["targets"] > 0).sum()) == lit
        assert round(10 * float(clip["frames"].sum())) == total
