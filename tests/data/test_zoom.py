import numpy as np
import pytest

from convlstm_jax.data.zoom import zoomed

H, W = 40, 56


def clip(frames, mask=None):
    mask = np.ones_like(frames) if mask is None else mask
    return {"frames": frames, "mask": mask, "condition": np.int32(3)}


def many(one, count=40):
    return [zoomed(one, np.random.default_rng(k), largest=2.0) for k in range(count)]


def test_a_factor_of_one_leaves_a_clip_as_it_is():
    frames = np.random.default_rng(0).integers(0, 255, (2, H, W, 1), np.uint8)
    same = zoomed(clip(frames), np.random.default_rng(1), largest=1.0)
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
