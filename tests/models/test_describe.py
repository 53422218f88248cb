import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from convlstm_jax.models.describe import multiply_adds, parameter_table
from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
)


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def describe(model, inputs, num_frames):
    init = functools.partial(model.init, num_frames=num_frames)
    variables = jax.eval_shape(init, jax.random.key(0), inputs)
    apply = functools.partial(model.apply, num_frames=num_frames)
    return variables["params"], multiply_adds(apply, variables, inputs)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_multiply_adds_of_an_encoder_forecaster_by_hand(implementation):
    model = EncoderForecaster((3, 2), 3, 5, 2, implementation=implementation)
    _, found = describe(model, array(2, 4, 6, 8, 1), 5)
    # Per patch: kernel area × channels read × 4 gates × features.
    encoder = (9 * 4 * 12 + 25 * 3 * 12) + (9 * 3 * 8 + 25 * 2 * 8)
    forecaster = 25 * 3 * 12 + (9 * 3 * 8 + 25 * 2 * 8)
    output = (3 + 2) * 4
    clips, patches = 2, 3 * 4
    expected = clips * patches * (4 * encoder + 5 * (forecaster + output))
    assert found == expected == 371_328


def test_multiply_adds_of_single_operations():
    product = functools.partial(jnp.einsum, "bij,bjk->bik")
    assert multiply_adds(product, array(2, 3, 4), array(2, 4, 5)) == 2 * 3 * 4 * 5
    grouped = functools.partial(
        lax.conv_general_dilated,
        window_strides=(2, 2),
        padding="SAME",
        feature_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    found = multiply_adds(grouped, array(1, 8, 6, 4), array(3, 3, 2, 10))
    assert found == (4 * 3) * (3 * 3 * 2) * 10


def test_parameter_table():
    model = EncoderForecaster((3,), 3, 1, 2, peephole="location")
    params, _ = describe(model, array(1, 2, 4, 6, 1), 1)
    table = parameter_table(params)
    assert table == [
        ("encoder_0/bias", (12,), 12),
        ("encoder_0/input_kernel", (3, 3, 4, 12), 432),
        ("encoder_0/peephole", (3, 2, 3, 3), 54),
        ("encoder_0/recurrent_kernel", (1, 1, 3, 12), 36),
        ("forecaster_0/bias", (12,), 12),
        ("forecaster_0/peephole", (3, 2, 3, 3), 54),
        ("forecaster_0/recurrent_kernel", (1, 1, 3, 12), 36),
        ("output/bias", (4,), 4),
        ("output/kernel", (3, 4), 12),
    ]
