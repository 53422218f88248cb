from functools import partial

import numpy as np
import pytest

from convlstm_jax.metrics import baselines
from convlstm_jax.rain import RainScale

SCALE = RainScale()

needs_pysteps = pytest.mark.skipif(
    bool(baselines.missing_packages()),
    reason=f"{' and '.join(baselines.missing_packages())} missing: "
    "requirements-radar.txt",
)


def moving_rain(num_frames, size=64):
    """Cells that move one row down and two columns right a frame."""
    y, x = np.mgrid[:size, :size]
    rng = np.random.default_rng(0)
    centres = rng.uniform(-30, size, (40, 2))
    frames = []
    for t in range(num_frames):
        away = [
            (y - cy - t) ** 2 + (x - cx - 2 * t) ** 2 for cy, cx in centres
        ]  # fmt: skip
        frames.append(sum(np.exp(-d / 18) for d in away))
    return np.clip(np.stack(frames), 0, 1).astype(np.float32)


def test_the_packages_that_are_missing_are_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert baselines.missing_packages() == ["pysteps", "opencv-python-headless"]


@needs_pysteps
def test_moving_rain_is_carried_on():
    frames = moving_rain(9)
    carried = baselines.extrapolate(frames[:4], np.ones_like(frames[:4]), 5, SCALE)
    assert carried.shape == (5, 64, 64) and carried.dtype == np.float32
    inner = (slice(None), slice(16, -8), slice(20, -8))
    error = np.square(carried - frames[4:])[inner].mean()
    persistence = np.square(frames[3:4] - frames[4:])[inner].mean()
    assert error < 0.1 * persistence


@needs_pysteps
def test_without_rain_nothing_is_carried_anywhere():
    none = np.zeros((4, 32, 32), np.float32)
    assert not baselines.extrapolate(none, np.ones_like(none), 3, SCALE).any()


@needs_pysteps
def test_rain_rates_are_carried_as_pysteps_does_it():
    from pysteps import extrapolation, motion

    frames, mask = moving_rain(4), np.ones((4, 64, 64))
    mask[:, :10, :10] = 0
    found = baselines.extrapolate(frames, mask, 3, SCALE)
    tracked = np.ma.masked_array(SCALE.dbz(frames.astype(float)), mask == 0)
    flow = motion.get_method("LK")(tracked, verbose=False)
    rain = SCALE.rain_mm_per_h(np.where(mask > 0, frames, 0).astype(float))[-1]
    move = extrapolation.get_method("semilagrangian")
    expected = np.nan_to_num(move(rain, flow, 3, outval=0.0))
    rain = SCALE.rain_mm_per_h(found)
    strong = expected > 1.001 * SCALE.rain_mm_per_h(np.float64(1e-9))
    assert strong.sum() > 1000 and rain[~strong].max() < 0.04
    np.testing.assert_allclose(rain[strong], expected[strong], rtol=1e-4)


@needs_pysteps
@pytest.mark.parametrize("count", [2, 4])
def test_s_prog_moves_rain_and_lets_it_fade(count):
    frames = moving_rain(count + 5)
    mask = np.ones_like(frames[:count])
    found = baselines.s_prog(frames[:count], mask, 5, SCALE)
    assert found.shape == (5, 64, 64) and found.dtype == np.float32
    inner = (slice(None), slice(16, -8), slice(20, -8))
    error = np.square(found - frames[count:])[inner].mean()
    persistence = np.square(frames[count - 1 : count] - frames[count:])[inner].mean()
    assert error < 0.3 * persistence
    none = np.zeros_like(frames[:count])
    assert not baselines.s_prog(none, mask, 3, SCALE).any()
    drop = none.copy()
    drop[:, 30, 30] = 0.5  # Of so little rain pysteps has no S-PROG.
    expected = baselines.extrapolate(drop, mask, 3, SCALE)
    np.testing.assert_array_equal(baselines.s_prog(drop, mask, 3, SCALE), expected)


@needs_pysteps
def test_clips_get_the_extrapolation_beside_their_frames():
    frames = (255 * moving_rain(7)).astype(np.uint8)[..., None]
    clips = [{"frames": frames, "mask": np.ones_like(frames)}]
    source = baselines.WithOpticalFlow(clips, 4, 3, SCALE)
    assert len(source) == 1
    clip = source[0]
    assert clip["optical_flow"].shape == (3, 64, 64, 1)
    steps = partial(baselines.steps, num_members=2)
    source = baselines.WithOpticalFlow(clips, 4, 3, SCALE, {baselines.STEPS: steps})
    assert source[0]["steps"].shape == (3, 64, 64, 2)
    np.testing.assert_array_equal(clip["frames"], frames)


@needs_pysteps
def test_steps_is_that_of_pysteps_with_members_last():
    from pysteps import motion, nowcasts
    from pysteps.utils import transformation

    frames = moving_rain(4)
    mask = np.ones_like(frames)
    mask[:, :10, :10] = 0
    places = {"km_per_pixel": 2.0, "minutes_per_frame": 10.0}
    found = baselines.steps(frames, mask, 3, SCALE, num_members=2, seed=7, **places)
    assert found.shape == (3, 64, 64, 2) and found.dtype == np.float32
    tracked = np.ma.masked_array(SCALE.dbz(frames.astype(float)), mask == 0)
    rain = SCALE.rain_mm_per_h(np.where(mask > 0, frames, 0).astype(float))
    db, _ = transformation.dB_transform(rain[-3:], threshold=0.1, zerovalue=-15.0)
    members = nowcasts.get_method("steps")(
        db, motion.get_method("LK")(tracked, verbose=False), 3, n_ens_members=2,
        n_cascade_levels=5, ar_order=2, precip_thr=-10.0, kmperpixel=2.0, timestep=10.0,
        noise_method="nonparametric", vel_pert_method="bps", mask_method="incremental",
        probmatching_method="cdf", seed=7,
    )  # fmt: skip
    rates, _ = transformation.dB_transform(members, threshold=-10.0, inverse=True)
    expected = np.moveaxis(SCALE.pixels_of_rain(np.nan_to_num(rates)), 0, -1)
    assert (expected > 0).mean() > 0.2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found[..., 0] - found[..., 1]).max() > 0.1


@needs_pysteps
def test_where_steps_fails_all_members_are_the_extrapolation(caplog):
    drop = np.zeros((4, 64, 64), np.float32)
    mask = np.ones_like(drop)
    found = baselines.steps(drop, mask, 3, SCALE, num_members=2)
    assert found.shape == (3, 64, 64, 2) and not found.any()
    drop[:, 30, 30] = 0.5
    with caplog.at_level("INFO"):
        found = baselines.steps(drop, mask, 3, SCALE, num_members=2)
    expected = baselines.extrapolate(drop, mask, 3, SCALE)
    for member in (0, 1):
        np.testing.assert_array_equal(found[..., member], expected)
    assert "steps fails" in caplog.text
