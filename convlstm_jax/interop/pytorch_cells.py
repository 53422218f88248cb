"""ConvLSTM layers from the usual PyTorch cells: one convolution over input and state.

Such a cell holds one `nn.Conv2d` that reads `torch.cat([x, h], dim=1)` and gives all
four gates, as in https://github.com/ndrplz/ConvLSTM_pytorch, where a stack of them is
called `cell_list` and the gates come in the order i, f, o, g:

    state_dict = read_state_dict("convlstm.pth")
    stack = convlstm_layers(state_dict, gate_order="ifog")
    hidden = clip  # [B, T, H, W, C]
    for layer in stack.layers:
        carry, hidden = ConvLSTM(layer.cell()).apply(layer.variables(), hidden)

Such files lack the model around the layers, so this is a function to call from Python;
the command line imports only the networks of `pytorch_network`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import ImportReport, reorder_gates
from convlstm_jax.interop.torch_files import without_wrappers
from convlstm_jax.ops.cell import Weights


class ImportedLayer(NamedTuple):
    """One layer of a stack.

    Attributes:
        weights: as `ops` takes them; `peephole` is `None`, and `bias` too where the
            convolution had none.
    """

    weights: Weights

    def cell(self, **fields: Any) -> ConvLSTMCell:
        """The cell for these weights; `fields` sets further fields of it."""
        size, _, features, _ = self.weights.recurrent_kernel.shape
        return ConvLSTMCell(
            features=features,
            input_kernel_size=size,
            recurrent_kernel_size=size,
            peephole="none",
            use_bias=self.weights.bias is not None,
            **fields,
        )

    def variables(self) -> dict[str, Any]:
        """The variables of a `ConvLSTM` that runs `cell()`."""
        params = {k: v for k, v in self.weights._asdict().items() if v is not None}
        return {"params": {"cell": params}}


class ImportedStack(NamedTuple):
    """The layers of a stack, bottom layer first, and what went where."""

    layers: tuple[ImportedLayer, ...]
    report: ImportReport


def convlstm_layers(
    state_dict: Mapping[str, Any],
    *,
    gate_order: str = "ifog",
    convolution: str = "cell_list.{}.conv",
) -> ImportedStack:
    """Takes the ConvLSTM layers out of a PyTorch state dict.

    Args:
        state_dict: NumPy arrays by key, from `torch_files.read_state_dict`, or a
            module's own `state_dict()` on the CPU. Keys may begin with anything.
        gate_order: the order in which the cell splits its convolution into gates, a
            permutation of "ifgo", g being the candidate: "ifog" and "ifgo" are common.
        convolution: the name of the convolution of layer `{}`, counted from 0.

    Returns:
        The layers, and a report that lists the keys that were not used.

    Raises:
        UserError: an impossible `gate_order` or `convolution`; no such key; weights
            that are no fused convolution over input and state, or do not fit one
            another.
    """
    if sorted(gate_order) != sorted("ifgo"):
        raise UserError(
            f"gate_order is {gate_order!r}: it must be a permutation of 'ifgo'"
        )
    if convolution.count("{}") != 1:
        raise UserError(
            f"convolution is {convolution!r}: it must hold '{{}}' once, for the "
            "number of the layer"
        )
    state_dict = without_wrappers(state_dict)
    layers, placed = [], []
    features_below = None
    for index, key in enumerate(_weight_keys(state_dict, convolution)):
        kernel = np.asarray(state_dict[key], np.float32)
        features = _check_kernel(key, kernel, features_below)
        kernel = reorder_gates(kernel.transpose(2, 3, 1, 0), gate_order)
        bias, bias_key = None, f"{key.removesuffix('weight')}bias"
        if bias_key in state_dict:
            bias = np.asarray(state_dict[bias_key], np.float32)
            if bias.shape != (4 * features,):
                raise UserError(
                    f"{bias_key} has shape {bias.shape}: it must be {(4 * features,)}"
                )
            bias = reorder_gates(bias, gate_order)
            placed.append((bias_key, f"layer {index}: bias"))
        kernels = np.split(kernel, [-features], axis=2)
        placed.append((key, f"layer {index}: input_kernel and recurrent_kernel"))
        weights = Weights(*jax.tree.map(jnp.asarray, (*kernels, bias, None)))
        layers.append(ImportedLayer(weights))
        features_below = features
    used = {key for key, _ in placed}
    skipped = tuple(
        (key, "as it belongs to no ConvLSTM layer")
        for key in state_dict
        if key not in used
    )
    return ImportedStack(tuple(layers), ImportReport(tuple(placed), skipped))


def _weight_keys(state_dict: Mapping[str, Any], convolution: str) -> list[str]:
    """The keys of the layers' kernels, bottom layer first."""
    before, after = map(re.escape, convolution.split("{}"))
    pattern = re.compile(rf"(.*\.)?{before}(\d+){after}\.weight")
    matches = [match for match in map(pattern.fullmatch, state_dict) if match]
    matches.sort(key=lambda match: int(match[2]))
    numbers = [int(match[2]) for match in matches]
    if not numbers or numbers != list(range(len(numbers))):
        raise UserError(
            f"the state dict must have the kernels {convolution}.weight for one stack, "
            f"numbered from 0 on: it has {[match[0] for match in matches] or 'none'} "
            f"among {list(state_dict)}"
        )
    return [match[0] for match in matches]


def _check_kernel(key: str, kernel: np.ndarray, features_below: int | None) -> int:
    """Returns F of a fused kernel `[4F, C + F, K, K]`, where C is that of the input."""
    outputs, inputs, height, width = shape = (*kernel.shape, 0, 0, 0, 0)[:4]
    features = outputs // 4
    is_fused = outputs % 4 == 0 and inputs > features and height == width
    if kernel.ndim != 4 or not is_fused or height % 2 == 0:
        raise UserError(
            f"{key} has shape {kernel.shape}: it must be (4F, C + F, K, K) with odd K, "
            "the kernel of one convolution over input and state"
        )
    if features_below is not None and inputs != features_below + features:
        raise UserError(
            f"{key} has shape {shape}: it must read {features_below} channels of the "
            f"layer below and {features} of its own state"
        )
    return features
