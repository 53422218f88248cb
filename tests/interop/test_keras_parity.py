"""Imported Keras models against the real ones, in every container Keras writes."""

import jax
import numpy as np
import pytest

from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.interop import keras_files
from convlstm_jax.interop.keras_weights import import_keras
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.models import next_frame
from tests.interop.keras_layout import (
    config_of,
    layers_of,
    write_keras,
    write_legacy,
    write_weights,
)
from tests.interop.keras_networks import (
    FRAME_SHAPE,
    NEXT_FRAME,
    SQUARES,
    build,
    predictor,
    shapes,
)

# TensorFlow's variables, as Keras reads them, under NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

FILES = ("model.keras", "model.weights.h5", "model.h5")


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    """Both networks with the folder in which each lies in all containers."""
    networks = {}
    for network in (NEXT_FRAME, SQUARES):
        model = build(keras, network, sequential=network is SQUARES)
        # As after training: the optimizer has arrays of its own.
        model.compile("adam", "binary_crossentropy")
        model.optimizer.build(model.trainable_variables)
        folder = tmp_path_factory.mktemp("keras")
        model.save(folder / "model.keras")
        model.save(folder / "model.h5")
        model.save_weights(folder / "model.weights.h5")
        networks[network] = model, folder
    return networks


@pytest.mark.parametrize(
    "network", [NEXT_FRAME, SQUARES], ids=["next_frame", "squares"]
)
def test_an_imported_network_computes_what_keras_does(saved, network):
    keras_model, folder = saved[network]
    model = predictor(network)
    clip = np.random.default_rng(2).uniform(size=(2, 5, *FRAME_SHAPE))
    clip = clip.astype(np.float32)
    expected = np.asarray(keras_model(clip, training=False))
    assert expected.std() > 0.05
    for file in FILES:
        variables, report = import_keras(folder / file, model, shapes(model))
        found = jax.nn.sigmoid(jax.jit(model.apply)(variables, clip))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        count = 3 * len(network.features) + 4 * network.num_normalized_layers + 2
        assert len(report.placed) == count
        assert all("optimizer" in name for name, _ in report.skipped)
        assert bool(report.notes) == (file == "model.weights.h5")


def test_the_files_that_other_tests_write_are_laid_out_as_keras_does(saved, tmp_path):
    _, folder = saved[NEXT_FRAME]
    layers = layers_of(NEXT_FRAME)
    config = config_of(layers, NEXT_FRAME)
    write_keras(tmp_path / "model.keras", layers, config)
    write_weights(tmp_path / "model.weights.h5", layers)
    write_legacy(tmp_path / "model.h5", layers, config)

    def layout(path):
        file = keras_files.read(path)
        return [
            (kind, [(k, name, file.arrays[name].shape) for k, name in names.items()])
            for kind, layers in file.layers.items()
            for names in layers
        ], file.config is not None

    for file in FILES:
        theirs, ours = layout(folder / file), layout(tmp_path / file)
        if file == "model.h5":  # Their folders in a layer's folder do not matter.
            theirs, ours = ([(k, {n for n, *_ in v}) for k, v in found[0]]
                            for found in (theirs, ours))  # fmt: skip
        assert theirs == ours


def test_keras_learns_the_same_statistics_rule(saved):
    """Momentum and epsilon are the model's own: training can go on as it was."""
    keras_model, _ = saved[SQUARES]
    norm = keras_model.layers[1]
    assert norm.momentum == next_frame.BATCH_NORM_MOMENTUM
    assert norm.epsilon == next_frame.BATCH_NORM_EPSILON


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_one_layer_equals_keras_outputs_and_gradients(keras, tensorflow, activation):
    generator = np.random.default_rng(3)
    inputs = generator.normal(size=(2, 4, 5, 7, 3)).astype(np.float32)
    direction = generator.normal(size=(2, 4, 5, 7, 4)).astype(np.float32)
    layer = keras.layers.ConvLSTM2D(
        4, 3, padding="same", return_sequences=True, activation=activation
    )
    layer.build(inputs.shape)
    for variable in layer.trainable_variables:
        values = 0.3 * generator.normal(size=variable.shape)
        variable.assign(values.astype(np.float32))
    weights = [variable.value for variable in layer.trainable_variables]
    frames = tensorflow.constant(inputs)
    with tensorflow.GradientTape() as tape:
        tape.watch(frames)
        outputs = layer(frames)
        loss = tensorflow.reduce_sum(outputs * direction)
    expected = tape.gradient(loss, [*weights, frames])

    # Keras's order of gates is ours, and so is the layout of its kernels.
    names = ("input_kernel", "recurrent_kernel", "bias")
    params = dict(zip(names, map(np.asarray, weights), strict=True))
    cell = ConvLSTMCell(4, 3, 3, peephole="none", activation=activation)

    def run(params, frames):
        variables = {"params": {"cell": params}}
        _, outputs = RecurrentLayer(cell).apply(variables, frames)
        return (outputs * direction).sum(), outputs

    step = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (_, found), (gradients, frames_gradient) = jax.jit(step)(params, inputs)
    np.testing.assert_allclose(found, outputs, rtol=0, atol=1e-5)
    for name, gradient in zip(names, expected, strict=False):
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(frames_gradient, expected[-1], rtol=1e-5, atol=1e-5)
