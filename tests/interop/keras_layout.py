"""Files in the layout of Keras, written without it."""

import io
import json
import zipfile

import h5py
import numpy as np

from tests.interop.keras_networks import FRAME_SHAPE

_GROUPS = {
    "ConvLSTM2D": "conv_lstm2d",
    "BatchNormalization": "batch_normalization",
    "Conv3D": "conv3d",
}


def layers_of(network, seed=0):
    """(kind, {variable: array}) of a network in its order, random and distinct."""
    generator = np.random.default_rng(seed)

    def draw(*shape):
        return generator.normal(size=shape).astype(np.float32)

    layers = []
    channels = FRAME_SHAPE[-1]
    for index, (features, size) in enumerate(
        zip(network.features, network.kernel_sizes, strict=True)
    ):
        weights = {
            "kernel": draw(size, size, channels, 4 * features),
            "recurrent_kernel": draw(size, size, features, 4 * features),
            "bias": draw(4 * features),
        }
        layers.append(("ConvLSTM2D", weights))
        if index < network.num_normalized_layers:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            weights = {name: np.abs(draw(features)) for name in names}
            layers.append(("BatchNormalization", weights))
        channels = features
    head = {"kernel": draw(3, 3, 3, channels, FRAME_SHAPE[-1]), "bias": draw(1)}
    return [*layers, ("Conv3D", head)]


def _named(layers):
    """Each layer with its name: the class, and from the second one on a number."""
    counts = {}
    for kind, weights in layers:
        number = counts[kind] = counts.get(kind, -1) + 1
        yield f"{_GROUPS[kind]}_{number}".removesuffix("_0"), kind, weights


def config_of(layers, network):
    """The architecture, of the settings those that matter."""
    convolution = {
        "padding": "same", "data_format": "channels_last", "use_bias": True,
    }  # fmt: skip
    settings = {
        "ConvLSTM2D": convolution | {
            "activation": network.activation, "recurrent_activation": "sigmoid",
            "strides": [1, 1], "dilation_rate": [1, 1], "dropout": 0.0,
            "recurrent_dropout": 0.0, "return_sequences": True, "go_backwards": False,
        },
        "BatchNormalization": {
            "axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True,
            "scale": True,
        },
        "Conv3D": convolution | {
            "activation": "sigmoid", "strides": [1, 1, 1], "dilation_rate": [1, 1, 1],
        },
    }  # fmt: skip
    entries = [{"class_name": "InputLayer", "config": {"name": "input_layer"}}]
    for name, kind, _ in _named(layers):
        before = entries[-1]["config"]["name"]
        history = {"config": {"keras_history": [before, 0, 0]}}
        entries.append(
            {
                "class_name": kind,
                "config": {"name": name, **settings[kind]},
                "inbound_nodes": [{"args": [history], "kwargs": {}}],
            }
        )
    return {"class_name": "Functional", "config": {"layers": entries}}


def write_weights(file, layers):
    """`.weights.h5`: variables by number."""
    with h5py.File(file, "w") as root:
        for name, kind, weights in _named(layers):
            inner = "cell/vars" if kind == "ConvLSTM2D" else "vars"
            for number, array in enumerate(weights.values()):
                root[f"layers/{name}/{inner}/{number}"] = array


def write_keras(path, layers, config):
    """`.keras`: an archive of the settings and the weights."""
    weights = io.BytesIO()
    write_weights(weights, layers)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())


def write_legacy(path, layers, config=None, *, ending="", chunks=1):
    """`.h5`: variables by name; a whole model with a config, else weights alone."""
    named = list(_named(layers))
    with h5py.File(path, "w") as root:
        group = root
        if config is not None:
            root.attrs["model_config"] = json.dumps(config)
            group = root.create_group("model_weights")
            root["optimizer_weights/iteration:0"] = np.int64(3)
        names = np.array([name for name, _, _ in named], "S")
        for number, part in enumerate(np.array_split(names, chunks)):
            key = "layer_names" if chunks == 1 else f"layer_names{number}"
            group.attrs[key] = part
        for name, _, weights in named:
            for variable, array in weights.items():
                group[f"{name}/{name}/{variable}{ending}"] = array
