"""The convolutional GRU, in the two forms that are in use."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import (
    ACTIVATIONS,
    CellWeights,
    RecurrentCell,
    require_choice,
    state_dtype,
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

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        features = self.features
        kernels = self.kernels(
            input_features,
            gates_input_kernel=(False, 2 * features),
            gates_kernel=(True, 2 * features),
            candidate_input_kernel=(False, features),
            candidate_kernel=(True, features),
        )
        biases = {"bias": 3 * features}
        if self.reset_after:
            biases["recurrent_bias"] = features
        others: dict[str, Array | None] = {
            name: self.param(name, nn.initializers.zeros, (size,), self.param_dtype)
            for name, size in biases.items()
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
        z, r, b_n = _gates(convolve, parameters, carry, inputs, carry)
        candidate = convolve(candidate_input_kernel=inputs, candidate_kernel=r * carry)
        n = apply(candidate.astype(carry.dtype) + b_n)
        hidden = (1 - z) * carry + z * n
        return hidden, hidden

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> Hidden:
        """See `RecurrentCell`."""
        return jnp.zeros((*input_shape[:-1], self.features), state_dtype(self.dtype))


def reset_after_step(
    convolve: Convolve,
    parameters: dict[str, Any],
    hidden: Hidden,
    inputs: CellInputs,
    read: Array,
    apply: Any,
) -> Hidden:
    """The new state; the state-to-state kernels read `read`, see `ConvGRUCell`."""
    z, r, b_n = _gates(convolve, parameters, hidden, inputs, read)
    recurrent = convolve(candidate_kernel=read).astype(hidden.dtype)
    bias = parameters["recurrent_bias"].astype(hidden.dtype)
    candidate = r * (recurrent + per_channel(bias, hidden.shape)) + b_n
    if inputs is not None:
        candidate += convolve(candidate_input_kernel=inputs).astype(hidden.dtype)
    return z * hidden + (1 - z) * apply(candidate)


def _gates(
    convolve: Convolve,
    parameters: dict[str, Any],
    hidden: Hidden,
    inputs: CellInputs,
    read: Array,
) -> list[Array]:
    """The gates z and r, and the bias of n for every pixel."""
    dtype = hidden.dtype
    biases = jnp.split(parameters["bias"].astype(dtype), 3)
    b_z, b_r, b_n = (per_channel(bias, hidden.shape) for bias in biases)
    gates = convolve(gates_input_kernel=inputs, gates_kernel=read)
    gates_z, gates_r = jnp.split(gates.astype(dtype), 2, axis=-1)
    return [jax.nn.sigmoid(gates_z + b_z), jax.nn.sigmoid(gates_r + b_r), b_n]
