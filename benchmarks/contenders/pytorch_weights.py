"""Weights and gradients between `Problem.weights` and the PyTorch networks."""

import re
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.workloads import Arrays
from convlstm_jax.interop.openstl_weights import openstl_name


def load_weights(network: nn.Module, weights: Arrays) -> None:
    """Fills a network; kernels go from `[K, K, C, D]` to `[D, C, K, K]`."""
    state = {}
    for key in network.state_dict():
        found = [weights[path] for path in _paths(key, weights)]
        value = np.concatenate(found, axis=-2) if found[0].ndim > 1 else found[0]
        if value.ndim == 2:  # Of a dense layer.
            value = value[None, None]
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        state[key] = torch.from_numpy(np.ascontiguousarray(value))
    network.load_state_dict(state)


def by_our_paths(gradients: Arrays, weights: Arrays) -> Arrays:
    """Gradients by PyTorch's names to gradients by the paths of `weights`."""
    found: Arrays = {}
    for key, gradient in gradients.items():
        if gradient.ndim == 4:
            gradient = gradient.transpose(2, 3, 1, 0)
        start = 0
        for path in _paths(key, weights):
            shape = weights[path].shape
            part = gradient
            if len(shape) == 4:
                part = gradient[:, :, start : start + shape[2]]
                start += shape[2]
            found[path] = part.reshape(shape)
    return found


def openstl_weights(cell: str) -> tuple[Any, Any]:
    """`load_weights` and `by_our_paths` of the networks with OpenSTL's names."""

    def load(network: nn.Module, weights: Arrays) -> None:
        axes = {3: (2, 0, 1), 4: (3, 2, 0, 1)}
        state = {}
        for path, value in weights.items():
            value = np.ascontiguousarray(value.transpose(axes[value.ndim]))
            state[openstl_name(f"params/{path}", cell)] = torch.from_numpy(value)
        network.load_state_dict(state)

    def back(gradients: Arrays, weights: Arrays) -> Arrays:
        axes = {3: (1, 2, 0), 4: (2, 3, 1, 0)}
        found = {}
        for path in weights:
            gradient = gradients[openstl_name(f"params/{path}", cell)]
            found[path] = gradient.transpose(axes[gradient.ndim])
        return found

    return load, back


def _paths(key: str, weights: Arrays) -> list[str]:
    """Our paths of one PyTorch parameter; those of a kernel read one after another."""
    if key.startswith("output."):
        paths = ["output/bias"]
        if key.endswith("weight"):
            paths = ["output/kernel", "output_kernel"]
    elif key.endswith("recurrent_bias"):
        paths = ["cell/recurrent_bias"]
    else:
        module, convolution, kind = key.rsplit(".", 2)
        layer = re.sub(r"^cells\.", "layer.", module).replace(".", "_")
        names = {
            "convolution": ("input_kernel", "recurrent_kernel"),
            "conv_x": ("input_kernel",),
            "conv_h": ("recurrent_kernel",),
            "input": ("gates_input_kernel",),
            "recurrent": ("gates_kernel",),
            "flow": ("flow_input_kernel", "flow_kernel"),
            "flow_output": ("flow_output_kernel",),
        }[convolution]
        paths = [f"{layer}/{name}" for name in names]
        if kind == "bias":
            prefix = f"{convolution}_" if convolution.startswith("flow") else ""
            paths = [f"{layer}/{prefix}bias"]
    return [path for path in paths if path in weights]
