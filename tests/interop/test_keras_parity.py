"""Imported Keras models against the real ones, in every container Keras writes."""

import jax
import numpy as np
import pytest

from convlstm_jax.interop import keras_files
from convlstm_jax.interop.keras_weights import import_keras
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
    norms = [x for x in keras_model.layers if "batch_norm" in x.name]
    rules = {(norm.momentum, norm.epsilon) for norm in norms}
    assert rules == {(next_frame.BATCH_NORM_MOMENTUM, next_frame.BATCH_NORM_EPSILON)}
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
