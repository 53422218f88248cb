"""Motion that is known is found; trajectories as in plain NumPy and in pysteps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from convlstm_jax.ops.advection import (
    band_correlations,
    band_noise,
    bands,
    carry,
    filled,
    find_motion,
    gaussian,
    to_last_time,
    trajectories,
    wide_noise,
    with_rest,
    within,
)
from tests.trees import fast_jit

HEIGHT, WIDTH = 20, 26
Y, X = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)


def smooth_motion(speed=1.0):
    """A motion that differs from place to place, `[H, W, 2]`."""
    u = 0.8 + 0.5 * np.sin(Y / 6) + 0.4 * np.cos(X / 7)
    v = -0.5 + 0.4 * np.cos(Y / 8) + 0.3 * np.sin(X / 5)
    return speed * np.stack([u, v], axis=-1)


def bilinear(field, x, y):
    """A field `[H, W, …]` at positions, in plain NumPy."""
    x, y = np.clip(x, 0, WIDTH - 1), np.clip(y, 0, HEIGHT - 1)
    left, top = (np.minimum(np.floor(p), n - 2) for p, n in ((x, WIDTH), (y, HEIGHT)))
    right, down = (x - left)[..., None], (y - top)[..., None]
    i, j, field = top.astype(int), left.astype(int), field.reshape(HEIGHT, WIDTH, -1)
    above = (1 - right) * field[i, j] + right * field[i, j + 1]
    below = (1 - right) * field[i + 1, j] + right * field[i + 1, j + 1]
    return (1 - down) * above + down * below


def semilagrangian(motion, num_steps):
    positions, moved, found = np.stack([X, Y], axis=-1), motion, []
    for _ in range(num_steps):
        half = positions - moved / 2
        positions = positions - bilinear(motion, half[..., 0], half[..., 1])
        moved = bilinear(motion, positions[..., 0], positions[..., 1])
        found.append(positions)
    return np.stack(found)


def cells(motion, num_frames, size=48):
    """Frames `[1, T, H, W, 1]` of cells that move by (u, v) a frame."""
    y, x = np.mgrid[:size, :size]
    centres = np.random.default_rng(0).uniform(-10, size + 10, (25, 2))
    frames = [
        sum(
            np.exp(-((y - cy - t * motion[1]) ** 2 + (x - cx - t * motion[0]) ** 2) / 8)
            for cy, cx in centres
        )
        for t in range(num_frames)
    ]
    return np.clip(np.stack(frames), 0, 1).astype(np.float32)[None, ..., None] * 0.6


found_motion = fast_jit(find_motion)


@pytest.mark.parametrize("margin", [0, 3])
def test_trajectories_against_numpy(margin):
    motion = smooth_motion()
    found = fast_jit(lambda motion: trajectories(motion, 5, margin=margin))(
        jnp.asarray(motion[None])
    )
    inner = np.s_[:, margin : HEIGHT - margin, margin : WIDTH - margin]
    np.testing.assert_allclose(
        found[0], semilagrangian(motion, 5)[inner], rtol=1e-5, atol=1e-5
    )


def test_fields_are_carried_as_by_pysteps():
    semilagrangian = pytest.importorskip(
        "pysteps.extrapolation.semilagrangian", reason="requirements-radar.txt"
    )
    motion, field = smooth_motion(1.5), 2 + np.sin(X / 5) + np.cos(Y / 4 + X / 9)
    expected = semilagrangian.extrapolate(field, motion.transpose(2, 0, 1), 12)
    frames = np.broadcast_to(field[None, None, ..., None], (1, 12, HEIGHT, WIDTH, 1))
    positions = trajectories(jnp.asarray(motion[None]), 12)
    found, known = carry(jnp.asarray(frames), jnp.ones(frames.shape), positions)
    outside = np.isnan(expected)
    assert 0 < outside.sum() < outside.size
    np.testing.assert_array_equal(known[0, ..., 0] == 0, outside)
    np.testing.assert_allclose(
        np.where(outside, np.nan, found[0, ..., 0]), expected, atol=1e-4
    )
    assert not found[0, ..., 0][outside].any()


def test_what_comes_from_where_there_is_no_data_is_unknown():
    frames = np.ones((1, 1, HEIGHT, WIDTH, 1), np.float32)
    mask = np.ones_like(frames)
    mask[:, :, 8:10, 12] = 0
    motion = np.broadcast_to([2.0, 1.0], (1, HEIGHT, WIDTH, 2))
    found, known = carry(frames, mask, trajectories(jnp.asarray(motion), 1))
    unknown = np.ones((HEIGHT, WIDTH))
    unknown[1:, 2:] = mask[0, 0, :-1, :-2, 0] == 0
    np.testing.assert_array_equal(known[0, 0, ..., 0], 1 - unknown)
    np.testing.assert_array_equal(found[0, 0, ..., 0], 1 - unknown)


def test_carrying_can_be_differentiated():
    motion, frames = smooth_motion(0.3)[None], np.cos(X / 3)[None, None, ..., None]

    def carried(frames, motion):
        return carry(frames, jnp.ones(frames.shape), trajectories(motion, 2)[:, 1:])[0]

    # Away from whole positions, where the gradient by the motion jumps.
    check_grads(
        carried, (jnp.asarray(frames), jnp.asarray(motion)), 1, ["rev"],
        atol=2e-2, rtol=2e-2,
    )  # fmt: skip


@pytest.mark.parametrize("motion", [(1.3, -0.6), (-0.4, 0.0), (2.2, 1.7)])
def test_a_motion_that_is_known_is_found(motion):
    frames = cells(motion, 4)
    found = np.asarray(found_motion(frames, np.ones_like(frames)))[0, 10:-10, 10:-10]
    np.testing.assert_allclose(np.median(found, (0, 1)), motion, atol=0.05)
    assert np.abs(found - np.array(motion)).mean() < 0.15


def test_each_place_has_its_own_motion():
    size = 64
    frames = cells((1.0, 0.0), 4, size)
    frames[:, :, size // 2 :] = cells((-1.0, 0.0), 4, size)[:, :, size // 2 :]
    found = found_motion(frames, np.ones_like(frames))[0, ..., 0]
    # All pixels together move nowhere.
    assert 0.6 < np.median(found[8:20]) < 1.1
    assert -1.1 < np.median(found[-20:-8]) < -0.6


def test_what_has_no_data_moves_nothing():
    frames, mask = cells((1.3, -0.6), 4), np.ones((1, 4, 48, 48, 1), np.float32)
    mask[:, :, :, 30:] = 0
    expected = found_motion(frames * mask, mask)
    wrong = np.where(mask > 0, frames, np.random.default_rng(1).random(frames.shape))
    np.testing.assert_array_equal(
        found_motion(wrong.astype(np.float32), mask), expected
    )
    np.testing.assert_allclose(
        np.median(expected[0, 8:-8, 8:24], (0, 1)), (1.3, -0.6), atol=0.1
    )


@pytest.mark.parametrize("num_frames", [1, 2, 6])
def test_any_number_of_frames(num_frames):
    frames = cells((1.0, 0.5), num_frames)
    found = found_motion(frames, np.ones_like(frames))[0, 10:-10, 10:-10]
    expected = (1.0, 0.5) if num_frames > 1 else (0, 0)
    np.testing.assert_allclose(np.median(found, (0, 1)), expected, atol=0.1)


def test_without_anything_in_sight_nothing_moves():
    dry = np.zeros((1, 3, 16, 18, 1), np.float32)
    assert not found_motion(dry, np.ones_like(dry)).any()
    assert not found_motion(dry, dry).any()


def test_in_the_moving_frame_rain_stands_still():
    frames = cells((1.5, -1.0), 4)
    mask = np.ones_like(frames)
    motion = jnp.broadcast_to(jnp.array([1.5, -1.0]), (1, 48, 48, 2))
    still, known = to_last_time(frames, mask, motion)
    np.testing.assert_array_equal(still[:, -1], frames[:, -1])
    apart = np.abs(still - frames[:, -1:]) * np.asarray(known)
    assert apart.max() < 0.08 < 0.3 < np.abs(frames[:, 0] - frames[:, -1]).max()
    inner, _ = to_last_time(frames, mask, motion, margin=4)
    np.testing.assert_allclose(inner, still[:, :, 4:-4, 4:-4], atol=1e-6)


def test_gaussians_against_numpy():
    frame = np.random.default_rng(0).random((1, 1, HEIGHT, WIDTH, 1))
    found = gaussian(jnp.asarray(frame), 2.0)[0, 0, ..., 0]
    for y, x in ((10, 12), (0, 3)):
        weight = np.exp(-((Y - y) ** 2 + (X - x) ** 2) / 8) / (8 * np.pi)
        expected = (weight * frame[0, 0, ..., 0]).sum()
        assert found[y, x] == pytest.approx(expected, rel=1e-5)


def test_bands_add_up_to_the_frame():
    rng = np.random.default_rng(0)
    frame = rng.random((1, HEIGHT, WIDTH, 1)).astype(np.float32)
    mask = np.ones_like(frame)
    mask[:, 5:9, 5:9] = 0
    known = frame * mask
    blurred, weight = (gaussian(x[:, None], 1.0)[:, 0] for x in (known, mask))
    smooth = blurred / weight
    found = bands(jnp.asarray(known), jnp.asarray(mask), (1.0,))
    np.testing.assert_allclose(found + smooth, known, atol=1e-6)
    constant = bands(mask * 0.3, jnp.asarray(mask), (1.0, 3.0)) * mask
    np.testing.assert_allclose(constant, 0, atol=1e-6)


def test_how_bands_correlate_against_numpy():
    rng = np.random.default_rng(0)
    frames = rng.random((2, 3, 12, 16, 1)).astype(np.float32)
    frames[0, -1] = frames[0, -2]
    mask = np.ones_like(frames)
    mask[:, -1, :3] = 0
    parts = [with_rest(frames[:, i], mask[:, i], (0.8, 2.0)) for i in (-2, -1)]
    both = mask[:, -1] * mask[:, -2]
    found = band_correlations(*parts, jnp.asarray(both))
    before, now = (both[1:] * np.asarray(of[1:]) for of in parts)
    expected = (before * now).sum((0, 1, 2)) / np.sqrt(
        (before**2).sum((0, 1, 2)) * (now**2).sum((0, 1, 2))
    )
    np.testing.assert_allclose(found[1], np.clip(expected, 0, 0.99), rtol=1e-5)
    assert (np.asarray(found[0]) > 0.9).all() and found[1, 0] < 0.3
    assert not band_correlations(0 * parts[0], 0 * parts[1], both).any()
    assert not band_correlations(*parts, 0 * both).any()


def test_noise_has_the_spread_and_memory_of_an_autoregression():
    correlations = np.array([0.0, 0.5, 0.9], np.float32)
    noise = band_noise(
        jax.random.key(0), (6, 150, 200), jnp.asarray(correlations), (0.8, 2.0)
    )
    assert noise.shape == (6, 150, 200, 3)
    inside = np.asarray(noise)[:, 8:-8, 8:-8]  # Beyond the edge is none.
    steps = np.arange(1, 7)[:, None]
    expected = np.sqrt(1 - correlations ** (2 * steps))
    tolerance = np.array([0.02, 0.03, 0.15])  # Wide structures are few.
    assert (np.abs(inside.std((1, 2)) / expected - 1) < tolerance).all()
    # What follows is what was, times the correlation, and new noise.
    after = (inside[3] * inside[2]).mean((0, 1)) / (inside[2] ** 2).mean((0, 1))
    np.testing.assert_allclose(after, correlations, atol=0.08)
    # The first band is the finest.
    neighbours = (inside[-1, 1:] * inside[-1, :-1]).mean((0, 1)) / (
        inside[-1] ** 2
    ).mean((0, 1))
    assert neighbours[0] < 0.1 < 0.4 < neighbours[1] < 0.9 < neighbours[2]


def test_wide_noise_is_alike_nearby():
    noise = np.asarray(wide_noise(jax.random.key(0), (40, 60, 70, 2), 5.0))
    inside = noise[:, 15:-15, 15:-15]  # Beyond the edge is none.
    assert noise.shape == (40, 60, 70, 2) and abs(inside.std() - 1) < 0.05
    for away in (1, 5, 10):
        alike = (inside[:, away:] * inside[:, :-away]).mean()
        assert alike == pytest.approx(np.exp(-((away / 10) ** 2)), abs=0.1)
    assert abs((inside[..., 0] * inside[..., 1]).mean()) < 0.1


def test_what_is_missing_is_the_weighted_mean_of_what_is_nearby():
    rng = np.random.default_rng(0)
    frame, known = rng.random((HEIGHT, WIDTH)), rng.random((HEIGHT, WIDTH)) < 0.6
    known[:9, :8] = False
    parts = (x[None, None, ..., None].astype(np.float32) for x in (frame, known))
    found = filled(*map(jnp.asarray, parts))
    expected = frame.copy()
    for y, x in np.argwhere(~known):
        square = (Y - y) ** 2 + (X - x) ** 2
        weights = sum(
            share * np.exp(-square / (2 * deviation**2)) / deviation**2
            for deviation, share in ((2, 1), (6, 0.1), (18, 0.01))
        )
        expected[y, x] = (weights * frame)[known].sum() / weights[known].sum()
    np.testing.assert_allclose(found[0, 0, ..., 0], expected, rtol=1e-4)
    nothing = filled(jnp.ones((1, 1, 4, 4, 1)), jnp.zeros((1, 1, 4, 4, 1)))
    assert not nothing.any()


def test_positions_beyond_the_edge_are_those_at_it():
    positions = jnp.asarray([[[[-3.0, 2.5], [4.0, 99.0]]]])
    found = within(positions, jnp.zeros((1, HEIGHT, WIDTH, 1)))
    np.testing.assert_array_equal(found[0, 0], [[0, 2.5], [4, HEIGHT - 1]])
