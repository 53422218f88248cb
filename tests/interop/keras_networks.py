"""The networks of the two Keras examples, made small, and models that equal them."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from convlstm_jax.models.next_frame import NextFramePredictor

FRAME_SHAPE = (6, 8, 1)


class Network(NamedTuple):
    features: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    num_normalized_layers: int
    activation: str


# https://keras.io/examples/vision/conv_lstm/ and examples/conv_lstm.py of Keras 2.
NEXT_FRAME = Network((4, 3, 2), (5, 3, 1), 2, "relu")
SQUARES = Network((3, 2), (3, 3), 2, "tanh")


def build(keras, network, *, sequential=False):
    """The network in Keras, with random weights and statistics."""
    layers = []
    sizes = zip(network.features, network.kernel_sizes, strict=True)
    for index, (features, size) in enumerate(sizes):
        options = {"padding": "same", "activation": network.activation}
        layers.append(
            keras.layers.ConvLSTM2D(features, size, return_sequences=True, **options)
        )
        if index < network.num_normalized_layers:
            layers.append(keras.layers.BatchNormalization())
    layers.append(
        keras.layers.Conv3D(FRAME_SHAPE[-1], 3, activation="sigmoid", padding="same")
    )
    model = keras.Sequential([keras.Input((None, *FRAME_SHAPE)), *layers])
    if not sequential:
        outputs = functools.reduce(lambda x, layer: layer(x), layers, model.inputs[0])
        model = keras.Model(model.inputs[0], outputs)
    generator = np.random.default_rng(1)
    for variable in model.variables:
        values = 0.5 * generator.normal(size=variable.shape)
        if "variance" in variable.name or "gamma" in variable.name:
            values = generator.uniform(0.5, 2, size=variable.shape)
        if "seed" not in variable.name:
            variable.assign(values.astype(np.float32))
    return model


def predictor(network, **fields):
    return NextFramePredictor(**network._asdict(), **{"causal_head": False, **fields})


@functools.cache
def shapes(model, frame_shape=FRAME_SHAPE):
    inputs = jax.ShapeDtypeStruct((1, 2, *frame_shape), np.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), inputs))
