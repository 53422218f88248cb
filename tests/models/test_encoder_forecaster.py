import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models import MODELS
from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
    FCLSTMEncoderForecaster,
)
from tests.trees import fast_jit, random_like

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


def random_variables(model, inputs):
    shapes = jax.eval_shape(functools.partial(model.init, num_frames=1), key(), inputs)
    return random_like(shapes, 0.3)


def key():
    return jax.random.key(0)


def frames(shape=SHAPE):
    return jnp.asarray(np.random.default_rng(1).random(shape), jnp.float32)


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
