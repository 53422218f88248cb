"""Reads files of Keras 2 and 3, without Keras or TensorFlow.

* `.keras`: a zip archive of `config.json` (the layers) and `model.weights.h5`;
* `.weights.h5`: variables numbered, `layers/conv_lstm2d_1/cell/vars/0`;
* `.h5`: variables by name, `[model_weights/]lstm/.../recurrent_kernel[:0]`, in a whole
  model or (Keras 2) weights alone.
"""

import io
import itertools
import math
import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from convlstm_jax.errors import UserError
from convlstm_jax.paths import MAX_BYTES, parse_json

# The layers that are known, with their variables in the order of Keras's numbers.
VARIABLES = {
    "ConvLSTM2D": ("kernel", "recurrent_kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Conv3D": ("kernel", "bias"),
}
_GROUPS = ("conv_lstm2d", "batch_normalization", "conv3d")  # Their names in files.
_NUMBERED = re.compile(r"layers/(\w+?)(?:_(\d+))?/(?:cell/)?vars/(\d+)")

# For each key of `VARIABLES` its layers in order: the path of each variable.
Layers = dict[str, list[dict[str, str]]]


class KerasFile(NamedTuple):
    """A model as Keras saved it; `arrays` are by their path in the file."""

    arrays: dict[str, np.ndarray]
    layers: Layers
    config: Any  # As in Keras's `to_json`; None if the file holds only weights.
    unknown: list[str]  # Layers that are not in `VARIABLES`, or lack variables.


def read(path: str | Path) -> KerasFile:
    """Reads a `.keras`, `.weights.h5` or `.h5` file; the contents tell which it is."""
    if not os.path.isfile(path):
        raise UserError(
            f"'{path}' is not a file: it must be a .keras, .weights.h5 or .h5 file of "
            "Keras"
        )
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = parse_json(_member(archive, "config.json"))
                weights = io.BytesIO(_member(archive, "model.weights.h5"))
            arrays, layer_names, _ = _hdf5_contents(weights)
            config = {} if config is None else config
        else:
            arrays, layer_names, config = _hdf5_contents(path)
    except Exception as error:  # Damage surfaces as a dozen types.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"'{path}' cannot be read as a file of Keras (.keras, .weights.h5 or .h5), "
            f"it is damaged or something else: {reason}"
        ) from error
    if any(name.startswith("layers/") for name in arrays):
        layers, unknown = _numbered(arrays)
    elif layer_names:
        layers, unknown = _named(arrays, layer_names)
    else:
        raise UserError(f"'{path}' is an HDF5 file, but holds no layers of Keras")
    return KerasFile(arrays, layers, config, unknown)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    # Reading ends at the size that is checked, whatever the compressed bytes hold.
    _check_size(name, archive.getinfo(name).file_size)
    return archive.read(name)


def _check_size(what: str, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{what} has {num_bytes:,} bytes, more than {MAX_BYTES:,}")


def _hdf5_contents(source: Any) -> tuple[dict[str, np.ndarray], list[str], Any]:
    """All arrays, the names of the layers and the architecture, where they exist."""
    found: dict[str, h5py.Dataset] = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and np.issubdtype(item.dtype, np.number):
            if item.external or item.is_virtual:
                raise ValueError(f"the values of {name} must lie in the file itself")
            found[name] = item

    with h5py.File(source, "r") as file:
        file.visititems(take)  # This does not follow links to other files.
        # A few bytes on disk can declare any size, and a chunk is read whole.
        sizes = (
            max(item.size, math.prod(item.chunks or ())) * item.dtype.itemsize
            for item in found.values()
        )
        _check_size("it", sum(sizes))
        arrays = {name: np.asarray(item[()]) for name, item in found.items()}
        config = parse_json(file.attrs.get("model_config", "null"))
        link = file.get("model_weights", getlink=True)
        is_inside = isinstance(link, h5py.HardLink)
        attributes = (file["model_weights"] if is_inside else file).attrs
        # Keras splits a list of names that is long into `layer_names0`, `layer_names1`…
        numbered = (f"layer_names{number}" for number in itertools.count())
        keys = ["layer_names", *itertools.takewhile(attributes.__contains__, numbered)]
        names = [name for key in keys for name in attributes.get(key, ())]
    decoded = [n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in names]
    return arrays, decoded, config


def _numbered(arrays: dict[str, np.ndarray]) -> tuple[Layers, list[str]]:
    """The layers of `layers/<class>[_<number>]/…vars/<number>`, and unknown groups."""
    kinds = dict(zip(_GROUPS, VARIABLES, strict=True))
    found: dict[tuple[str, int], dict[str, str]] = {}
    unknown = []
    for name in arrays:
        if not name.startswith("layers/") or "/seed_generator/" in name:
            continue
        match = _NUMBERED.fullmatch(name)
        if match is None or match[1] not in kinds:
            unknown.append(name.split("/")[1])
            continue
        kind, number, index = kinds[match[1]], int(match[2] or 0), int(match[3])
        if index < len(VARIABLES[kind]):
            variables = found.setdefault((kind, number), {})
            variables[VARIABLES[kind][index]] = name
    layers = {
        kind: [found[key] for key in sorted(found) if key[0] == kind]
        for kind in VARIABLES
    }
    return layers, list(dict.fromkeys(unknown))


def _named(
    arrays: dict[str, np.ndarray], layer_names: list[str]
) -> tuple[Layers, list[str]]:
    """The layers of `[model_weights/]<layer>/…/<variable>[:0]`, and unknown ones."""
    layers: Layers = {kind: [] for kind in VARIABLES}
    unknown = []
    kinds = {frozenset(names): kind for kind, names in VARIABLES.items()}
    for layer in layer_names:
        variables = {
            name.rpartition("/")[2].partition(":")[0]: name
            for name in arrays
            if name.removeprefix("model_weights/").startswith(f"{layer}/")
        }
        kind = kinds.get(frozenset(variables))
        if kind:
            layers[kind].append(variables)
        elif variables:
            unknown.append(layer)
    return layers, unknown


def why_unused(name: str) -> str:
    """Why an array of a file, by its path, fills none of a model."""
    is_optimizer = name.startswith("optimizer")
    return f"as {'the optimizer starts afresh' if is_optimizer else 'no layer has it'}"
