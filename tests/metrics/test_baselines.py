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
def test_clips_get_the_extrapolation_beside_their_frames():
    frames = (255 * moving_rain(7)).astype(np.uint8)[..., None]
    clips = [{"frames": frames, "mask": np.ones_like(frames)}]
    source = baselines.WithOpticalFlow(clips, 4, 3, SCALE)
    assert len(source) == 1
    clip = source[0]
    assert clip["optical_flow"].shape == (3, 64, 64, 1)
    np.testing.assert_array_equal(clip["frames"], frames)
