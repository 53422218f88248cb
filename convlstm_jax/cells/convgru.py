"""The convolutional GRU, in the two forms that are in use."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import (
    ACTIVATIONS,
    CellWeights,
    RecurrentCell,
    require_choice,
)
from convlstm_jax.ops.engine import CellInputs, Convolve, per_channel
from convlstm_jax.types import Array, Hidden


class ConvGRUCell(RecurrentCell):
    """One step of a convolutional GRU.

    Ballas et al. 2016, arXiv:1511.06432, equations 6 to 9:

        z = σ(W_z∗x + U_z∗h + b_z)       n = φ(W_n∗x + U_n∗(r∘h) + b_n)
        r = σ(W_r∗x + U_r∗h + b_r)       h' = (1 − z)∘h + z∘n

    With `reset_after`, the reset gate comes after the convolution and z is what the
    state keeps, as in Shi et al. 2017, arXiv:1706.03458 (with leaky ReLU as φ), and in
    the GRUs of PyTorch and cuDNN:

        n = φ(W_n∗x + b_n + r∘(U_n∗h + c_n))       h' = z∘h + (1 − z)∘n

    Where the published code has two biases that are added, here is their sum. The carry
    and the output are h `[B, H, W, F]`, float32 whatever `dtype` is. Gates stand in the
    order z, r (, n) along the last axis of kernels and bias.

    Attributes: See `RecurrentCell`; and
        reset_after: Which form; only the second has c, the "recurrent_bias".
        activation: φ, one of `ACTIVATIONS`.
    """

    reset_after: bool = False
    activation: str = "tanh"

    def __post_init__(self) -> None:
        """Refuses invalid fields before any parameter is created."""
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        super().__post_init__()

    @property
    def reach(self) -> int:
        """See `RecurrentCell`; without `reset_after` two convolutions follow."""
        return self.recurrent_kernel_size // 2 * (1 if self.reset_after else 2)

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        features, sizes = self.features, {"bias": 3 * self.features}
        gates = 3 * features if self.reset_after else 2 * features
        outputs = {"gates_input_kernel": (False, gates), "gates_kernel": (True, gates)}
        if self.reset_after:
            sizes["recurrent_bias"] = features
        else:
            outputs["candidate_input_kernel"] = False, features
            outputs["candidate_kernel"] = True, features
        kernels = self.kernels(input_features, **outputs)
        others: dict[str, Array | None] = {
            name: self.param(name, nn.initializers.zeros, (size,), self.param_dtype)
            for name, size in sizes.items()
        }
        return CellWeights(kernels, others)

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Hidden,
        inputs: CellInputs,
    ) -> tuple[Hidden, Hidden]:
        """See `RecurrentCell`."""
        apply = ACTIVATIONS[self.activation]
        if self.reset_after:
            hidden = reset_after_step(convolve, parameters, carry, inputs, carry, apply)
            return hidden, hidden
        dtype = carry.dtype
        b_z, b_r, b_n = _biases(parameters, carry)
        gates = convolve(gates_input_kernel=inputs, gates_kernel=carry)
        gates_z, gates_r = jnp.split(gates.astype(dtype), 2, axis=-1)
        z, r = jax.nn.sigmoid(gates_z + b_z), jax.nn.sigmoid(gates_r + b_r)
        candidate = convolve(candidate_input_kernel=inputs, candidate_kernel=r * carry)
        n = apply(candidate.astype(dtype) + b_n)
        hidden = (1 - z) * carry + z * n
        return hidden, hidden


def reset_after_step(
    convolve: Convolve,
    parameters: dict[str, Any],
    hidden: Hidden,
    inputs: CellInputs,
    read: Array,
    apply: Callable[[Array], Array],
) -> Hidden:
    """The new state; the state-to-state kernel reads `read`, see `ConvGRUCell`."""
    dtype = hidden.dtype
    z, r, n = _biases(parameters, hidden)
    if inputs is not None:
        from_inputs = convolve(gates_input_kernel=inputs).astype(dtype)
        x_z, x_r, x_n = jnp.split(from_inputs, 3, axis=-1)
        z, r, n = z + x_z, r + x_r, n + x_n
    from_state = convolve(gates_kernel=read).astype(dtype)
    h_z, h_r, h_n = jnp.split(from_state, 3, axis=-1)
    z, r = jax.nn.sigmoid(z + h_z), jax.nn.sigmoid(r + h_r)
    bias = per_channel(parameters["recurrent_bias"].astype(dtype), hidden.shape)
    return z * hidden + (1 - z) * apply(n + r * (h_n + bias))


def _biases(parameters: dict[str, Any], hidden: Hidden) -> list[Array]:
    """Those of z, r and n, for every pixel."""
    biases = jnp.split(parameters["bias"].astype(hidden.dtype), 3)
    return [per_channel(bias, hidden.shape) for bias in biases]
