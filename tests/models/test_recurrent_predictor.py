import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models.describe import parameter_table
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor
from tests.trees import fast_jit, random_like

MODEL = RecurrentPredictor((3, 2), 3, 5, patch_size=2)
FRAME_SHAPE = (4, 6, 1)


def parameter_shapes(model, frame_shape):
    frames = jnp.zeros((1, 1, *frame_shape))
    teacher_forcing = jnp.ones((1, 1), bool)
    return jax.eval_shape(model.init, jax.random.key(0), frames, teacher_forcing)


def parameters(model=MODEL):
    return random_like(parameter_shapes(model, FRAME_SHAPE), 0.5, seed=1)


def clips(num_frames=4):
    generator = np.random.default_rng(2)
    return np.float32(generator.uniform(size=(2, num_frames, *FRAME_SHAPE)))


def test_parameter_table_with_layer_norm():
    model = RecurrentPredictor((3,), 3, 5, patch_size=2, layer_norm=True)
    table = parameter_table(parameter_shapes(model, FRAME_SHAPE)["params"])
    assert table == [
        ("layer_0/input_kernel", (3, 3, 4, 12), 432),
        ("layer_0/input_norm_offset", (2, 3, 12), 72),
        ("layer_0/input_norm_scale", (2, 3, 12), 72),
        ("layer_0/recurrent_kernel", (5, 5, 3, 12), 900),
        ("layer_0/recurrent_norm_offset", (2, 3, 12), 72),
        ("layer_0/recurrent_norm_scale", (2, 3, 12), 72),
        ("output_kernel", (1, 1, 3, 4), 12),
    ]


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_forecast_is_the_model_run_again_on_the_growing_clip(layer_norm):
    """State that is carried gives what reading everything again would give."""
    model = RecurrentPredictor((3, 2), 3, 5, patch_size=2, layer_norm=layer_norm)
    variables, inputs = parameters(model), clips(3)

    @fast_jit
    def naive(clip):
        for _ in range(4):
            mask = jnp.ones(clip.shape[:2], bool)
            next_frame = model.apply(variables, clip, mask)[:, -1:]
            clip = jnp.concatenate([clip, next_frame], axis=1)
        return clip[:, 3:]

    mask = np.arange(6)[None].repeat(2, 0) < 3
    predictions = fast_jit(model.apply)(variables, inputs, mask)
    assert predictions.shape == (2, 6, *FRAME_SHAPE)
    np.testing.assert_allclose(predictions[:, 2:], naive(inputs), atol=1e-5)


def test_the_forget_offset_is_no_parameter_but_counts():
    variables, inputs = parameters(), clips()
    mask = np.ones((2, 4), bool)
    without = RecurrentPredictor((3, 2), 3, 5, patch_size=2, forget_offset=0.0)
    outputs = [fast_jit(m.apply)(variables, inputs, mask) for m in (MODEL, without)]
    difference = np.abs(outputs[0] - outputs[1]).max((0, 2, 3, 4))
    # The first step has no state to forget.
    assert difference[0] == 0
    assert difference[1:].min() > 1e-3


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_video_or_does_not_fit_is_refused():
    mask = np.ones((2, 4), bool)
    with pytest.raises(ValueError, match=r"frames has shape \(2, 4, 6, 1\)"):
        MODEL.apply(parameters(), clips()[:, 0], mask)
    with pytest.raises(ValueError, match="patch_size is 2: it must divide"):
        MODEL.apply(parameters(), clips()[:, :, :3], mask)
    with pytest.raises(ValueError, match="memory is 'none': it must be one of"):
        MODEL.clone(memory="none").apply(parameters(), clips(), mask)
