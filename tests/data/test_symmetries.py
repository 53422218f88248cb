import numpy as np
import pytest

from convlstm_jax.data.symmetries import turned_and_mirrored


@pytest.mark.parametrize(("width", "ways"), [(4, 8), (5, 4)])
def test_all_symmetries_come_up_and_change_all_frames_and_masks_alike(width, ways):
    frames = np.random.default_rng(0).integers(0, 255, (2, 4, width, 1), np.uint8)
    clip = {"frames": frames, "mask": frames // 2, "condition": np.int32(3)}
    seen = set()
    for seed in range(60):
        other = turned_and_mirrored(clip, np.random.default_rng(seed))
        assert other["condition"] == 3
        np.testing.assert_array_equal(other["mask"], other["frames"] // 2)
        assert sorted(other["frames"][1].ravel()) == sorted(frames[1].ravel())
        assert other["frames"].shape == frames.shape
        seen.add(other["frames"].tobytes())
    assert len(seen) == ways
    assert frames.tobytes() in seen
