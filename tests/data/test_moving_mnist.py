"""Moving MNIST against a slow, plain generator of the published rule."""

import math
import pickle

import numpy as np
import pytest

from convlstm_jax.data.synthetic import clips
from convlstm_jax.data.synthetic.clips import uniform_draws
from convlstm_jax.data.synthetic.moving_mnist import (
    MovingMNIST,
    MovingMNISTConfig,
    MovingMNISTFile,
)
from convlstm_jax.errors import UserError


def random_digits(count=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def generated(digits, count, num_frames, seed=0, **fields):
    config = MovingMNISTConfig(**fields)
    return MovingMNIST(config, num_frames, count, seed, digits)


def reference_sequence(
    digits, seed, index, num_frames, height, width, num_digits, velocity
):
    """Frame by frame and pixel by pixel, as section 3.2 of arXiv:1502.04681 says."""
    draws = uniform_draws(seed, index, 4 * num_digits)
    frames = np.zeros((num_frames, height, width, 1), np.uint8)
    for number in range(num_digits):
        choice, y, x, turn = draws[4 * number : 4 * number + 4]
        digit = digits[math.floor(choice * len(digits))]
        velocity_y = velocity * math.sin(2 * math.pi * turn)
        velocity_x = velocity * math.cos(2 * math.pi * turn)
        for t in range(num_frames):
            y += velocity_y
            x += velocity_x
            if y <= 0 or y >= 1:
                y = min(max(y, 0.0), 1.0)
                velocity_y = -velocity_y
            if x <= 0 or x >= 1:
                x = min(max(x, 0.0), 1.0)
                velocity_x = -velocity_x
            top, left = int((height - 28) * y), int((width - 28) * x)
            for row in range(28):
                for column in range(28):
                    pixel = frames[t, top + row, left + column]
                    pixel[0] = max(pixel[0], digit[row, column])
    return frames


@pytest.mark.parametrize(
    "sizes",
    [
        (20, 64, 64, 2, 0.1),
        (12, 40, 71, 3, 0.37),
        (5, 28, 64, 1, 1.0),
        (1, 28, 28, 2, 1),
    ],
)
def test_frames_equal_the_plain_generator(sizes):
    digits = random_digits()
    num_frames, height, width, num_digits, velocity = sizes
    fields = {"height": height, "width": width, "num_digits": num_digits}
    source = generated(digits, 10**7, num_frames, seed=3, **fields, velocity=velocity)
    for index in (0, 1, 9_999_999):
        expected = reference_sequence(digits, 3, index, *sizes)
        frames = source[index]["frames"]
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, expected)


def test_draws_are_the_published_splitmix64():
    # Known answer of SplitMix64: from state 0 the first outputs are these.
    gamma, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    assert clips._mix(gamma) == 0xE220A8397B1DCDAF
    assert clips._mix(2 * gamma & mask) == 0x6E789E6AA1B965F4
    # The fixed splits must stay what they are: a change here breaks comparisons.
    assert uniform_draws(0, 0, 2) == [0.33805245419550545, 0.2691302712263999]
    assert uniform_draws(2**63 + 1, 9999, 1) == [0.2060084242578435]


@pytest.fixture
def published_file(tmp_path):
    array = np.random.default_rng(1).integers(0, 256, (20, 6, 64, 64), np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", array)
    return tmp_path / "mnist_test_seq.npy", array


def test_published_file_is_read_time_first(published_file):
    path, array = published_file
    source = MovingMNISTFile(path, 15, 6)
    assert len(source) == 6
    frames = source[4]["frames"]
    assert type(frames) is np.ndarray
    assert frames.shape == (15, 64, 64, 1) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[..., 0], array[:15, 4])
    assert len(MovingMNISTFile(path, 20, 5)) == 5
    with pytest.raises(IndexError, match="holds 6 clips"):
        source[6]
    pickled = pickle.dumps(source)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled)[4]["frames"], frames)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 20, 64, 64), "uint8"), ((20, 6, 64, 64), "float32"),
     ((20, 6, 32, 64), "uint8"), ((20, 64, 64), "uint8")],
)  # fmt: skip
def test_another_array_is_refused(tmp_path, shape, dtype):
    path = tmp_path / "clips.npy"
    np.save(path, np.zeros(shape, dtype))
    message = rf"clips.npy holds {dtype} .*\[20, 10000, 64, 64\]"
    with pytest.raises(UserError, match=message):
        MovingMNISTFile(path, 20, 6)


@pytest.mark.parametrize(
    "content", [None, b"", b"\x93NUMPY\x01", b"no array at all", "truncated"]
)
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "clips.npy"
    if content == "truncated":
        np.save(path, np.zeros((20, 1, 64, 64), np.uint8))
        content = path.read_bytes()[:-1000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"clips.npy cannot be read .* must be the published"
    ):
        MovingMNISTFile(path, 20, 6)
