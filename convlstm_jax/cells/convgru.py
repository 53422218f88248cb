"""The convolutional GRU of Ballas et al. 2016, arXiv:1511.06432."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, state_dtype
from convlstm_jax.ops.engine import CellInputs, Convolve, per_channel
from convlstm_jax.types import Array, Hidden


class ConvGRUCell(RecurrentCell):
    """One step of a convolutional GRU (arXiv:1511.06432, equations 6 to 9).

        z = σ(W_z∗x + U_z∗h + b_z)
        r = σ(W_r∗x + U_r∗h + b_r)
        n = tanh(W_n∗x + U_n∗(r∘h) + b_n)
        h' = (1 − z)∘h + z∘n

    The carry and the output are h `[B, H, W, F]`, float32 whatever `dtype` is. Gates
    stand in the order z, r (, n) along the last axis of kernels and bias.

    Attributes: See `RecurrentCell`.
    """

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
        bias = self.param(
            "bias", nn.initializers.zeros, (3 * features,), self.param_dtype
        )
        return CellWeights(kernels, {"bias": bias})

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Hidden,
        inputs: CellInputs,
    ) -> tuple[Hidden, Hidden]:
        """See `RecurrentCell`."""
        dtype = carry.dtype
        biases = jnp.split(parameters["bias"].astype(dtype), 3)
        b_z, b_r, b_n = (per_channel(bias, carry.shape) for bias in biases)
        gates = convolve(gates_input_kernel=inputs, gates_kernel=carry)
        gates_z, gates_r = jnp.split(gates.astype(dtype), 2, axis=-1)
        z, r = jax.nn.sigmoid(gates_z + b_z), jax.nn.sigmoid(gates_r + b_r)
        candidate = convolve(candidate_input_kernel=inputs, candidate_kernel=r * carry)
        n = jnp.tanh(candidate.astype(dtype) + b_n)
        hidden = (1 - z) * carry + z * n
        return hidden, hidden

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> Hidden:
        """See `RecurrentCell`."""
        return jnp.zeros((*input_shape[:-1], self.features), state_dtype(self.dtype))
