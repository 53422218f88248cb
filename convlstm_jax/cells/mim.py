"""The memory in memory cell, Wang et al. 2019.

Y. Wang et al., "Memory In Memory: A Predictive Neural Network for Learning Higher-Order
Non-Stationarity from Spatiotemporal Dynamics", CVPR 2019, arXiv:1811.07490.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, state_dtype
from convlstm_jax.cells.predrnn import SpatiotemporalCell, SpatiotemporalLSTMCell
from convlstm_jax.ops.engine import Convolve
from convlstm_jax.types import Array, Frame, Hidden, PerExample

_MODULES = ("nonstationary", "stationary")
_OF_MODULES = "I G F O"  # The gates of MIM-N and MIM-S, which are used all together.


class MIMCarry(NamedTuple):
    """The states of a MIM layer, all `[B, H, W, F]` unless it says otherwise."""

    cell_state: Frame
    memory: Frame
    difference: Frame
    """The new d, for the layer above."""
    nonstationary: tuple[Frame, Frame]
    """d and its cell state n."""
    stationary: Frame
    """s."""
    previous_inputs: Frame | None
    """`[B, H, W, C]`, of the first MIM layer alone."""
    started: PerExample
    """`[B]`, 0 before the first step and 1 afterwards."""
    hidden: Hidden


class MIMCell(SpatiotemporalCell):
    """One step of memory in memory (arXiv:1811.07490, equations 2 to 4).

    An ST-LSTM whose forget gate is replaced by two memories: MIM-N models the
    non-stationary part of the motion, from differences d between successive inputs,
    and MIM-S the stationary part t.

        MIM(x, h, c):  i = σ(Wᵢ∗x + Uᵢ∗h + pᵢ∘c)        c' = f∘c + i∘tanh(W_g∗x + U_g∗h)
                       f = σ(W_f∗x + U_f∗h + p_f∘c + b)  o = σ(Wₒ∗x + Uₒ∗h + pₒ∘c')
                       returns o∘tanh(c'), c'
        d', n' = MIM-N(x − x₋₁, d, n)
        t, s' = MIM-S(d', c, s)
        i = σ(Wᵢ∗x + Uᵢ∗h), g = tanh(W_g∗x + U_g∗h)
        i' = σ(Wᵢ∗x + Mᵢ∗m), g' = tanh(W_g∗x + M_g∗m), f' = σ(W_f∗x + M_f∗m + b)
        c' = t + i∘g                          m' = f'∘m + i'∘g'
        h' = σ(Wₒ∗x + Uₒ∗h + Mₒ∗m)∘tanh(V∗[c', m'])

    V is a 1×1 convolution, b is `forget_offset`, the peepholes p have a weight per
    location. Gates stand in the order i, g, f, o (or i, g, o) along the last axis of
    kernels, as in OpenSTL. As there, d is 0 in the first step, only the
    first MIM layer takes the difference of its inputs, and those above read the d of
    the layer below; unlike there, the gradient goes through s, and every clip begins
    with s = 0. In a stack, `layers`, the bottom layer is an ST-LSTM.

    Attributes: See `SpatiotemporalCell`; and
        first: Whether no MIM layer stands below this one.
    """

    passed: ClassVar[tuple[str, ...]] = ("memory", "difference")
    parts_of_inputs: ClassVar[tuple[str, ...]] = ("input", "nonstationary_input")
    has_locations: ClassVar[bool] = True
    only_convolves_inputs: ClassVar[bool] = False

    gates: ClassVar[dict[str, str]] = {
        "input": "i g f o",
        "recurrent": "i g o",
        "memory": "i g f o",
        "nonstationary_input": _OF_MODULES,
        "nonstationary_recurrent": _OF_MODULES,
        "stationary_input": _OF_MODULES,
        "stationary_recurrent": _OF_MODULES,
    }
    sums: ClassVar[tuple[str, ...]] = ("i g", "f", "o")

    first: bool = True

    @classmethod
    def layers(cls, features: Sequence[int], **fields: Any) -> list[RecurrentCell]:
        """See `RecurrentCell`: with an ST-LSTM as the bottom layer."""
        bottom = SpatiotemporalLSTMCell(features[0], name="layer_0", **fields)
        above = [
            cls(features=count, name=f"layer_{index}", first=index == 1, **fields)
            for index, count in enumerate(features[1:], 1)
        ]
        return [bottom, *above]

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        kernels, others = super().weights(input_features, height, width)
        for module in _MODULES:
            for name, count in (("peephole", 2), ("output_peephole", 1)):
                shape = (height, width, count * self.features)
                others[f"{module}_{name}"] = self.param(
                    f"{module}_{name}", nn.initializers.zeros, shape, self.param_dtype
                )
        return CellWeights(kernels, others)

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: MIMCarry,
        inputs: Any,
    ) -> tuple[MIMCarry, Hidden]:
        """See `RecurrentCell`."""
        c, m, difference, (d, n), s, previous, started, h = carry
        if previous is not None:
            difference, previous = inputs - previous, inputs
        added, sigmoid = self.adding(convolve, parameters), jax.nn.sigmoid

        def module(name: str, x: Frame, h: Hidden, c: Hidden) -> tuple[Hidden, Hidden]:
            """A step of MIM-N or MIM-S: its output and its cell state."""
            reads = {f"{name}_input": x, f"{name}_recurrent": h}
            i, g, f, o = added(_OF_MODULES, **reads)
            weights = parameters[f"{name}_peephole"][None].astype(c.dtype)
            p_i, p_f = jnp.split(weights, 2, axis=-1)
            i, f = sigmoid(i + p_i * c), sigmoid(f + p_f * c + self.forget_offset)
            c = f * c + i * jnp.tanh(g)
            p_o = parameters[f"{name}_output_peephole"][None].astype(c.dtype)
            return sigmoid(o + p_o * c) * jnp.tanh(c), c

        new_d, new_n = module("nonstationary", difference, d, n)
        has_started = started[:, None, None, None] > 0
        d, n = jnp.where(has_started, new_d, d), jnp.where(has_started, new_n, n)
        t, s = module("stationary", d, c, s)
        x_i, x_g = added("i g", input=inputs)
        h_i, h_g = added("i g", recurrent=h)
        m_i, m_g = added("i g", memory=m)
        (f,) = added("f", input=inputs, memory=m)
        (o,) = added("o", input=inputs, recurrent=h, memory=m)
        c = t + sigmoid(x_i + h_i) * jnp.tanh(x_g + h_g)
        new = sigmoid(x_i + m_i) * jnp.tanh(x_g + m_g)
        m = sigmoid(f + self.forget_offset) * m + new
        mixed = convolve(mixing_kernel=jnp.concatenate([c, m], axis=-1))
        h = (sigmoid(o) * jnp.tanh(mixed.astype(c.dtype))).astype(self.dtype)
        one = jnp.ones_like(started)
        return MIMCarry(c, m, d, (d, n), s, previous, one, h), h

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> MIMCarry:
        """See `RecurrentCell`."""
        dtype = state_dtype(self.dtype)
        state = jnp.zeros((*input_shape[:-1], self.features), dtype)
        previous = jnp.zeros(input_shape, self.dtype) if self.first else None
        return MIMCarry(
            cell_state=state,
            memory=state,
            difference=state,
            nonstationary=(state, state),
            stationary=state,
            previous_inputs=previous,
            started=jnp.zeros(input_shape[:1], dtype),
            hidden=state.astype(self.dtype),
        )
