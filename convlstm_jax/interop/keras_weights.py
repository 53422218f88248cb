"""Weights of Keras's next-frame networks: ConvLSTM2D, batch normalisation, Conv3D."""

import re
import reprlib
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop import keras_files
from convlstm_jax.interop.placement import Imported, ImportReport, Source, fill
from convlstm_jax.models.next_frame import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    NextFramePredictor,
)

_GATE_ORDER = "ifgo"  # The order i, f, c, o of Keras.

# Our path in a model, the kind of layer in Keras and its variable there. All axes are
# in the same order.
_PATHS = (
    (r"params/layer_(\d+)/input_kernel", "ConvLSTM2D", "kernel"),
    (r"params/layer_(\d+)/recurrent_kernel", "ConvLSTM2D", "recurrent_kernel"),
    (r"params/layer_(\d+)/bias", "ConvLSTM2D", "bias"),
    (r"params/normalization_(\d+)/scale", "BatchNormalization", "gamma"),
    (r"params/normalization_(\d+)/bias", "BatchNormalization", "beta"),
    (r"batch_stats/normalization_(\d+)/mean", "BatchNormalization", "moving_mean"),
    (r"batch_stats/normalization_(\d+)/var", "BatchNormalization", "moving_variance"),
    (r"params/head()/kernel", "Conv3D", "kernel"),
    (r"params/head()/bias", "Conv3D", "bias"),
)
# What the settings of a layer must be, the usual value first.
_CONVOLUTION: dict[str, tuple] = {
    "padding": ("same",), "data_format": ("channels_last",), "use_bias": (True,),
}  # fmt: skip
_SETTINGS: dict[str, dict[str, tuple]] = {
    "ConvLSTM2D": _CONVOLUTION | {
        "recurrent_activation": ("sigmoid",), "strides": ([1, 1],),
        "dilation_rate": ([1, 1],), "dropout": (0.0,), "recurrent_dropout": (0.0,),
        "return_sequences": (True,), "return_state": (False,),
        "go_backwards": (False,), "stateful": (False,),
    },
    "BatchNormalization": {
        "axis": (-1, 4, [-1], [4]), "momentum": (BATCH_NORM_MOMENTUM,),
        "epsilon": (BATCH_NORM_EPSILON,), "center": (True,), "scale": (True,),
        "renorm": (False,),
    },
    "Conv3D": _CONVOLUTION | {
        "activation": ("sigmoid",), "strides": ([1, 1, 1],),
        "dilation_rate": ([1, 1, 1],), "groups": (1,),
    },
}  # fmt: skip


def import_keras(
    path: str | Path, model: NextFramePredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a `.keras`, `.weights.h5` or `.h5` file into a `NextFramePredictor`.

    See `Imported`. The model in the file is a chain of ConvLSTM2D layers, the lower
    ones followed by BatchNormalization, with a Conv3D and a sigmoid at the end;
    other settings are refused by name. A file with only weights does not contain them,
    so they are assumed to be those of `model`, and the report says so.

    Raises:
        UserError: see `keras_files.read`; settings of the file and of `model` that
            disagree; layers of other kinds or too many of them; arrays that are
            missing or have other shapes.
    """
    file = keras_files.read(path)
    problems = _model_problems(model)
    if file.config is not None:
        problems += _setting_problems(file.config, model)
    if file.unknown:
        problems.append(
            f"its layers {', '.join(file.unknown)} are none of "
            f"{', '.join(keras_files.VARIABLES)} with all variables"
        )
    problems += _count_problems(file.layers, model)
    if problems:
        raise UserError(f"'{path}' cannot be imported: {'; '.join(problems)}")
    variables, placed = fill(path, shapes, lambda target: _source(file.layers, target))
    notes: tuple[str, ...] = ()
    if file.config is None:
        notes = (
            "the file holds only weights, so these settings are assumed: "
            f"activation {model.activation!r}, plain sigmoid gates, epsilon "
            f"{BATCH_NORM_EPSILON:g} in batch normalisation, a sigmoid at the end",
        )
    return Imported(variables, ImportReport(placed, file.skipped, notes))


def _source(layers: dict[str, list[keras_files.Arrays]], target: str) -> Source:
    """What the file offers for a path in our model."""
    for pattern, kind, variable in _PATHS:
        match = re.fullmatch(pattern, target)
        if match is not None:
            number = int(match[1] or 0)
            name, array = f"{variable} of the {kind} number {number + 1}", None
            if number < len(layers[kind]):
                name, array = layers[kind][number].get(variable, (name, None))
            gate_order = _GATE_ORDER if kind == "ConvLSTM2D" else ""
            return Source(name, array, gate_order=gate_order)
    raise ValueError(f"{target!r} is no variable of a NextFramePredictor")


def _model_problems(model: NextFramePredictor) -> list[str]:
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
    return problems


def _count_problems(
    layers: dict[str, list[keras_files.Arrays]], model: NextFramePredictor
) -> list[str]:
    """Layers in excess of the model's; too few layers are missing arrays."""
    normalized = model.num_normalized_layers
    places = (
        ("ConvLSTM2D", len(model.features), "model.features"),
        ("BatchNormalization", normalized, "model.num_normalized_layers"),
        ("Conv3D", 1, "the head"),
    )
    return [
        f"it has {len(layers[kind])} layers {kind}, where {where} has {count}"
        for kind, count, where in places
        if len(layers[kind]) > count
    ]


def _setting_problems(config: Any, model: NextFramePredictor) -> list[str]:
    """The settings of an architecture that differ from the model, a clause each.

    Args:
        config: the architecture as in Keras's `to_json`, of any JSON type.
        model: the model to compare with.
    """
    # Keras before 2.2.3 has the list of a Sequential right under "config".
    layers = config.get("config") if isinstance(config, dict) else None
    if isinstance(layers, dict):
        layers = layers.get("layers")
    if not isinstance(layers, list) or not all(map(_is_layer, layers)):
        return ["its configuration lists no layers"]
    problems = []
    before = None
    kinds = []
    for layer in layers:
        kind, settings = layer["class_name"], layer["config"]
        name = str(settings.get("name", kind))
        inputs = _inputs(layer["inbound_nodes"])
        if before is not None and layer["inbound_nodes"] and inputs != [before]:
            read = " and ".join(inputs) or "nothing"
            problems.append(f"{name} reads {read}: it must read only {before}")
        before = name
        if kind != "InputLayer":
            kinds.append(kind)
        possible = dict(_SETTINGS.get(kind, {}))
        if kind == "ConvLSTM2D":
            possible = {"activation": (model.activation,), **possible}
        problems += [
            f"{name} has {setting}={reprlib.repr(settings[setting])}, where only "
            f"{allowed[0]!r} is possible"
            for setting, allowed in possible.items()
            if settings.get(setting, allowed[0]) not in allowed
        ]
    expected = []
    for index in range(len(model.features)):
        normalized = index < model.num_normalized_layers
        expected += ["ConvLSTM2D", "BatchNormalization"][: 1 + normalized]
    expected.append("Conv3D")
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
        and isinstance(layer.setdefault("config", {}), dict)
        and isinstance(layer.setdefault("inbound_nodes", []), list)
    )


def _inputs(nodes: list[Any]) -> list[str]:
    """The layers that a layer of a functional model reads, in Keras 3's or 2's form."""
    names, rest = [], [nodes]
    while rest:
        node: Any = rest.pop()
        if isinstance(node, dict) and "keras_history" in node:
            history = node["keras_history"]
            is_list = isinstance(history, list) and history
            names.append(str(history[0] if is_list else history))
        elif isinstance(node, dict):
            rest += reversed(node.values())
        elif isinstance(node, list):
            is_name = len(node) >= 3 and isinstance(node[0], str)
            if is_name and isinstance(node[1], int):
                names.append(node[0])
            else:
                rest += reversed(node)
    return names
