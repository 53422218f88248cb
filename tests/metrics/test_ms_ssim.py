import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from convlstm_jax.metrics import ssim as module
from convlstm_jax.metrics.ssim import SCALE_WEIGHTS, scale_weights

# Compiling is what these tests take their time for.
ms_ssim = jax.jit(
    module.ms_ssim, compiler_options={"xla_backend_optimization_level": 0}
)


def oracle(x, y, weights):
    """MS-SSIM of two float64 pictures `[H, W]`, with SciPy's filter."""

    def mean(image):
        for axis in (0, 1):
            image = gaussian_filter1d(image, 1.5, axis=axis, radius=5)
        return image[5:-5, 5:-5]

    product = 1.0
    for scale, weight in enumerate(weights):
        mean_x, mean_y = mean(x), mean(y)
        variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
        covariance = mean(x * y) - mean_x * mean_y
        factor = (2 * covariance + 0.03**2) / (variances + 0.03**2)
        if scale == len(weights) - 1:
            squares = mean_x**2 + mean_y**2
            factor *= (2 * mean_x * mean_y + 0.01**2) / (squares + 0.01**2)
        product *= max(0.0, factor.mean()) ** weight
        x, y = (
            np.add.reduce(
                [v[i : v.shape[0] // 2 * 2 : 2, j : v.shape[1] // 2 * 2 : 2] / 4
                 for i in (0, 1) for j in (0, 1)]
            )
            for v in (x, y)
        )  # fmt: skip
    return product


def pictures(shape, seed=0):
    generator = np.random.default_rng(seed)
    target = gaussian_filter(generator.random(shape), (0, 0, 1.5, 1.5, 0))
    target = (target - target.min()) / np.ptp(target)
    noise = (
        0.2
        * generator.normal(size=shape)
        * np.linspace(0.2, 1, shape[1])[None, :, None, None, None]
    )
    return np.float32(np.clip(target + noise, 0, 1)), np.float32(target)


@pytest.mark.parametrize(
    ("height", "width", "channels", "scales"),
    [(22, 31, 1, 2), (47, 64, 2, 3)],
)
def test_agrees_with_the_formula(height, width, channels, scales):
    prediction, target = pictures((1, 2, height, width, channels), seed=height)
    weights = scale_weights(min(height, width))
    assert len(weights) == scales
    x, y = np.float64(prediction), np.float64(target)
    expected = [
        np.mean([oracle(x[0, t, ..., c], y[0, t, ..., c], weights)
                 for c in range(channels)])
        for t in range(2)
    ]  # fmt: skip
    found = ms_ssim(jnp.asarray(prediction), jnp.asarray(target))
    assert expected[0] > expected[1] + 0.01
    np.testing.assert_allclose(found, [expected], rtol=0, atol=2e-6)


def test_values_of_another_implementation():
    """pytorch-msssim 1.0.0 in float64, `ms_ssim(x, y, data_range=1)`, same pictures."""
    rows, columns = np.mgrid[:176, :192] / 40.0
    target = 0.5 + 0.5 * np.sin(3 * rows) * np.cos(2 * columns + rows)
    for prediction, expected in (
        (target**2, 0.909449707),
        (0.5 + 0.3 * np.sin(3.1 * rows) * np.cos(2.1 * columns + rows), 0.825189648),
    ):
        x, y = (jnp.float32(v)[None, None, :, :, None] for v in (prediction, target))
        np.testing.assert_allclose(ms_ssim(x, y), [[expected]], rtol=0, atol=1e-6)


def test_weights_of_the_scales():
    assert scale_weights(176) == scale_weights(1000) == SCALE_WEIGHTS
    for side, scales in ((22, 2), (43, 2), (44, 3), (88, 4), (175, 4)):
        weights = scale_weights(side)
        assert len(weights) == scales
        assert sum(weights) == pytest.approx(sum(SCALE_WEIGHTS))
        assert weights[1] / weights[0] == pytest.approx(0.2856 / 0.0448)


def test_identical_frames_give_exactly_one_and_inverted_ones_nothing():
    _, target = pictures((1, 2, 30, 30, 1))
    target = jnp.asarray(target)
    np.testing.assert_array_equal(ms_ssim(target, target), np.ones((1, 2)))
    np.testing.assert_array_equal(ms_ssim(1 - target, target), np.zeros((1, 2)))


def test_frames_with_room_for_one_scale_alone():
    clip = jnp.ones((1, 1, 40, 21, 1))
    with pytest.raises(ValueError, match=r"has 21 pixels: .* at least 22"):
        ms_ssim(clip, clip)


def test_double_precision():
    prediction, target = pictures((1, 1, 22, 22, 1))
    with jax.enable_x64(True):
        x, y = (jnp.asarray(v, jnp.float64) for v in (prediction, target))
        found = ms_ssim(x, y)
        assert found.dtype == jnp.float64
    expected = oracle(
        np.float64(prediction[0, 0, ..., 0]), np.float64(target[0, 0, ..., 0]),
        scale_weights(22),
    )  # fmt: skip
    np.testing.assert_allclose(found, [[expected]], rtol=0, atol=1e-12)
