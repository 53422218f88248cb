"""Augmentation of clips: one draw a clip, plain oracles, bounds, mistakes."""

import numpy as np
import pytest

from convlstm_jax.data.augmentation import augment_clip

NOTHING = {"flip": False, "crop": 0.0, "brightness": 0.0}


def film(shape=(3, 6, 7, 2), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def changed(frames, seed=0, **strengths):
    return augment_clip(frames, np.random.default_rng(seed), **(NOTHING | strengths))


def draws(seed):
    names = ("mirrored", "size", "top", "left", "contrast", "light")
    return dict(zip(names, np.random.default_rng(seed).random(6), strict=True))


def test_without_strengths_nothing_changes():
    np.testing.assert_array_equal(changed(film()), film())


def test_flip_mirrors_half_of_the_clips():
    mirrored = 0
    for seed in range(40):
        out = changed(film(), seed, flip=True)
        if draws(seed)["mirrored"] < 0.5:
            mirrored += 1
            np.testing.assert_array_equal(out, film()[:, :, ::-1])
        else:
            np.testing.assert_array_equal(out, film())
    assert 10 < mirrored < 30


def bilinear(image, y, x):
    """The value of [H, W, C] between its pixels."""
    top, left = int(y), int(x)
    bottom, right = min(top + 1, len(image) - 1), min(left + 1, image.shape[1] - 1)
    v, u = y - top, x - left
    return (
        (1 - v) * (1 - u) * image[top, left]
        + (1 - v) * u * image[top, right]
        + v * (1 - u) * image[bottom, left]
        + v * u * image[bottom, right]
    )


@pytest.mark.parametrize("seed", range(4))
def test_crop_enlarges_a_window(seed):
    frames = film()
    out = changed(frames, seed, crop=0.6)
    drawn = draws(seed)
    part = 1 - 0.6 * drawn["size"]
    for t in range(3):
        for row in range(6):
            for column in range(7):
                expected = bilinear(
                    frames[t].astype(np.float64),
                    5 * (1 - part) * drawn["top"] + row * part,
                    6 * (1 - part) * drawn["left"] + column * part,
                )
                # Half for the rounding.
                assert np.abs(out[t, row, column] - expected).max() < 0.501


def test_a_window_of_a_ramp_is_a_ramp():
    ramp = np.broadcast_to(np.arange(0, 240, 8, np.uint8), (2, 5, 30))[..., np.newaxis]
    for seed in range(10):
        out = changed(ramp, seed, crop=0.5)
        assert out[0, 0, 0, 0] >= 0 and out[0, 0, -1, 0] <= 232
        steps = np.diff(out[0, 0, :, 0].astype(int))
        assert steps.min() >= 3 and steps.max() <= 9
        np.testing.assert_array_equal(out[1, 4], out[0, 0])


@pytest.mark.parametrize("seed", range(4))
def test_brightness_is_one_line_of_grey_values(seed):
    frames = film()
    drawn = draws(seed)
    factor = 1 + 0.3 * (2 * drawn["contrast"] - 1)
    shift = 255 * 0.3 * (2 * drawn["light"] - 1)
    mean = frames.astype(np.float64).mean()
    expected = mean + factor * (frames - mean) + shift
    out = changed(frames, seed, brightness=0.3)
    np.testing.assert_array_equal(out, np.clip(np.rint(expected), 0, 255))
    assert out.dtype == np.uint8


def test_all_frames_are_changed_alike():
    still = np.repeat(film((1, 6, 7, 3)), 4, axis=0)
    for seed in range(5):
        out = changed(still, seed, flip=True, crop=0.5, brightness=0.4)
        np.testing.assert_array_equal(out, np.repeat(out[:1], 4, axis=0))
        assert not np.array_equal(out, still)


def test_the_draws_of_one_change_do_not_depend_on_another():
    for seed in range(6):
        both = changed(film(), seed, flip=True, brightness=0.3)
        first = changed(film(), seed, flip=True)
        np.testing.assert_array_equal(changed(first, seed, brightness=0.3), both)


def test_the_same_state_gives_the_same_clip():
    strengths = {"flip": True, "crop": 0.3, "brightness": 0.2}
    frames = film()
    first = changed(frames, 5, **strengths)
    np.testing.assert_array_equal(first, changed(frames, 5, **strengths))
    assert not np.array_equal(first, changed(frames, 6, **strengths))
    np.testing.assert_array_equal(frames, film())  # What was given is as it was.


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 5, 3), (2, 5, 1, 1)])
def test_frames_of_one_pixel(shape):
    for seed in range(3):
        out = changed(film(shape), seed, crop=0.5)
        assert out.shape == shape
        if shape[1:3] == (1, 1):
            np.testing.assert_array_equal(out, film(shape))


@pytest.mark.parametrize(
    ("frames", "strengths", "message"),
    [
        (film().astype(np.float32), {}, r"float32 \[3, 6, 7, 2\], but must be uint8"),
        (film()[0], {}, r"uint8 \[6, 7, 2\], but must be uint8 \[T, H, W, C\]"),
        (film(), {"crop": 1.0}, r"crop is 1.0, but must be in \[0, 1\)"),
        (film(), {"crop": -0.5}, "crop is -0.5"),
        (film(), {"brightness": 1.0}, r"brightness is 1.0, but must be in \[0, 1\)"),
        (film(), {"brightness": -0.1}, "brightness is -0.1"),
    ],
)
def test_mistakes(frames, strengths, message):
    with pytest.raises(ValueError, match=message):
        changed(frames, **strengths)
