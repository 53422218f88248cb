"""Flax's own layer: `nn.RNN` around `nn.ConvLSTMCell`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import Settings
from benchmarks.contenders.jax_program import JaxProgram
from benchmarks.workloads import Problem, Workload, reorder_gates

_ORDER = "igfo"


def build(
    name: str, workload: Workload, problem: Problem, settings: Settings
) -> JaxProgram:
    """See `Program`."""
    del name
    size = workload.kernel_size
    features = workload.features[0]
    cell = nn.ConvLSTMCell(features, (size, size), dtype=settings.dtype)
    layer = nn.RNN(cell)
    kernel, recurrent_kernel, bias = (
        reorder_gates(problem.weights[f"cell/{key}"], "ifgo", _ORDER)
        for key in ("input_kernel", "recurrent_kernel", "bias")
    )
    # The cell adds 1 to the forget gate itself, and has a second bias.
    is_forget = np.array([gate == "f" for gate in _ORDER], np.float32)
    weights = {
        "ih": {"kernel": kernel, "bias": bias - np.repeat(is_forget, features)},
        "hh": {"kernel": recurrent_kernel, "bias": np.zeros_like(bias)},
    }

    def apply(weights, frames):
        return layer.apply({"params": {"cell": weights}}, frames.astype(jnp.float32))

    def gradients_by_path(gradients):
        found = {
            "cell/input_kernel": gradients["ih"]["kernel"],
            "cell/recurrent_kernel": gradients["hh"]["kernel"],
            "cell/bias": gradients["ih"]["bias"],
        }
        return {k: reorder_gates(v, _ORDER, "ifgo") for k, v in found.items()}

    return JaxProgram(apply, weights, problem, workload, gradients_by_path)
