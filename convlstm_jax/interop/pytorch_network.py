"""Weights of the next-frame network of PyTorch's ConvLSTM tutorials.

The network of R. Panda, "Video Prediction using Convolutional LSTM Networks in
PyTorch", 2021, and of the bubble studies after it: ConvLSTM layers `convlstm1` …, each
followed by a `batchnorm1` …, and a convolution `conv` of the last frame's features with
a sigmoid. A layer's cell `convLSTMcell` has one convolution over `torch.cat([x, h])`,
split into the gates i, f, g, o, and peepholes `W_ci`, `W_cf` and `W_co` for every
location, the last of which reads the new cell state. With zero padding that one
convolution is the sum of our two, over the channels of x and of h.

Networks of the cells of https://github.com/ndrplz/ConvLSTM_pytorch, which come as
`cell_list.0` … and split their convolution into i, f, o, g, are read in the same way,
with batch normalisation, if any, and a head of any name.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from convlstm_jax.cells.convlstm import PEEPHOLE_ORDER
from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import Imported, ImportReport, Source, fill
from convlstm_jax.interop.torch_files import read_state_dict
from convlstm_jax.models.next_frame import BATCH_NORM_EPSILON, NextFramePredictor

_TORCH_EPSILON = 1e-5  # Of its BatchNorm2d and BatchNorm3d.

_KERNEL_AXES = (2, 3, 1, 0)  # [out, in, K, K] to [K, K, in, out].
_PEEPHOLE_AXES = (1, 2, 0)  # [F, H, W] to [H, W, F].

# Both kernels of a layer, in the path of the array that holds them.
_KERNELS = "input_kernel and recurrent_kernel"
# Of a batch normalisation: our path, the name in PyTorch.
_STATISTICS = (
    ("params/normalization_{}/scale", "weight"),
    ("params/normalization_{}/bias", "bias"),
    ("batch_stats/normalization_{}/mean", "running_mean"),
    ("batch_stats/normalization_{}/var", "running_var"),
)


# Names of cells with {} for the number, the number of the bottom layer, and the order
# in which a cell splits its convolution into gates.
_NAMINGS = (("convlstm{}.convLSTMcell", 1, "ifgo"), ("cell_list.{}", 0, "ifog"))


class Network(NamedTuple):
    """The names of a network's modules; layers are counted from 0 at the bottom.

    Attributes:
        cell_name: the name of its cells; see `_NAMINGS`, also for the next two.
        first: the number of the bottom layer in it.
        gate_order: the order of the gates.
        cells: the cells by layer.
        norms: the batch normalisations by the layer that they follow.
        heads: the convolutions that are in no cell.
    """

    cell_name: str
    first: int
    gate_order: str
    cells: dict[int, str]
    norms: dict[int, str]
    heads: tuple[str, ...]

    def cell(self, layer: int) -> str:
        """The name of a cell, or the expected one."""
        return self.cells.get(layer, self.cell_name.format(layer + self.first))

    def norm(self, layer: int) -> str:
        """The name of a batch normalisation, or the expected one."""
        return self.norms.get(layer, f"batchnorm{layer + self.first}")


def import_pytorch(
    path: str | Path, model: NextFramePredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a state dict of such a network into a `NextFramePredictor`.

    See `Imported`. Keys of the file may begin with anything. PyTorch's batch
    normalisation adds another epsilon to the variance, 1e-5; the scale makes up for it,
    so that the model predicts what the network does. A state dict does not contain
    other settings of the network; the report lists those that are assumed.

    Raises:
        UserError: see `read_state_dict`; the file has no ConvLSTM layers, or more than
            the model; arrays are missing or have other shapes; `model.peephole` or
            `model.head_frames` are not those of the network.
    """
    state_dict = read_state_dict(path)
    network = find_network(path, state_dict)
    problems = _problems(state_dict, network, model)
    if problems:
        raise UserError(f"'{path}' cannot be imported: {'; '.join(problems)}")
    wanted = _wanted(state_dict, network, model, shapes)
    arrays, placed = fill(
        path,
        {target: leaf for target, (leaf, _) in wanted.items()},
        lambda target: wanted[target][1],
    )
    used = {name for name, _ in placed}
    skipped = tuple(
        (key, "as nothing depends on them" if key.endswith(".num_batches_tracked") else
         "as the model has no such array")
        for key in state_dict if key not in used
    )  # fmt: skip
    report = ImportReport(placed, skipped, tuple(_notes(network, model)))
    return Imported(_variables(arrays, model), report)


def find_network(path: str | Path, state_dict: Mapping[str, np.ndarray]) -> Network:
    """Finds the modules by their keys, which may begin with anything.

    Cells are recognised by name. Batch normalisations are modules with a running mean;
    unless all are numbered like `batchnorm1`, they are taken in the file's order, which
    is that of the network. All other convolutions count as heads.

    Raises:
        UserError: there are no cells of a known name, or two of the same number.
    """
    convolutions = [
        key.removesuffix(".weight")
        for key, array in state_dict.items()
        if key.endswith(".weight") and array.ndim >= 4
    ]
    suffix = ".running_mean"
    norms = [key.removesuffix(suffix) for key in state_dict if key.endswith(suffix)]
    for cell_name, first, gate_order in _NAMINGS:
        cells = _by_number(path, f"{cell_name}.conv", first, convolutions)
        if not cells:
            continue
        norms_by_layer = _by_number(path, "batchnorm{}", first, norms)
        if len(norms_by_layer) < len(norms):
            norms_by_layer = dict(enumerate(norms))
        heads = tuple(name for name in convolutions if name not in cells.values())
        cells = {layer: name.removesuffix(".conv") for layer, name in cells.items()}
        return Network(cell_name, first, gate_order, cells, norms_by_layer, heads)
    expected = " or ".join(f"{n.format(k)}.conv.weight" for n, k, _ in _NAMINGS)
    raise UserError(
        f"'{path}' has no ConvLSTM cells of a known name: it must have {expected} "
        f"among its keys, which are {', '.join(state_dict)}"
    )


def _by_number(
    path: str | Path, template: str, first: int, names: Iterable[str]
) -> dict[int, str]:
    """The names that end as a template does, by their numbers less `first`."""
    before, after = map(re.escape, template.split("{}"))
    pattern = re.compile(rf"(?:.*\.)?{before}(\d+){after}")
    found: dict[int, str] = {}
    for match in filter(None, map(pattern.fullmatch, names)):
        index = int(match[1]) - first
        if index in found:
            raise UserError(
                f"'{path}' has both {found[index]} and {match[0]}: it must have one "
                "stack of ConvLSTM layers"
            )
        found[index] = match[0]
    return found


def _problems(
    state_dict: Mapping[str, np.ndarray], network: Network, model: NextFramePredictor
) -> list[str]:
    """Modules in excess of the model's; too few modules are missing arrays."""
    problems = []
    has_peepholes = any(
        f"{cell}.W_c{gate}" in state_dict
        for cell in network.cells.values()
        for gate in PEEPHOLE_ORDER
    )
    allowed = "location" if has_peepholes else "none"
    if model.peephole != allowed:
        problems.append(
            f"model.peephole is {model.peephole!r}, where it must be {allowed!r}, as "
            f"its cells have {'W_ci, W_cf and W_co' if has_peepholes else 'none'}"
        )
    if model.head_frames != 1:
        problems.append(
            f"model.head_frames is {model.head_frames}, where it must be 1, as its "
            "head reads only the current frame"
        )
    places = (
        ("cells", network.cells, len(model.features), "features"),
        ("norms", network.norms, model.num_normalized_layers, "num_normalized_layers"),
    )
    problems += [
        f"it has the {kind} {', '.join(found.values())}, where model.{field} has place "
        f"for those of the lowest {count} layers"
        for kind, found, count, field in places
        if not set(found) <= set(range(count))
    ]
    if len(network.heads) > 1:
        problems.append(
            f"it has the convolutions {', '.join(network.heads)} beside those of its "
            "cells, where one, the head, is possible"
        )
    return problems


def _wanted(
    state_dict: Mapping[str, np.ndarray],
    network: Network,
    model: NextFramePredictor,
    shapes: dict[str, Any],
) -> dict[str, tuple[jax.ShapeDtypeStruct, Source]]:
    """Path in the model → array of the file, in the model's order of axes."""
    wanted = {}

    def want(target, shape, key, axes=None, gate_order=""):
        leaf = jax.ShapeDtypeStruct(tuple(shape), np.float32)
        wanted[target] = leaf, Source(key, state_dict.get(key), axes, gate_order)

    gate_order = network.gate_order
    for index, features in enumerate(model.features):
        layer, cell = f"params/layer_{index}", network.cell(index)
        ours = shapes["params"][f"layer_{index}"]
        size, _, below, gates = ours["input_kernel"].shape
        kernels = (size, size, below + features, gates)
        key = f"{cell}.conv.weight"
        want(f"{layer}/{_KERNELS}", kernels, key, _KERNEL_AXES, gate_order)
        want(f"{layer}/bias", (gates,), f"{cell}.conv.bias", None, gate_order)
        for gate in PEEPHOLE_ORDER if "peephole" in ours else ():
            shape = ours["peephole"].shape[1:]
            key = f"{cell}.W_c{gate}"
            want(f"{layer}/peephole of {gate}", shape, key, _PEEPHOLE_AXES)
    for index in range(model.num_normalized_layers):
        for target, name in _STATISTICS:
            key = f"{network.norm(index)}.{name}"
            want(target.format(index), (model.features[index],), key)
    head, ours = (*network.heads, "conv")[0], shapes["params"]["head"]
    want("params/head/kernel", ours["kernel"].shape[1:], f"{head}.weight", _KERNEL_AXES)
    want("params/head/bias", ours["bias"].shape, f"{head}.bias")
    return wanted


def _variables(
    arrays: dict[str, np.ndarray], model: NextFramePredictor
) -> dict[str, Any]:
    """The model's variables from the arrays of `_wanted`."""
    head = {
        "kernel": arrays["params/head/kernel"][None],
        "bias": arrays["params/head/bias"],
    }
    params: dict[str, Any] = {"head": head}
    for index, features in enumerate(model.features):
        layer = f"params/layer_{index}"
        kernels = np.split(arrays[f"{layer}/{_KERNELS}"], [-features], axis=2)
        params[f"layer_{index}"] = {
            "input_kernel": kernels[0],
            "recurrent_kernel": kernels[1],
            "bias": arrays[f"{layer}/bias"],
        }
        if model.peephole != "none":
            params[f"layer_{index}"]["peephole"] = np.stack(
                [arrays[f"{layer}/peephole of {gate}"] for gate in PEEPHOLE_ORDER]
            )
    batch_stats = {}
    for index in range(model.num_normalized_layers):
        name = f"normalization_{index}"
        scale, bias, mean, var = (arrays[t.format(index)] for t, _ in _STATISTICS)
        exact = var.astype(np.float64)
        factor = np.sqrt((exact + BATCH_NORM_EPSILON) / (exact + _TORCH_EPSILON))
        params[name] = {"scale": scale * factor.astype(np.float32), "bias": bias}
        batch_stats[name] = {"mean": mean, "var": var}
    return {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})


def _notes(network: Network, model: NextFramePredictor) -> list[str]:
    order, cell = ", ".join(network.gate_order), network.cell_name.format("N")
    epsilon = f", epsilon {_TORCH_EPSILON:g} in batch normalisation"
    notes = [
        "the file holds only weights, so these settings are assumed: gates in the "
        f"order {order}, as in cells called {cell}, activation "
        f"{model.activation!r}, zeros around the frames"
        f"{epsilon if network.norms else ''}, a sigmoid at the end"
    ]
    if network.norms:
        notes.append(
            "the scales of batch normalisation are those of the file times "
            f"sqrt((variance + {BATCH_NORM_EPSILON:g}) / (variance + "
            f"{_TORCH_EPSILON:g})), as the model adds {BATCH_NORM_EPSILON:g} to the "
            f"variance where PyTorch adds {_TORCH_EPSILON:g}: predictions stay the same"
        )
    return notes
