"""Weights of Keras's next-frame networks: ConvLSTM2D, batch normalisation, Conv3D."""

import json
import reprlib
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop import keras_files
from convlstm_jax.interop.placement import Imported, Placement
from convlstm_jax.models.next_frame import (
    BATCH_NORM_EPSILON,
    NextFramePredictor,
)

# Our kinds of layers with their variables, by class and name in Keras. All axes are in
# the same order.
_VARIABLES = {
    "layer/input_kernel": ("ConvLSTM2D", "kernel"),
    "layer/recurrent_kernel": ("ConvLSTM2D", "recurrent_kernel"),
    "layer/bias": ("ConvLSTM2D", "bias"),
    "normalization/scale": ("BatchNormalization", "gamma"),
    "normalization/bias": ("BatchNormalization", "beta"),
    "normalization/mean": ("BatchNormalization", "moving_mean"),
    "normalization/var": ("BatchNormalization", "moving_variance"),
    "head/kernel": ("Conv3D", "kernel"),
    "head/bias": ("Conv3D", "bias"),
}
# What the settings of a layer must be, the usual value first.
_CONVOLUTION: dict[str, tuple] = {
    "padding": ("same",), "data_format": ("channels_last",), "use_bias": (True,),
}  # fmt: skip
_SETTINGS: dict[str, dict[str, tuple]] = {
    "ConvLSTM2D": _CONVOLUTION | {
        "recurrent_activation": ("sigmoid",), "strides": ([1, 1],),
        "dilation_rate": ([1, 1],), "return_sequences": (True,),
        "return_state": (False,), "go_backwards": (False,), "stateful": (False,),
    },
    "BatchNormalization": {
        "axis": (-1, 4, [-1], [4]), "epsilon": (BATCH_NORM_EPSILON,),
        "center": (True,), "scale": (True,), "renorm": (False,),
    },
    "Conv3D": _CONVOLUTION | {
        "activation": ("sigmoid",), "strides": ([1, 1, 1],),
        "dilation_rate": ([1, 1, 1],), "groups": (1,),
    },
}  # fmt: skip
# The fields of the model that settings must agree with.
_FIELDS = {
    ("ConvLSTM2D", "activation"): "activation",
    ("BatchNormalization", "momentum"): "batch_norm_momentum",
}
# Layers that act in training alone; they are left out.
_DROPOUT = (
    "Dropout", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout",
    "AlphaDropout", "GaussianNoise",
)  # fmt: skip


def import_keras(
    path: str | Path, model: NextFramePredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a `.keras`, `.weights.h5` or `.h5` file into a `NextFramePredictor`.

    See `Imported`. The file's model is a chain of ConvLSTM2D layers, the lower ones
    followed by BatchNormalization, with a Conv3D and a sigmoid at the end. If it holds
    only weights, the settings are assumed to be those of `model`.

    Raises:
        UserError: the file cannot be read, or does not fit the model.
    """
    file = keras_files.read(path)
    problems = _model_problems(file.layers, model)
    layers = _layers(file.config)
    if file.config is not None:
        problems += _setting_problems(layers, model)
    if file.unknown:
        problems.append(
            f"its layers {', '.join(file.unknown)} are none of "
            f"{', '.join(keras_files.VARIABLES)} with all variables"
        )
    if problems:
        raise UserError(f"'{path}' cannot be imported: {'; '.join(problems)}")

    def source(target: str) -> tuple[str, tuple[int, ...], str]:
        _, layer, variable = target.split("/")
        layer, _, number = layer.partition("_")
        kind, name = _VARIABLES[f"{layer}/{variable}"]
        index, found = int(number or 0), file.layers[kind]
        path_in_file = found[index].get(name) if index < len(found) else None
        missing = f"{name} of the {kind} number {index + 1}"
        return path_in_file or missing, (), "ifgo" if kind == "ConvLSTM2D" else ""

    placement = Placement(f"'{path}' does not fit the model of the config", file.arrays)
    variables = placement.take_all(shapes, source)
    assumed = (
        "the file holds only weights, so these settings are assumed: activation "
        f"{model.activation!r}, plain sigmoid gates, epsilon {BATCH_NORM_EPSILON:g} in "
        "batch normalisation, padding 'same', strides and dilation 1, forwards in "
        "time, a sigmoid at the end"
    )
    notes = [assumed] if file.config is None else []
    if dropout := [str(_name(layer)) for layer in layers if _drops_out(layer)]:
        notes.append(
            f"the dropout of {', '.join(dropout)} is left out: predictions are the "
            "same, training does without it"
        )
    return Imported(variables, placement.report(keras_files.why_unused, tuple(notes)))


def _model_problems(layers: keras_files.Layers, model: NextFramePredictor) -> list[str]:
    """What a model cannot have, and layers in excess; too few are missing arrays."""
    problems = []
    if model.causal_head and model.head_frames > 1:
        problems.append(
            "model.causal_head is True, where it must be False, as a Conv3D of Keras "
            "sees later frames too"
        )
    if model.peephole != "none":
        problems.append(
            f"model.peephole is {model.peephole!r}, where it must be 'none', as a "
            "ConvLSTM2D has no peepholes"
        )
    normalized = model.num_normalized_layers
    places = (
        ("ConvLSTM2D", len(model.features), "model.features"),
        ("BatchNormalization", normalized, "model.num_normalized_layers"),
        ("Conv3D", 1, "the head"),
    )
    problems += [
        f"it has {len(layers[kind])} layers {kind}, where {where} has {count}"
        for kind, count, where in places
        if len(layers[kind]) > count
    ]
    return problems


def _layers(config: Any) -> list[Any]:
    """The layers of an architecture, none if it does not list any."""
    # Keras before 2.2.3 has the list of a Sequential right under "config".
    network = config.get("config") if isinstance(config, dict) else None
    layers = network.get("layers") if isinstance(network, dict) else network
    return layers if isinstance(layers, list) and all(map(_is_layer, layers)) else []


def _name(layer: Any) -> Any:
    return layer.get("config", {}).get("name")


def _drops_out(layer: Any) -> bool:
    settings = layer.get("config", {})
    has_rate = settings.get("dropout") or settings.get("recurrent_dropout")
    return layer["class_name"] in _DROPOUT or bool(has_rate)


def _setting_problems(layers: list[Any], model: NextFramePredictor) -> list[str]:
    """The settings of layers that differ from the model, a clause each."""
    if not layers:
        return ["its configuration lists no layers"]
    problems = []
    names = [_name(layer) for layer in layers]
    for index, (layer, name) in enumerate(zip(layers, names, strict=True)):
        kind, settings = layer["class_name"], layer.get("config", {})
        nodes, before = layer.get("inbound_nodes"), names[index - 1]
        inputs = [str(other) for other in names if f'"{other}"' in json.dumps(nodes)]
        if nodes and inputs != [before]:
            read = " and ".join(inputs) or "nothing"
            problems.append(f"{name} reads {read}: it must read only {before}")
        problems += [
            f"{name} has {setting}={reprlib.repr(settings[setting])}, where only "
            f"{allowed[0]!r} is possible"
            for setting, allowed in _SETTINGS.get(kind, {}).items()
            if settings.get(setting, allowed[0]) not in allowed
        ]
        problems += [
            f"{name} has {setting}={reprlib.repr(settings[setting])}, where "
            f"model.{field} is {getattr(model, field)!r}"
            for (of, setting), field in _FIELDS.items()
            if of == kind
            and settings.get(setting, getattr(model, field)) != getattr(model, field)
        ]
    expected = []
    for index in range(len(model.features)):
        normalized = index < model.num_normalized_layers
        expected += ["ConvLSTM2D", "BatchNormalization"][: 1 + normalized]
    expected.append("Conv3D")
    ignored = ("InputLayer", *_DROPOUT)
    kinds = [x["class_name"] for x in layers if x["class_name"] not in ignored]
    if kinds != expected:
        problems.append(
            f"its layers are {', '.join(kinds) or 'none'}, where the model of the "
            f"config has {', '.join(expected)}"
        )
    return problems


def _is_layer(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("class_name"), str)
        and isinstance(layer.get("config", {}), dict)
    )
