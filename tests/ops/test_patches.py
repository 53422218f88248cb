import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.ops.patches import from_patches, to_patches


def test_patches_equal_loops():
    size, video = 3, np.random.default_rng(0).normal(size=(2, 2, 6, 9, 2))
    video = video.astype(np.float32)
    expected = np.zeros((2, 2, 2, 3, size * size * 2), np.float32)
    for row in range(6):
        for column in range(9):
            for channel in range(2):
                place = ((row % size) * size + column % size) * 2 + channel
                expected[:, :, row // size, column // size, place] = video[
                    :, :, row, column, channel
                ]
    patches = to_patches(jnp.asarray(video), size)
    np.testing.assert_array_equal(patches, expected)
    np.testing.assert_array_equal(from_patches(patches, size), video)


def test_patches_of_one_pixel_change_nothing():
    video = jnp.arange(24.0).reshape(1, 2, 3, 4, 1)
    np.testing.assert_array_equal(to_patches(video, 1), video)
    np.testing.assert_array_equal(from_patches(video, 1), video)


@pytest.mark.parametrize("size", [0, -1, 4, 5])
@pytest.mark.usefixtures("unchecked_types")
def test_the_patch_size_divides_the_frame(size):
    video = jnp.zeros((1, 1, 6, 8, 1))
    with pytest.raises(ValueError, match=rf"patch_size is {size}: .* 6×8 pixels"):
        to_patches(video, size)
