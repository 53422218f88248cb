"""Weights of Keras's next-frame networks: ConvLSTM2D, batch normalisation, Conv3D."""

import re
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop import keras_files
from convlstm_jax.interop.keras_settings import setting_problems
from convlstm_jax.interop.placement import Imported, ImportReport, Source, fill
from convlstm_jax.models.next_frame import BATCH_NORM_EPSILON, NextFramePredictor

_GATE_ORDER = "ifgo"  # Keras calls them i, f, c, o.

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


def import_keras(
    path: str | Path, model: NextFramePredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a Keras model into a `NextFramePredictor`.

    The model in the file is a chain of ConvLSTM2D layers, the lower ones followed by
    BatchNormalization, with a Conv3D and a sigmoid at the end; settings in which it
    computes something else are refused by name. A file of weights alone says nothing
    of them, so they are taken to be those of `model`, and the report says so.

    Args:
      path: a `.keras`, `.weights.h5` or `.h5` file of Keras 3 or 2.
      model: the model to fill.
      shapes: its variables, or their shapes as `jax.eval_shape` gives them.

    Returns:
      The variables, and what went where.

    Raises:
      UserError: see `keras_files.read`; settings of the file or of `model` that do not
        go together; layers of other kinds or too many of them; arrays that are missing
        or have other shapes.
    """
    file = keras_files.read(path)
    problems = _model_problems(model)
    if file.config is not None:
        problems += setting_problems(file.config, model)
    if file.unknown:
        problems.append(
            f"its layers {', '.join(file.unknown)} are none of "
            f"{', '.join(keras_files.VARIABLES)} with all variables"
        )
    problems += _count_problems(file, model)
    if problems:
        raise UserError(f"'{path}' cannot be imported: {'; '.join(problems)}")
    variables, placed = fill(path, shapes, lambda target: _source(file, target))
    notes: tuple[str, ...] = ()
    if file.config is None:
        notes = (
            "the file holds weights alone, so what they were trained with is taken on "
            f"trust: activation {model.activation!r}, plain sigmoid gates, epsilon "
            f"{BATCH_NORM_EPSILON:g} in batch normalisation, a sigmoid at the end",
        )
    return Imported(variables, ImportReport(placed, file.skipped, notes))


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


def _layers(file: keras_files.KerasFile, kind: str) -> list[keras_files.KerasLayer]:
    return [layer for layer in file.layers if layer.kind == kind]


def _count_problems(
    file: keras_files.KerasFile, model: NextFramePredictor
) -> list[str]:
    """Layers that the model has no place for; too few are missing arrays."""
    places = {
        "ConvLSTM2D": (len(model.features), "model.features"),
        "BatchNormalization": (
            model.num_normalized_layers, "model.num_normalized_layers"
        ),
        "Conv3D": (1, "the head"),
    }  # fmt: skip
    return [
        f"it has {found} layers {kind}, where {where} has place for {places_there}"
        for kind, (places_there, where) in places.items()
        if (found := len(_layers(file, kind))) > places_there
    ]


def _source(file: keras_files.KerasFile, target: str) -> Source:
    """What the file offers for a path in our model."""
    for pattern, kind, variable in _PATHS:
        match = re.fullmatch(pattern, target)
        if match is None:
            continue
        number = int(match[1] or 0)
        layers = _layers(file, kind)
        name, array = f"{variable} of the {kind} number {number + 1}", None
        if number < len(layers):
            name, array = layers[number].arrays.get(variable, (name, None))
        gate_order = _GATE_ORDER if kind == "ConvLSTM2D" else ""
        return Source(name, array, gate_order=gate_order)
    raise ValueError(f"{target!r} is no variable of a NextFramePredictor")
