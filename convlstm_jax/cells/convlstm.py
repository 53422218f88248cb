"""The convolutional LSTM of Shi et al. 2015, arXiv:1506.04214."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from convlstm_jax.cells.cell import (
    ACTIVATIONS,
    CellWeights,
    RecurrentCell,
    require_choice,
    state_dtype,
    sum_of_convolutions,
)
from convlstm_jax.ops.engine import CellInputs, Convolve, per_channel
from convlstm_jax.types import Array, Carry, Hidden

# The order of the four gates along the last axis of every kernel and bias, declared
# here and nowhere else: input, forget, candidate, output.
GATE_ORDER = ("i", "f", "g", "o")

# Which gates look at the cell state, in the order of the peephole's first axis.
PEEPHOLE_ORDER = ("i", "f", "o")

PEEPHOLES = ("none", "channel", "location")


def forget_gate_ones(
    key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Initial bias `[4F]`: one for the forget gate, zero for the others.

    A cell that starts out remembering trains faster (Jozefowicz et al. 2015).
    """
    features = shape[0] // 4
    return jnp.zeros(shape, dtype).at[features : 2 * features].set(1)


def peephole_shape(
    peephole: str, features: int, height: Any, width: Any
) -> tuple[int, ...] | None:
    """The shape of the peephole weights: `None`, `(3, F)` or `(3, H, W, F)`.

    "channel" is one weight per channel and gate, the form that gives the parameter
    counts of arXiv:1506.04214, table 1; "location" is one per pixel, channel and gate,
    the Hadamard product of its equation 3, which ties the weights to one frame size.
    """
    location = {"none": None, "channel": (), "location": (height, width)}[peephole]
    return None if location is None else (len(PEEPHOLE_ORDER), *location, features)


def split_gates(pre_activations: Float[Array, "... G"]) -> list[Array]:
    """Splits `[..., 4·F]` into the four gates of `GATE_ORDER`, each `[..., F]`."""
    return list(jnp.split(pre_activations, len(GATE_ORDER), axis=-1))


class ConvLSTMCell(RecurrentCell):
    """One step of a convolutional LSTM with peepholes (arXiv:1506.04214, equation 3).

        i = σ(Wᵢ∗x + Uᵢ∗h + pᵢ∘c + bᵢ)       c' = f∘c + i∘φ(W_g∗x + U_g∗h + b_g)
        f = σ(W_f∗x + U_f∗h + p_f∘c + b_f)    o  = σ(Wₒ∗x + Uₒ∗h + pₒ∘c' + bₒ)
                                              h' = o∘φ(c')

    The carry is `(c, h)`, each `[B, H, W, F]`; c is float32 whatever `dtype` is. The
    output is h'.

    Attributes: See `RecurrentCell`; and
        peephole: "channel" (one weight per channel), "location" (one per pixel and
            channel) or "none".
        activation: φ, one of `ACTIVATIONS`.
        use_bias: Whether every gate has a bias.
        layer_norm: Whether W∗x and U∗h are each normalised over height, width and
            channels of a sample, with a weight and an offset per pixel and channel, as
            in OpenSTL's cells.
        forget_offset: Constant added to the forget gate before its sigmoid.
    """

    peephole: str = "channel"
    activation: str = "tanh"
    use_bias: bool = True
    layer_norm: bool = False
    forget_offset: float = 0.0
    bias_init: nn.initializers.Initializer = forget_gate_ones
    peephole_init: nn.initializers.Initializer = nn.initializers.zeros

    def __post_init__(self) -> None:
        """Refuses invalid fields before any parameter is created."""
        require_choice("peephole", self.peephole, PEEPHOLES)
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        super().__post_init__()

    @property
    def reach(self) -> int | None:
        """See `RecurrentCell`; a layer norm reads the whole frame."""
        return None if self.layer_norm else self.recurrent_kernel_size // 2

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        gates, others = 4 * self.features, {}
        kernels = self.kernels(
            input_features, input_kernel=(False, gates), recurrent_kernel=(True, gates)
        )

        def other(name: str, init: Any, shape: tuple[int, ...]) -> None:
            others[name] = self.param(name, init, shape, self.param_dtype)

        if self.use_bias:
            other("bias", self.bias_init, (gates,))
        shape = peephole_shape(self.peephole, self.features, height, width)
        if shape is not None:
            other("peephole", self.peephole_init, shape)
        if self.layer_norm:
            others |= self.norms(height, width, input=gates, recurrent=gates)
        return CellWeights(kernels, others)

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Carry,
        inputs: CellInputs,
    ) -> tuple[Carry, Hidden]:
        """See `RecurrentCell`."""
        cell_state, hidden = carry
        dtype = cell_state.dtype
        z = sum_of_convolutions(
            self, convolve, parameters, input=inputs, recurrent=hidden
        )
        # Gate by gate: XLA:CPU then keeps its fast convolution inside a loop.
        gates = split_gates(z)
        if self.use_bias:
            biases = split_gates(parameters["bias"].astype(dtype))
            gates = [
                gate + per_channel(bias, gate.shape)
                for gate, bias in zip(gates, biases, strict=True)
            ]
        z_i, z_f, z_g, z_o = gates
        if self.forget_offset:
            z_f = z_f + self.forget_offset
        apply = ACTIVATIONS[self.activation]

        def look(z: Array, index: int, state: Array) -> Array:
            if self.peephole == "none":
                return z
            weight = parameters["peephole"][index].astype(dtype)
            per_location = self.peephole == "location"
            weight = weight[None] if per_location else per_channel(weight, state.shape)
            return z + weight * state

        i = jax.nn.sigmoid(look(z_i, 0, cell_state))
        f = jax.nn.sigmoid(look(z_f, 1, cell_state))
        cell_state = f * cell_state + i * apply(z_g)
        o = jax.nn.sigmoid(look(z_o, 2, cell_state))
        hidden = (o * apply(cell_state)).astype(self.dtype)
        return (cell_state, hidden), hidden

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> Carry:
        """See `RecurrentCell`."""
        shape = (*input_shape[:-1], self.features)
        return jnp.zeros(shape, state_dtype(self.dtype)), jnp.zeros(shape, self.dtype)
