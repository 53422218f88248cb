import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from convlstm_jax.metrics import ssim as module
from convlstm_jax.metrics.ssim import SCALE_WEIGHTS, scale_weights, ssim, ssim_openstl


def scikit_image_ssim(prediction, target, clip_range=None, **options):
    """`[B, T]` by scikit-image in float64, a frame at a time, as OpenSTL calls it."""
    prediction, target = np.float64(prediction), np.float64(target)
    if clip_range is not None:
        prediction = np.maximum(prediction, clip_range[0])
        prediction = np.minimum(prediction, clip_range[1])
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
OPENSTL = {"data_range": 2, "clip_range": (0, 1)}
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
        "beyond 0 and 1": (digits + 30 * (noise - 0.005), digits),
        "black": (np.zeros(shape), digits),
        "bright": (0.9 + weak[0], 0.7 + weak[1]),
        "constant": (np.full(shape, 0.93), np.full(shape, 0.71)),
    }


@pytest.mark.parametrize(("metric", "options"), CONVENTIONS)
def test_agrees_with_scikit_image(metric, options):
    pairs = clip_pairs()
    prediction, target = (
        np.float32(np.concatenate(clips)) for clips in zip(*pairs.values(), strict=True)
    )
    expected = scikit_image_ssim(prediction, target, **options)
    for x64, dtype, error in ((False, jnp.float32, 1e-6), (True, jnp.float64, 1e-12)):
        with jax.enable_x64(x64):
            clips = (jnp.asarray(clip, dtype) for clip in (prediction, target))
            found = jax.jit(metric)(*clips)
            assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize(("metric", "options"), CONVENTIONS)
def test_any_height_width_and_channels(metric, options):
    generator = np.random.default_rng(1)
    target = np.float32(generator.random((1, 2, 23, 12, 3)))
    prediction = np.clip(target + np.float32(0.1) * target[::-1, ::-1], 0, 1)
    expected = scikit_image_ssim(prediction, target, **options)
    found = metric(jnp.asarray(prediction), jnp.asarray(target))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", [ssim, ssim_openstl])
def test_identical_frames_give_exactly_one(metric):
    clip = jnp.float32(digits_on_black(np.random.default_rng(2), (1, 2, 64, 64, 1)))
    np.testing.assert_array_equal(metric(clip, clip), np.ones((1, 2)))


def test_frames_smaller_than_the_window():
    clip = jnp.ones((1, 1, 10, 20, 1))
    with pytest.raises(ValueError, match=r"10×20 pixels.*at least 11"):
        ssim(clip, clip)
    with pytest.raises(ValueError, match=r"20×6 pixels.*at least 7"):
        ssim_openstl(clip.swapaxes(2, 3)[:, :, :, :6], clip.swapaxes(2, 3)[:, :, :, :6])


# Compiling is what these tests take their time for.
ms_ssim = jax.jit(
    module.ms_ssim, compiler_options={"xla_backend_optimization_level": 0}
)


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


def test_values_of_another_implementation():
    """pytorch-msssim 1.0.0 in float64, `ms_ssim(x, y, data_range=1)`, same pictures.

    Channels are averaged.
    """
    rows, columns = np.mgrid[:176, :192] / 40.0
    target = 0.5 + 0.5 * np.sin(3 * rows) * np.cos(2 * columns + rows)
    other = 0.5 + 0.3 * np.sin(3.1 * rows) * np.cos(2.1 * columns + rows)
    pairs = ((target**2,), 0.909449707), ((other,), 0.825189648)
    both = (target**2, other), (0.909449707 + 0.825189648) / 2
    for predictions, expected in (*pairs, both):
        x = jnp.float32(np.stack(predictions, axis=-1))[None, None]
        y = jnp.float32(np.stack([target] * len(predictions), axis=-1))[None, None]
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
