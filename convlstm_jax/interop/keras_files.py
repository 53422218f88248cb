"""Reads files of Keras, without Keras or TensorFlow.

Three formats, of both Keras 3 and Keras 2:

* `.keras`: a zip archive of `config.json` (the layers and their settings) and
  `model.weights.h5`;
* `.weights.h5`: HDF5 without settings. Variables are numbered, under groups
  named after the layer's class: `layers/conv_lstm2d_1/cell/vars/0`;
* `.h5`: a whole model, or (Keras 2) only its weights. Variables have names, under
  groups named after the layer: `model_weights/lstm/.../recurrent_kernel:0`.
"""

import io
import itertools
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from convlstm_jax.errors import UserError

# The layers that are known, with the order in which Keras numbers their variables.
VARIABLES = {
    "ConvLSTM2D": ("kernel", "recurrent_kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Conv3D": ("kernel", "bias"),
}
_GROUP_NAMES = {
    "conv_lstm2d": "ConvLSTM2D",
    "batch_normalization": "BatchNormalization",
    "conv3d": "Conv3D",
}
_NUMBERED = re.compile(
    r"layers/(?P<group>\w+?)(?:_(?P<number>\d+))?/(?:cell/)?vars/(?P<variable>\d+)"
)

_MAX_BYTES = 2**32  # Limit of one array; a few bytes on disk can declare any size.


# The variables of one layer, by Keras's name: path in the file, and values.
Arrays = dict[str, tuple[str, np.ndarray]]


class KerasFile(NamedTuple):
    """A model as Keras saved it.

    Attributes:
        layers: the layers with variables by class, a key of `VARIABLES`, in the model's
            order.
        config: the architecture as in Keras's `to_json`, of any JSON type; None if the
            file holds only weights.
        unknown: groups of layers that are not in `VARIABLES`, or lack variables.
        skipped: (path in the file, why it is not used).
    """

    layers: dict[str, list[Arrays]]
    config: Any
    unknown: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


class _Contents(NamedTuple):
    arrays: dict[str, np.ndarray]
    layer_names: list[str]
    config: Any


def read(path: str | Path) -> KerasFile:
    """Reads a `.keras`, `.weights.h5` or `.h5` file; the contents tell which it is.

    Raises:
        UserError: the file is missing, damaged or not a file of Keras.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"'{path}' is not a file: it must be a .keras, .weights.h5 or .h5 file of "
            "Keras"
        )
    try:
        contents = _contents(path)
    except Exception as error:  # Damage surfaces as a dozen types.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"'{path}' cannot be read as a file of Keras (.keras, .weights.h5 or .h5), "
            f"it is damaged or something else: {reason}"
        ) from error
    if any(name.startswith("layers/") for name in contents.arrays):
        return _numbered(contents)
    if contents.layer_names:
        return _named(contents)
    raise UserError(f"'{path}' is an HDF5 file, but holds no layers of Keras")


def _contents(path: str | Path) -> _Contents:
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            return _hdf5_contents(file)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r") as file:
        return _hdf5_contents(file)._replace(config={} if config is None else config)


def _hdf5_contents(file: h5py.File) -> _Contents:
    arrays = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and np.issubdtype(item.dtype, np.number):
            if item.nbytes > _MAX_BYTES:
                raise ValueError(f"{name} has {item.nbytes} bytes")
            arrays[name] = np.asarray(item[()])

    file.visititems(take)  # This does not follow links to other files.
    root = file.get("model_weights", file)
    config = json.loads(_text(file.attrs.get("model_config", "null")))
    # Keras splits a list of names that is long into `layer_names0`, `layer_names1` …
    parts = [root.attrs["layer_names"]] if "layer_names" in root.attrs else []
    for number in itertools.count():
        if f"layer_names{number}" not in root.attrs:
            break
        parts.append(root.attrs[f"layer_names{number}"])
    return _Contents(arrays, [_text(name) for part in parts for name in part], config)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _numbered(contents: _Contents) -> KerasFile:
    """The layers of `layers/<class>[_<number>]/…vars/<number>`."""
    found: dict[tuple[str, int], Arrays] = {}
    unknown, skipped = [], []
    for name, array in contents.arrays.items():
        if not name.startswith("layers/") or "/seed_generator/" in name:
            skipped.append((name, _reason(name)))
            continue
        match = _NUMBERED.fullmatch(name)
        kind = _GROUP_NAMES.get(match["group"]) if match else None
        if match is None or kind is None:
            unknown.append(name.split("/")[1])
            continue
        names, index = VARIABLES[kind], int(match["variable"])
        if index < len(names):
            arrays = found.setdefault((kind, int(match["number"] or 0)), {})
            arrays[names[index]] = name, array
        else:
            skipped.append((name, _reason(name)))
    layers: dict[str, list[Arrays]] = {kind: [] for kind in VARIABLES}
    for kind, number in sorted(found):
        layers[kind].append(found[kind, number])
    unknown = list(dict.fromkeys(unknown))
    return KerasFile(layers, contents.config, tuple(unknown), tuple(skipped))


def _named(contents: _Contents) -> KerasFile:
    """The layers of `[model_weights/]<layer>/…/<variable>[:0]`."""
    layers: dict[str, list[Arrays]] = {kind: [] for kind in VARIABLES}
    unknown, used = [], set()
    is_model = any(name.startswith("model_weights/") for name in contents.arrays)
    prefix = "model_weights/" if is_model else ""
    for layer in contents.layer_names:
        arrays = {
            name.rpartition("/")[2].partition(":")[0]: (name, array)
            for name, array in contents.arrays.items()
            if name.startswith(f"{prefix}{layer}/")
        }
        if not arrays:
            continue
        used |= {name for name, _ in arrays.values()}
        kinds = [kind for kind, names in VARIABLES.items() if set(arrays) == set(names)]
        if kinds:
            layers[kinds[0]].append(arrays)
        else:
            unknown.append(layer)
    skipped = tuple((n, _reason(n)) for n in contents.arrays if n not in used)
    return KerasFile(layers, contents.config, tuple(unknown), skipped)


def _reason(name: str) -> str:
    if name.startswith("optimizer"):
        return "as the optimizer starts afresh"
    if "seed_generator" in name:
        return "as nothing is drawn by it"
    return "as it belongs to no layer"
