import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from convlstm_jax.metrics.ssim import ssim, ssim_openstl


def scikit_image_ssim(prediction, target, **options):
    """`[B, T]` by scikit-image in float64, a frame at a time."""
    prediction, target = np.float64(prediction), np.float64(target)
    return np.asarray(
        [
            [
                structural_similarity(x, y, channel_axis=-1, **options)
                for x, y in zip(clip_x, clip_y, strict=True)
            ]
            for clip_x, clip_y in zip(prediction, target, strict=True)
        ]
    )


WANG = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 1,
}
OPENSTL = {"data_range": 2}
CONVENTIONS = [
    pytest.param(ssim, WANG, id="wang"),
    pytest.param(ssim_openstl, OPENSTL, id="openstl"),
]


def digits_on_black(generator, shape=(2, 3, 64, 64, 1)):
    """Smooth bright blots on exact zeros, of 256 grey values."""
    clips = np.zeros(shape)
    for clip in clips.reshape(-1, *shape[2:4]):
        for _ in range(2):
            top, left = generator.integers(0, 64 - 28, 2)
            ink = gaussian_filter((generator.random((28, 28)) > 0.8) * 2.5, 1.2)
            clip[top : top + 28, left : left + 28] += ink
    return np.round(np.clip(clips, 0, 1) * 255) / 255


def clip_pairs():
    """The kinds of frames whose numerics differ, 2 clips of 3 frames of each."""
    generator = np.random.default_rng(1)
    shape = (2, 3, 64, 64, 1)
    digits = digits_on_black(generator)
    blurred = gaussian_filter(digits, (0, 0, 1, 1, 0))
    noise = 0.01 * generator.random(shape)
    weak = 1e-3 * generator.random((2, *shape))
    return {
        "random": (generator.random(shape), generator.random(shape)),
        "digits": (np.clip(blurred + noise, 0, 1), digits),
        "black": (np.zeros(shape), digits),
        "bright": (0.9 + weak[0], 0.7 + weak[1]),
        "constant": (np.full(shape, 0.93), np.full(shape, 0.71)),
    }


@pytest.mark.parametrize(("metric", "options"), CONVENTIONS)
def test_agrees_with_scikit_image(metric, options):
    pairs = {
        name: (np.float32(x), np.float32(y)) for name, (x, y) in clip_pairs().items()
    }
    single = jax.jit(metric)
    for name, (prediction, target) in pairs.items():
        expected = scikit_image_ssim(prediction, target, **options)
        found = single(jnp.asarray(prediction), jnp.asarray(target))
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=name)
    with jax.enable_x64(True):
        double = jax.jit(metric)
        for name, (prediction, target) in pairs.items():
            expected = scikit_image_ssim(prediction, target, **options)
            found = double(
                jnp.asarray(prediction, jnp.float64), jnp.asarray(target, jnp.float64)
            )
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize(("metric", "options"), CONVENTIONS)
@pytest.mark.parametrize("shape", [(11, 30, 1), (23, 12, 3), (11, 11, 4)])
def test_any_height_width_and_channels(metric, options, shape):
    generator = np.random.default_rng(sum(shape))
    target = generator.random((1, 2, *shape))
    prediction = np.clip(target + 0.1 * generator.normal(size=target.shape), 0, 1)
    prediction, target = np.float32(prediction), np.float32(target)
    expected = scikit_image_ssim(prediction, target, **options)
    found = metric(jnp.asarray(prediction), jnp.asarray(target))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_openstl_form_is_scikit_image_on_transposed_frames():
    generator = np.random.default_rng(5)
    prediction = np.float32(generator.random((1, 2, 9, 14, 3)))
    target = np.float32(generator.random((1, 2, 9, 14, 3)))
    # OpenSTL hands frames over as W, H, C.
    expected = scikit_image_ssim(
        prediction.swapaxes(2, 3), target.swapaxes(2, 3), **OPENSTL
    )
    found = ssim_openstl(jnp.asarray(prediction), jnp.asarray(target))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", [ssim, ssim_openstl])
def test_identical_frames_give_exactly_one(metric):
    clip = jnp.asarray(digits_on_black(np.random.default_rng(2)), jnp.float32)
    np.testing.assert_array_equal(metric(clip, clip), np.ones((2, 3)))


def test_hand_computed_constant_frames():
    # Without variance only the luminance factor is left.
    prediction = jnp.full((1, 1, 11, 11, 1), 0.5)
    target = jnp.full((1, 1, 11, 11, 1), 0.25)
    wang = (2 * 0.5 * 0.25 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    openstl = (2 * 0.5 * 0.25 + 4e-4) / (0.25 + 0.0625 + 4e-4)
    np.testing.assert_allclose(ssim(prediction, target), [[wang]], rtol=1e-6)
    np.testing.assert_allclose(ssim_openstl(prediction, target), [[openstl]], rtol=1e-6)


def test_frames_smaller_than_the_window():
    clip = jnp.ones((1, 1, 10, 20, 1))
    with pytest.raises(ValueError, match=r"10×20 pixels.*at least 11"):
        ssim(clip, clip)
    with pytest.raises(ValueError, match=r"20×6 pixels.*at least 7"):
        ssim_openstl(clip.swapaxes(2, 3)[:, :, :, :6], clip.swapaxes(2, 3)[:, :, :, :6])
