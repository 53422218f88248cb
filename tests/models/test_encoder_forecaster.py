import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models import MODELS
from convlstm_jax.models.describe import parameter_table
from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
    FCLSTMEncoderForecaster,
)

TINY = {
    "encoder_forecaster": {
        "features": (3, 2),
        "input_kernel_size": 3,
        "recurrent_kernel_size": 5,
        "patch_size": 3,
    },
    "fc_lstm": {"features": (4, 3)},
}
SHAPE = (2, 3, 6, 9, 3)

fast_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def random_variables(model, inputs):
    shapes = jax.eval_shape(functools.partial(model.init, num_frames=1), key(), inputs)
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), leaf.dtype),
        shapes,
    )


def key():
    return jax.random.key(0)


def frames(shape=SHAPE):
    return jnp.asarray(np.random.default_rng(1).random(shape), jnp.float32)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (FCLSTMEncoderForecaster((2048, 2048)), 142_667_776),
        (EncoderForecaster((256,), 5, 5), 13_524_496),
        (EncoderForecaster((128, 128), 5, 5), 10_042_896),
        (EncoderForecaster((128, 64, 64), 5, 5), 7_585_296),
        (EncoderForecaster((128, 128), 9, 1), 11_550_224),
        (EncoderForecaster((128, 64, 64), 9, 1), 8_830_480),
    ],
    ids=lambda value: f"{value:,}" if isinstance(value, int) else "",
)
def test_parameters_are_those_of_the_papers_table_1(model, parameters):
    inputs = jax.ShapeDtypeStruct((1, 10, 64, 64, 1), jnp.float32)
    init = functools.partial(model.init, num_frames=10)
    shapes = jax.eval_shape(init, key(), inputs)
    assert sum(count for _, _, count in parameter_table(shapes)) == parameters


@pytest.mark.parametrize("name", TINY)
def test_a_longer_forecast_starts_as_the_shorter_one(name):
    """Any number of frames, whatever the parameters were made for; H ≠ W, C = 3."""
    model, inputs = MODELS[name].network(**TINY[name]), frames()
    variables = random_variables(model, inputs)
    run = fast_jit(model.apply, static_argnums=2)
    shorter, longer = (run(variables, inputs, steps) for steps in (2, 5))
    assert shorter.shape == (2, 2, 6, 9, 3)
    assert longer.shape == (2, 5, 6, 9, 3)
    assert shorter.dtype == longer.dtype == jnp.float32
    np.testing.assert_allclose(longer[:, :2], shorter, rtol=1e-5, atol=1e-6)
    # It does forecast: every frame another, from all that was given.
    assert np.abs(np.diff(longer, axis=1)).max((0, 2, 3, 4)).min() > 1e-4
    other = run(variables, inputs.at[:, 0, 0, 0].add(1), 2)
    assert np.abs(other - shorter).max() > 1e-4


@pytest.mark.parametrize("name", TINY)
def test_implementations_and_precisions_agree(name):
    """All ways to run to 1e-5; bfloat16 within 0.05 of a logit."""
    inputs = frames()
    models = [
        MODELS[name].network(**TINY[name]),
        MODELS[name].network(**TINY[name], implementation="scan"),
        MODELS[name].network(**TINY[name], memory="checkpoint"),
        MODELS[name].network(**TINY[name], dtype=jnp.bfloat16),
    ]
    variables = random_variables(models[0], inputs)
    run = fast_jit(lambda: [model.apply(variables, inputs, 2) for model in models])
    fused, scanned, checkpointed, half = run()
    np.testing.assert_allclose(fused, scanned, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fused, checkpointed, rtol=1e-5, atol=1e-5)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, fused, rtol=0, atol=0.05)
    assert np.abs(half - fused).max() > 1e-4
    assert jax.tree.leaves(random_variables(models[-1], inputs))[0].dtype == jnp.float32


@pytest.mark.parametrize("name", TINY)
def test_what_an_untrained_model_gives_is_about_its_first_logit(name):
    for fields, logit in (({}, -3), ({"first_logit": 1.5}, 1.5)):
        model = MODELS[name].network(**TINY[name], **fields)
        init, apply = (
            fast_jit(function, static_argnames="num_frames")
            for function in (model.init, model.apply)
        )
        variables = init(key(), frames(), num_frames=1)
        logits = apply(variables, frames(), num_frames=1)
        assert abs(logits.mean() - logit) < 0.3


@pytest.mark.parametrize("model", [EncoderForecaster, FCLSTMEncoderForecaster])
@pytest.mark.usefixtures("unchecked_types")
def test_inputs_of_another_rank(model):
    with pytest.raises(
        ValueError, match=r"\(2, 3, 4, 4\): it must be \[B, T, H, W, C\]"
    ):
        model(features=(2,)).init(jax.random.key(0), jnp.zeros((2, 3, 4, 4)), 1)
