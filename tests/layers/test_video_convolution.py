import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.layers.video_convolution import VideoConvolution
from tests.trees import fast_jit

FEATURES = 2
CAUSAL = pytest.mark.parametrize("causal", [True, False])


def normal(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def make(causal, kernel_size=3, num_frames=3):
    """A layer with random distinct weights."""
    kernel = normal(num_frames, *[kernel_size] * 2, 3, FEATURES, seed=1)
    layer = VideoConvolution(FEATURES, kernel_size, num_frames, causal)
    return layer, {"params": {"kernel": kernel, "bias": normal(FEATURES, seed=2)}}


def by_definition(inputs, kernel, bias, causal):
    inputs, kernel, bias = map(np.asarray, (inputs, kernel, bias))
    spans, size = kernel.shape[:2]
    before = spans - 1 if causal else spans // 2
    batch, steps, height, width, _ = inputs.shape
    padding = [(before, spans - 1 - before), *[(size // 2, size // 2)] * 2]
    padded = np.pad(inputs, [(0, 0), *padding, (0, 0)])
    result = np.zeros((batch, steps, height, width, len(bias)))
    for t, y, x in np.ndindex(steps, height, width):
        block = padded[:, t : t + spans, y : y + size, x : x + size]
        result[:, t, y, x] = np.einsum("btyxc,tyxcf->bf", block, kernel) + bias
    return result


@CAUSAL
@pytest.mark.parametrize(
    ("kernel_size", "num_frames"), [(1, 1), (3, 3), (5, 5), (3, 1), (1, 3), (3, 5)]
)
def test_it_is_the_convolution_of_the_definition(causal, kernel_size, num_frames):
    layer, variables = make(causal, kernel_size, num_frames)
    inputs = normal(2, 4, 5, 6, 3)
    expected = by_definition(inputs, **variables["params"], causal=causal)
    found = fast_jit(layer.apply)(variables, inputs)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)


@CAUSAL
def test_the_future_it_sees(causal):
    layer, variables = make(causal)
    inputs = normal(1, 6, 3, 3, 3)
    changed = inputs.at[:, 3].add(1)
    run = fast_jit(layer.apply)
    difference = np.abs(run(variables, inputs) - run(variables, changed))
    seen = difference.max((0, 2, 3, 4)) > 1e-3
    assert seen.tolist() == [False, False, not causal, True, True, causal]


def test_a_causal_one_goes_on_where_it_stopped():
    layer, variables = make(causal=True)
    inputs = normal(2, 5, 4, 3, 3)
    run = fast_jit(layer.apply)
    whole = run(variables, inputs)
    outputs, past = [], None
    for start, stop in ((0, 1), (1, 4), (4, 5)):
        outputs.append(run(variables, inputs[:, start:stop], past))
        past = layer.remember(past, inputs[:, start:stop])
    assert past.shape[1] == layer.num_past_frames == 2
    np.testing.assert_allclose(np.concatenate(outputs, 1), whole, rtol=1e-5, atol=1e-5)


def test_a_centred_one_goes_on_as_if_the_clip_ended_there():
    layer, variables = make(causal=False)
    inputs = normal(2, 5, 4, 3, 3)
    run = fast_jit(layer.apply)
    past = layer.remember(None, inputs[:, :4])
    assert past.shape[1] == layer.num_past_frames == 1
    found = run(variables, inputs[:, 4:], past)
    np.testing.assert_allclose(
        found, run(variables, inputs)[:, 4:], rtol=1e-5, atol=1e-5
    )


def test_bfloat16_stays_near():
    layer, variables = make(causal=True)
    half = VideoConvolution(FEATURES, 3, dtype=jnp.bfloat16)
    inputs = normal(1, 3, 4, 4, 3)
    expected = fast_jit(layer.apply)(variables, inputs)
    found = fast_jit(half.apply)(variables, inputs)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.2)
    assert np.abs(found - expected).max() > 1e-4


@pytest.mark.parametrize("size", [0, 2, -1])
@pytest.mark.usefixtures("unchecked_types")
def test_a_kernel_without_a_middle_is_refused(size):
    with pytest.raises(ValueError, match=f"kernel_size is {size}: it must be an odd"):
        VideoConvolution(1, size)
