import numpy as np
import pytest
from PIL import Image

from convlstm_jax.viz.space_time_correlation import (
    draw_space_time_correlation,
    space_time_correlation,
)


def oracle(clips, axis):
    """The mean over all pairs, written out."""
    values = clips - clips.mean()
    length, size = clips.shape[1], clips.shape[axis]
    half = size // 2
    result = np.empty((length // 2 + 1, 2 * half + 1))
    for lag in range(length // 2 + 1):
        for column, shift in enumerate(range(-half, half + 1)):
            earlier = values[:, : length - lag]
            later = values[:, lag:]
            here = np.arange(max(0, -shift), min(size, size - shift))
            pairs = np.take(earlier, here, axis) * np.take(later, here + shift, axis)
            result[lag, column] = pairs.mean() / np.square(values).mean()
    return result


@pytest.mark.parametrize("shape", [(2, 5, 6, 7, 2), (1, 4, 3, 8, 1), (1, 1, 2, 3, 1)])
@pytest.mark.parametrize("axis", [2, 3])
def test_is_the_mean_over_all_pairs(shape, axis):
    clips = np.random.default_rng(5).random(shape).astype(np.float32)
    found = space_time_correlation(clips, axis)
    np.testing.assert_allclose(found, oracle(np.float64(clips), axis), atol=1e-12)
    assert found[0, shape[axis] // 2] == pytest.approx(1)


def test_what_moves_leaves_a_ridge_along_its_axis():
    start = np.random.default_rng(1).random((2, 1, 40, 40, 1))
    film = np.concatenate([np.roll(start, 3 * t, axis=3) for t in range(6)], axis=1)
    along = space_time_correlation(film, 3)
    assert [int(row.argmax()) - 20 for row in along] == [0, 3, 6, 9]
    assert (along.max(axis=1) > 0.8).all()
    across = space_time_correlation(film, 2)
    assert across[1:].max() < 0.2


def test_a_film_without_contrast_has_none():
    assert np.isnan(space_time_correlation(np.ones((1, 4, 3, 3, 1)), 2)).all()


def test_the_picture(tmp_path):
    generator = np.random.default_rng(2)
    film = generator.random((2, 4, 16, 20, 1))
    films = {"truth": film, "prediction": np.zeros_like(film)}
    draw_space_time_correlation(tmp_path / "a.png", films)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 500
    # The left half has the red peaks, the right one nothing to draw.
    red = (pixels[..., 0] > 80) & (pixels[..., 1] < 40) & (pixels[..., 2] < 60)
    middle = pixels.shape[1] * 45 // 100
    assert red[:, :middle].sum() > 50
    assert red[:, middle : middle * 2 - 40].sum() == 0
