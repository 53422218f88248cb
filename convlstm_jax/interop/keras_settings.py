"""Whether a Keras model computes what a `NextFramePredictor` does."""

from typing import Any

from convlstm_jax.models.next_frame import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    NextFramePredictor,
)

_SPACE, _VIDEO = [1, 1], [1, 1, 1]


def setting_problems(config: dict[str, Any], model: NextFramePredictor) -> list[str]:
    """What in a model's architecture would compute something else, a clause each.

    Args:
      config: the architecture, as Keras's `to_json` has it.
      model: the model that is to compute the same.
    """
    # Keras before 2.2.3 has the list of a Sequential right under "config".
    layers = config.get("config")
    if isinstance(layers, dict):
        layers = layers.get("layers")
    if not isinstance(layers, list) or not all(isinstance(la, dict) for la in layers):
        return ["its configuration lists no layers"]
    problems = []
    before = None
    kinds = []
    for layer in layers:
        kind, settings = layer.get("class_name"), layer.get("config", {})
        name = settings.get("name", kind)
        inputs = _inputs(layer.get("inbound_nodes", []))
        if before is not None and inputs and inputs != [before]:
            problems.append(
                f"{name} reads {' and '.join(inputs)}, not {before} before it alone"
            )
        before = name
        if kind != "InputLayer":
            kinds.append(kind)
        for setting, allowed in _allowed(kind, model).items():
            value = settings.get(setting, allowed[0])
            if value not in allowed:
                problems.append(
                    f"{name} has {setting}={value!r}, where only {allowed[0]!r} is "
                    "possible"
                )
    expected = _expected_kinds(model)
    if kinds != expected:
        problems.append(
            f"its layers are {_listed(kinds)}, where the model of the config has "
            f"{_listed(expected)}"
        )
    return problems


def _allowed(kind: str | None, model: NextFramePredictor) -> dict[str, tuple]:
    """What the settings of a layer must be, the usual value first."""
    if kind == "ConvLSTM2D":
        return {
            "activation": (model.activation,),
            "recurrent_activation": ("sigmoid",),
            "strides": (_SPACE,),
            "padding": ("same",),
            "data_format": ("channels_last",),
            "dilation_rate": (_SPACE,),
            "use_bias": (True,),
            "dropout": (0.0,),
            "recurrent_dropout": (0.0,),
            "return_sequences": (True,),
            "return_state": (False,),
            "go_backwards": (False,),
            "stateful": (False,),
        }
    if kind == "BatchNormalization":
        return {
            "axis": (-1, 4, [-1], [4]),
            "momentum": (BATCH_NORM_MOMENTUM,),
            "epsilon": (BATCH_NORM_EPSILON,),
            "center": (True,),
            "scale": (True,),
            "renorm": (False,),
        }
    if kind == "Conv3D":
        return {
            "activation": ("sigmoid",),
            "strides": (_VIDEO,),
            "padding": ("same",),
            "data_format": ("channels_last",),
            "dilation_rate": (_VIDEO,),
            "groups": (1,),
            "use_bias": (True,),
        }
    return {}


def _expected_kinds(model: NextFramePredictor) -> list[str]:
    kinds = []
    for index in range(len(model.features)):
        kinds.append("ConvLSTM2D")
        if index < model.num_normalized_layers:
            kinds.append("BatchNormalization")
    return [*kinds, "Conv3D"]


def _listed(kinds: list[str]) -> str:
    return ", ".join(map(str, kinds)) or "none"


def _inputs(node: Any) -> list[str]:
    """The layers that a node of a functional model reads, in Keras 3's or 2's form."""
    if isinstance(node, dict):
        if "keras_history" in node:
            return [node["keras_history"][0]]
        return _inputs(list(node.values()))
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            return [node[0]]
        return [name for part in node for name in _inputs(part)]
    return []
