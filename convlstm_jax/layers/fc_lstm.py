"""The fully connected LSTM, as the ConvLSTM of a one-pixel frame."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.types import Array

VectorCarry = tuple[Float[Array, "B F"], Float[Array, "B F"]]


class FCLSTM(nn.Module):
    """An LSTM with peepholes over vectors (Graves 2013, arXiv:1308.0850).

    With 1×1 kernels on a 1×1 frame, ConvLSTM's equation is the LSTM's and its
    convolutions are matrix products, so one op serves both. A peephole per channel is
    the LSTM's diagonal peephole. Fields are those of `ConvLSTMCell` and
    `RecurrentLayer`.
    """

    features: int
    peephole: str = "channel"
    activation: str = "tanh"
    dtype: Any = jnp.float32
    implementation: str = "fused"
    reverse: bool = False
    memory: str = "default"

    def setup(self) -> None:
        """The ConvLSTM over one-pixel frames."""
        self.lstm = RecurrentLayer(
            ConvLSTMCell(
                features=self.features,
                input_kernel_size=1,
                recurrent_kernel_size=1,
                peephole=self.peephole,
                activation=self.activation,
                dtype=self.dtype,
            ),
            implementation=self.implementation,
            reverse=self.reverse,
            memory=self.memory,
        )

    def __call__(
        self,
        inputs: Float[Array, "B T D"] | None,
        *,
        initial_carry: VectorCarry | None = None,
        seq_lengths: Int[Array, " B"] | None = None,
        num_steps: int | None = None,
    ) -> tuple[VectorCarry, Float[Array, "B T F"]]:
        """Runs the layer over `[B, T, D]`; see `RecurrentLayer`, without H and W."""
        if inputs is not None and inputs.ndim != 3:
            raise ValueError(f"inputs has shape {inputs.shape}: it must be [B, T, D]")
        frame_carry = None
        if initial_carry is not None:
            c, h = initial_carry
            frame_carry = (c[:, None, None, :], h[:, None, None, :])
        carry, outputs = self.lstm(
            None if inputs is None else inputs[:, :, None, None, :],
            initial_carry=frame_carry,
            seq_lengths=seq_lengths,
            num_steps=num_steps,
        )
        cell_state, hidden = carry
        return (cell_state[:, 0, 0], hidden[:, 0, 0]), outputs[:, :, 0, 0]
