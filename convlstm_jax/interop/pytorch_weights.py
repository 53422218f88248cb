"""Weights of ConvLSTM networks in PyTorch.

A cell has one convolution over `torch.cat([x, h], dim=1)`, which gives all four gates.
With zero padding it is the sum of our two. Two kinds of next-frame networks are read:

* `convlstm1.convLSTMcell` …, each followed by a `batchnorm1` …, with gates in the order
  i, f, g, o and peepholes `W_ci`, `W_cf` and `W_co` for every location: R. Panda,
  "Video Prediction using Convolutional LSTM Networks in PyTorch", 2021;
* `cell_list.0` … of https://github.com/ndrplz/ConvLSTM_pytorch, with gates in the order
  i, f, o, g, batch normalisation, if any, of any name.

Both end with a convolution of the last frame's features and a sigmoid.
`convlstm_layers` takes the bare cells of other networks, for use in Python.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convlstm_jax.cells.convlstm import PEEPHOLE_ORDER, ConvLSTMCell
from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import Imported, Placement
from convlstm_jax.interop.torch_files import (
    KERNEL_AXES,
    read_state_dict,
    without_wrappers,
)
from convlstm_jax.models.next_frame import BATCH_NORM_EPSILON, NextFramePredictor

_TORCH_EPSILON = 1e-5  # Of its BatchNorm2d and BatchNorm3d.

_PEEPHOLE_AXES = (1, 2, 0)  # [F, H, W] to [H, W, F].

# Names of cells with {} for the number, the number of the bottom layer, and the order
# in which a cell splits its convolution into gates.
_NAMINGS = (("convlstm{}.convLSTMcell", 1, "ifgo"), ("cell_list.{}", 0, "ifog"))


class _Network(NamedTuple):
    """The names of a network's modules; layers are counted from 0 at the bottom."""

    cell_name: str  # See `_NAMINGS`, also for the next two.
    first: int
    gate_order: str
    cells: dict[int, str]
    norms: dict[int, str]  # By the layer that they follow.
    heads: list[str]  # The convolutions that are in no cell.


def import_pytorch(
    path: str | Path, model: NextFramePredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a state dict of a next-frame network into a `NextFramePredictor`.

    See `Imported`. Keys of the file may begin with anything. PyTorch's batch
    normalisation adds another epsilon to the variance; the scale makes up for it.

    Raises:
        UserError: see `read_state_dict`; the network does not fit the model.
    """
    state_dict = read_state_dict(path)
    network = _find_network(path, state_dict)
    problems = _problems(state_dict, network, model)
    if problems:
        raise UserError(f"'{path}' cannot be imported: {'; '.join(problems)}")
    placement = Placement(f"'{path}' does not fit the model of the config", state_dict)
    variables = _take(placement, network, model, shapes)
    unused, notes = "as the model has no such array", _notes(network, model)
    return Imported(variables, placement.report(lambda key: unused, notes))


def _find_network(path: str | Path, state_dict: Mapping[str, np.ndarray]) -> _Network:
    """Finds the modules by their keys.

    Cells are recognised by name. Batch normalisations are modules with a running mean,
    by number or in the file's order. All other convolutions count as heads.
    """
    convolutions = _convolutions(state_dict)
    suffix = ".running_mean"
    norms = [key.removesuffix(suffix) for key in state_dict if key.endswith(suffix)]
    for cell_name, first, gate_order in _NAMINGS:
        found = _by_number(f"'{path}'", f"{cell_name}.conv", first, convolutions)
        if not found:
            continue
        norms_by_layer = _by_number(f"'{path}'", "batchnorm{}", first, norms)
        if len(norms_by_layer) < len(norms):
            norms_by_layer = dict(enumerate(norms))
        heads = [name for name in convolutions if name not in found.values()]
        cells = {layer: name.removesuffix(".conv") for layer, name in found.items()}
        return _Network(cell_name, first, gate_order, cells, norms_by_layer, heads)
    expected = " or ".join(f"{n.format(k)}.conv.weight" for n, k, _ in _NAMINGS)
    raise UserError(
        f"'{path}' has no ConvLSTM cells of a known name: it must have {expected} "
        f"among its keys, which are {', '.join(state_dict)}"
    )


def _convolutions(state_dict: Mapping[str, Any]) -> list[str]:
    return [
        key.removesuffix(".weight")
        for key, array in state_dict.items()
        if key.endswith(".weight") and array.ndim >= 4
    ]


def _by_number(
    source: str, template: str, first: int, names: Iterable[str]
) -> dict[int, str]:
    """The names that end as a template does, by their numbers less `first`."""
    before, _, after = template.partition("{}")
    pattern = re.compile(rf"(?:.*\.)?{re.escape(before)}(\d+){re.escape(after)}")
    found: dict[int, str] = {}
    for match in filter(None, map(pattern.fullmatch, names)):
        index = int(match[1]) - first
        if index in found:
            raise UserError(
                f"{source} has both {found[index]} and {match[0]}: it must have one "
                "stack of ConvLSTM layers"
            )
        found[index] = match[0]
    return found


def _problems(
    state_dict: Mapping[str, np.ndarray], network: _Network, model: NextFramePredictor
) -> list[str]:
    """Settings that differ, and modules in excess; too few are missing arrays."""
    problems = []
    has_peepholes = any(re.search(r"\.W_c[ifo]$", key) for key in state_dict)
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
    normalized = model.num_normalized_layers
    problems += [
        f"it has the {kind} {', '.join(found.values())}, where model.{field} has place "
        f"for those of the lowest {count} layers"
        for kind, found, count, field in (
            ("cells", network.cells, len(model.features), "features"),
            ("norms", network.norms, normalized, "num_normalized_layers"),
        )
        if not set(found) <= set(range(count))
    ]
    if len(network.heads) > 1:
        problems.append(
            f"it has the convolutions {', '.join(network.heads)} beside those of its "
            "cells, where one, the head, is possible"
        )
    return problems


def _take(
    placement: Placement,
    network: _Network,
    model: NextFramePredictor,
    shapes: dict[str, Any],
) -> dict[str, Any]:
    """The model's variables; what the file lacks is missed under its usual name."""
    take = placement.take
    params: dict[str, Any] = {}
    batch_stats = {}
    for index, features in enumerate(model.features):
        number = index + network.first
        cell = network.cells.get(index, network.cell_name.format(number))
        name = f"layer_{index}"
        wanted = shapes["params"][name]
        size, _, below, _ = wanted["input_kernel"].shape
        params[name] = _take_convolution(
            placement, f"{cell}.conv", f"params/{name}",
            (size, below, features), network.gate_order,
        )  # fmt: skip
        if "peephole" in wanted:
            shape, target = wanted["peephole"].shape[1:], f"params/{name}/peephole of"
            peepholes = [
                take(f"{cell}.W_c{gate}", f"{target} {gate}", shape, _PEEPHOLE_AXES)
                for gate in PEEPHOLE_ORDER
            ]
            params[name]["peephole"] = np.stack(peepholes)
        if index < model.num_normalized_layers:
            norm = network.norms.get(index, f"batchnorm{number}")
            name, shape = f"normalization_{index}", (features,)
            scale = take(f"{norm}.weight", f"params/{name}/scale", shape)
            bias = take(f"{norm}.bias", f"params/{name}/bias", shape)
            mean = take(f"{norm}.running_mean", f"batch_stats/{name}/mean", shape)
            var = take(f"{norm}.running_var", f"batch_stats/{name}/var", shape)
            exact = var.astype(np.float64)
            factor = np.sqrt((exact + BATCH_NORM_EPSILON) / (exact + _TORCH_EPSILON))
            params[name] = {"scale": scale * factor.astype(np.float32), "bias": bias}
            batch_stats[name] = {"mean": mean, "var": var}
    head, wanted = (*network.heads, "conv")[0], shapes["params"]["head"]
    shape = wanted["kernel"].shape[1:]
    kernel = take(f"{head}.weight", "params/head/kernel", shape, KERNEL_AXES)
    bias = take(f"{head}.bias", "params/head/bias", wanted["bias"].shape)
    params["head"] = {"kernel": kernel[None], "bias": bias}
    return {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})


def _take_convolution(
    placement: Placement,
    name: str,
    target: str,
    sizes: tuple[int, int, int],
    gate_order: str,
    use_bias: bool = True,
) -> dict[str, np.ndarray]:
    """The weights of a cell; `sizes` are those of kernel, input and state."""
    size, below, features = sizes
    kernel = placement.take(
        f"{name}.weight",
        f"{target}/input_kernel and recurrent_kernel",
        (size, size, below + features, 4 * features),
        KERNEL_AXES,
        gate_order,
    )
    inputs, recurrent = np.split(kernel, [below], axis=2)
    params = {"input_kernel": inputs, "recurrent_kernel": recurrent}
    if use_bias:
        shape = (4 * features,)
        bias = placement.take(f"{name}.bias", f"{target}/bias", shape, (), gate_order)
        params["bias"] = bias
    return params


def _notes(network: _Network, model: NextFramePredictor) -> tuple[str, ...]:
    order, cell = ", ".join(network.gate_order), network.cell_name.format("N")
    epsilon = ", epsilon 1e-05 in batch normalisation" if network.norms else ""
    assumed = (
        "the file holds only weights, so these settings are assumed: gates in the "
        f"order {order}, as in cells called {cell}, activation {model.activation!r}, "
        f"zeros around the frames{epsilon}, a sigmoid at the end"
    )
    scales = (
        "the scales of batch normalisation make up for the model's other epsilon, "
        f"{BATCH_NORM_EPSILON:g}: predictions stay the same"
    )
    return (assumed, scales) if network.norms else (assumed,)


def convlstm_layers(
    state_dict: Mapping[str, Any],
    *,
    gate_order: str = "ifog",
    convolution: str = "cell_list.{}.conv",
) -> list[tuple[ConvLSTMCell, dict[str, Any]]]:
    """The cell and the variables of a `RecurrentLayer` for each layer, bottom first.

    Peepholes beside a convolution, `W_ci`, `W_cf` and `W_co` or `Wci`, `Wcf` and `Wco`
    of `[1, F, H, W]` or `[F, H, W]`, are taken too (H = W = 1: one weight a channel).

    Args:
        state_dict: from `read_state_dict`, or a module's `state_dict()` on the CPU.
        gate_order: the order in which a cell splits its convolution into gates, a
            permutation of "ifgo", g being the candidate.
        convolution: the name of the convolution of layer `{}`, a number.

    Raises:
        UserError: naming arrays that are missing or do not fit, and other weights
            beside a convolution, such as a normalisation.
    """
    if sorted(gate_order) != sorted("ifgo"):
        raise UserError(
            f"gate_order is {gate_order!r}: it must be a permutation of 'ifgo'"
        )
    arrays = without_wrappers(state_dict)
    found = _by_number("the state dict", convolution, 0, _convolutions(arrays))
    if not found or max(found) - min(found) + 1 != len(found):
        raise UserError(
            f"the state dict must have the kernels {convolution}.weight, numbered "
            f"without a gap: it has {list(found.values()) or 'none'} among "
            f"{list(arrays)}"
        )
    peepholes = {
        index: _peepholes(arrays, name, convolution) for index, name in found.items()
    }
    placement = Placement("the weights of the layers do not fit together", arrays)
    layers = []
    channels = None
    for index, name in sorted(found.items()):
        outputs, inputs, size, *_ = arrays[f"{name}.weight"].shape
        features, use_bias = outputs // 4, f"{name}.bias" in arrays
        # A kernel that is none of input and state together does not have this shape.
        channels = max(inputs - features, 1) if channels is None else channels
        sizes = size, channels, features
        params = _take_convolution(
            placement, name, f"layer {index}", sizes, gate_order, use_bias
        )
        kind = "none"
        if names := peepholes[index]:
            known = next(arrays[n] for n in names if n in arrays)
            _, height, width = (*np.shape(known), 1, 1)[:3]
            kind = "channel" if height == width == 1 else "location"
            shape, target = (height, width, features), f"layer {index}/peephole"
            weights = [placement.take(n, target, shape, _PEEPHOLE_AXES) for n in names]
            weight = np.stack(weights)
            params["peephole"] = weight[:, 0, 0] if kind == "channel" else weight
        cell = ConvLSTMCell(features, size, size, peephole=kind, use_bias=use_bias)
        layers.append((cell, {"params": {"cell": params}}))
        channels = features
    placement.report(lambda name: "as it belongs to no layer")
    return layers


def _peepholes(arrays: dict[str, Any], name: str, convolution: str) -> list[str]:
    """The names of a cell's peepholes in our order, their arrays made `[F, H, W]`."""
    if "{}" not in convolution.rpartition(".")[0]:
        return []  # What stands beside it may be of any layer.
    module = name.rpartition(".")[0]
    found = {}
    for key in arrays:
        if not key.startswith(f"{module}.") or key.startswith(f"{name}."):
            continue
        match = re.fullmatch(r"W_?c([ifo])", key.removeprefix(f"{module}."))
        if match is None:
            raise UserError(
                f"the state dict has {key} beside {name}: a cell may have peepholes, "
                "W_ci, W_cf and W_co, there, and no other weights, such as those of a "
                "normalisation"
            )
        found[match[1]] = key
        array = np.asarray(arrays[key])
        arrays[key] = array[0] if array.ndim == 4 else array
    return [found.get(gate, f"{module}.W_c{gate}") for gate in PEEPHOLE_ORDER if found]
