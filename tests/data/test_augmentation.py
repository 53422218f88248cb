"""Augmentation of clips: one draw a clip, plain oracles."""

import numpy as np
import pytest

from convlstm_jax.data.augmentation import apply_symmetry, apply_zoom, augment_frames

NOTHING = {"flip": False, "crop": 0.0, "brightness": 0.0}


def film(shape=(3, 6, 7, 2), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def changed(frames, seed=0, **strengths):
    clip = {"frames": frames, "label": np.int32(1)}
    other = augment_frames(clip, np.random.default_rng(seed), **(NOTHING | strengths))
    assert other["label"] == 1
    return other["frames"]


def draws(seed):
    names = ("mirrored", "size", "top", "left", "contrast", "light")
    return dict(zip(names, np.random.default_rng(seed).random(6), strict=True))


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


@pytest.mark.parametrize("seed", range(3))
def test_crop_enlarges_a_window(seed):
    frames = film()
    out = changed(frames, seed, crop=0.6)
    drawn = draws(seed)
    part = 1 - 0.6 * drawn["size"]
    for t in range(3):
        for row in range(6):
            for column in range(7):
                y = 6 * (1 - part) * drawn["top"] + (row + 0.5) * part - 0.5
                x = 7 * (1 - part) * drawn["left"] + (column + 0.5) * part - 0.5
                expected = bilinear(
                    frames[t].astype(np.float64), np.clip(y, 0, 5), np.clip(x, 0, 6)
                )
                # Half for the rounding.
                assert np.abs(out[t, row, column] - expected).max() < 0.501


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


@pytest.mark.parametrize(("width", "ways"), [(4, 8), (5, 4)])
def test_all_symmetries_come_up_and_change_all_frames_and_masks_alike(width, ways):
    frames = np.random.default_rng(0).integers(0, 255, (2, 4, width, 1), np.uint8)
    clip = {"frames": frames, "mask": frames // 2, "condition": np.int32(3)}
    seen = set()
    for seed in range(60):
        other = apply_symmetry(clip, np.random.default_rng(seed))
        assert other["condition"] == 3
        np.testing.assert_array_equal(other["mask"], other["frames"] // 2)
        assert sorted(other["frames"][1].ravel()) == sorted(frames[1].ravel())
        assert other["frames"].shape == frames.shape
        seen.add(other["frames"].tobytes())
    assert len(seen) == ways
    assert frames.tobytes() in seen


H, W = 40, 56


def clip(frames, mask=None):
    mask = np.ones_like(frames) if mask is None else mask
    return {"frames": frames, "mask": mask, "condition": np.int32(3)}


def many(one, count=40):
    return [
        apply_zoom(one, np.random.default_rng(k), max_factor=2.0) for k in range(count)
    ]


def test_a_factor_of_one_leaves_a_clip_as_it_is():
    frames = np.random.default_rng(0).integers(0, 255, (2, H, W, 1), np.uint8)
    same = apply_zoom(clip(frames), np.random.default_rng(1), max_factor=1.0)
    np.testing.assert_array_equal(same["frames"], frames)
    assert same["mask"].all() and same["condition"] == 3


def test_what_moves_is_faster_by_as_much_as_it_is_larger():
    # A drop that goes 2 pixels down and 3 to the right from frame to frame.
    y, x = np.mgrid[:H, :W]
    frames = np.stack(
        [
            200 * np.exp(-((y - 17 - 2 * t) ** 2 + (x - 23 - 3 * t) ** 2) / 8)
            for t in range(3)
        ]
    )
    factors = []
    for seen in many(clip(np.rint(frames).astype(np.uint8)[..., np.newaxis])):
        rain = seen["frames"][..., 0].astype(np.float64)
        if rain[:, [0, -1]].any() or rain[:, :, [0, -1]].any():
            continue  # The window cuts through the drop.
        down, right = (
            np.diff((rain * axis).sum((1, 2)) / rain.sum((1, 2))) for axis in (y, x)
        )
        factor = np.sqrt(rain[0].sum() / frames[0].sum())
        np.testing.assert_allclose(down, 2 * factor, atol=0.1)
        np.testing.assert_allclose(right, 3 * factor, atol=0.1)
        factors.append(factor)
    assert min(factors) < 0.7 and max(factors) > 1.4
    assert min(factors) > 0.49 and max(factors) < 2.05


def test_around_a_clip_that_shrinks_there_is_no_data():
    shares = []
    for seen in many(clip(np.full((2, H, W, 1), 90, np.uint8))):
        np.testing.assert_array_equal(seen["frames"], 90 * seen["mask"])
        shares.append(seen["mask"].mean())
    assert min(shares) == pytest.approx(0.25, abs=0.06)
    assert shares.count(1.0) == pytest.approx(20, abs=8)


def test_what_stands_where_there_is_no_data_is_not_seen():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, H, W, 1), np.uint8)
    mask = (rng.random(frames.shape) < 0.95).astype(np.uint8)
    other = np.where(mask > 0, frames, 255).astype(np.uint8)
    for one, two in zip(many(clip(frames, mask)), many(clip(other, mask)), strict=True):
        np.testing.assert_array_equal(one["mask"], two["mask"])
        np.testing.assert_array_equal(one["frames"], two["frames"])
        assert 0 < one["mask"].mean() < 0.97
