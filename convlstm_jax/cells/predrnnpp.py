"""The causal LSTM and the gradient highway unit of PredRNN++, Wang et al. 2018.

Y. Wang et al., "PredRNN++: Towards A Resolution of the Deep-in-Time Dilemma in
Spatiotemporal Predictive Learning", ICML 2018, arXiv:1804.06300.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, normalise, state_dtype
from convlstm_jax.cells.predrnn import (
    SpatiotemporalCarry,
    SpatiotemporalCell,
    split_gates,
)
from convlstm_jax.ops.engine import CellInputs, Convolve
from convlstm_jax.types import Array, Frame, Hidden


class CausalLSTMCell(SpatiotemporalCell):
    """One step of PredRNN++'s causal LSTM (arXiv:1804.06300, equation 2).

        i = σ(Wᵢ∗x + Uᵢ∗h + Cᵢ∗c)           i' = σ(W'ᵢ∗x + Nᵢ∗c' + Mᵢ∗m)
        f = σ(W_f∗x + U_f∗h + C_f∗c + b)     f' = σ(W'_f∗x + N_f∗c' + M_f∗m + b)
        g = tanh(W_g∗x + U_g∗h + C_g∗c)      g' = tanh(W'_g∗x + N_g∗c')
        c' = f∘c + i∘g                       m' = f'∘tanh(M∗m) + i'∘g'
        o = tanh(Wₒ∗x + Uₒ∗h + Nₒ∗c' + Vₒ∗m')
        h' = o∘tanh(V∗[c', m'])

    V is a 1×1 convolution, b is `forget_offset`. Along the last axis of kernels gates
    stand in OpenSTL's orders: i, f, g, i', f', g', o (W); i, f, g, o (U); i, f, g (C);
    i', f', m (M); i', g', f', o (N). In a stack, `layers`, a gradient highway unit
    stands between the first and the second layer (section 3.3 of the paper).

    Attributes: See `SpatiotemporalCell`.
    """

    @classmethod
    def layers(cls, features: Sequence[int], **fields: Any) -> list[RecurrentCell]:
        """See `RecurrentCell`: with the gradient highway unit as the second cell."""
        cells = super().layers(features, **fields)
        if len(cells) > 1:
            own = GradientHighwayCell.__dataclass_fields__
            known = {name: value for name, value in fields.items() if name in own}
            highway = GradientHighwayCell(
                features=features[0], name="gradient_highway", **known
            )
            cells.insert(1, highway)
        return cells

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        gates = {"input": 7, "recurrent": 4, "cell": 3, "memory": 3}
        gates |= {"cell_to_memory": 4, "memory_to_output": 1}
        size = (height, width)
        kernels, norms = self.spatiotemporal_weights(input_features, size, **gates)
        if self.layer_norm:
            return CellWeights(kernels, norms)
        kernels = dict(kernels)
        w_i, w_f, w_g, w_i2, w_f2, w_g2, w_o = split_gates(
            kernels.pop("input_kernel"), 7
        )
        u_i, u_f, u_g, u_o = split_gates(kernels.pop("recurrent_kernel"), 4)
        m_i, m_f, m_m = split_gates(kernels.pop("memory_kernel"), 3)
        n_i, n_g, n_f, n_o = split_gates(kernels.pop("cell_to_memory_kernel"), 4)
        return CellWeights(
            kernels
            | {
                "w_cell": _joined(w_i, w_f, w_g),
                "u_cell": _joined(u_i, u_f, u_g),
                "w_memory": _joined(w_i2, w_f2),
                "n_memory": _joined(n_i, n_f),
                "m_memory": _joined(m_i, m_f),
                "w_candidate": w_g2,
                "n_candidate": n_g,
                "m_candidate": m_m,
                "w_output": w_o,
                "u_output": u_o,
                "n_output": n_o,
            },
            norms,
        )

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: SpatiotemporalCarry,
        inputs: CellInputs,
    ) -> tuple[SpatiotemporalCarry, Hidden]:
        """See `RecurrentCell`."""
        sigmoid, offset = jax.nn.sigmoid, self.forget_offset
        c, m, _, h = carry

        def cell_state(i: Frame, f: Frame, g: Frame) -> Frame:
            return sigmoid(f + offset) * c + sigmoid(i) * jnp.tanh(g)

        def memory(i: Frame, f: Frame, g: Frame, m_m: Frame) -> Frame:
            return sigmoid(f + offset) * jnp.tanh(m_m) + sigmoid(i) * jnp.tanh(g)

        if self.layer_norm:

            def convolved(part: str, array: Any, gates: int) -> list[Frame]:
                return split_gates(
                    self.convolved(convolve, parameters, part, array), gates
                )

            x_i, x_f, x_g, x_i2, x_f2, x_g2, x_o = convolved("input", inputs, 7)
            h_i, h_f, h_g, h_o = convolved("recurrent", h, 4)
            c_i, c_f, c_g = convolved("cell", c, 3)
            m_i, m_f, m_m = convolved("memory", m, 3)
            c = cell_state(x_i + h_i + c_i, x_f + h_f + c_f, x_g + h_g + c_g)
            n_i, n_g, n_f, n_o = convolved("cell_to_memory", c, 4)
            m = memory(x_i2 + m_i + n_i, x_f2 + m_f + n_f, x_g2 + n_g, m_m)
            (v_o,) = convolved("memory_to_output", m, 1)
            o = x_o + h_o + n_o + v_o
        else:

            def summed(gates: int, **arrays: Any) -> list[Frame]:
                return split_gates(convolve(**arrays).astype(m_before.dtype), gates)

            m_before = m
            c = cell_state(*summed(3, w_cell=inputs, u_cell=h, cell_kernel=c))
            i, f = summed(2, w_memory=inputs, n_memory=c, m_memory=m_before)
            (g,) = summed(1, w_candidate=inputs, n_candidate=c)
            (m_m,) = summed(1, m_candidate=m_before)
            m = memory(i, f, g, m_m)
            (o,) = summed(
                1, w_output=inputs, u_output=h, n_output=c, memory_to_output_kernel=m
            )
        o = jnp.tanh(o)
        both = jnp.concatenate([c, m], axis=-1)
        mixed = convolve(mixing_kernel=both).astype(c.dtype)
        h = (o * jnp.tanh(mixed)).astype(self.dtype)
        return SpatiotemporalCarry(c, m, None, h), h


def _joined(*kernels: Array) -> Array:
    return jnp.concatenate(kernels, axis=-1)


def _almost_zero(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, minval=-0.001, maxval=0.001)


class GradientHighwayCell(RecurrentCell):
    """One step of the gradient highway unit (arXiv:1804.06300, equation 3).

        p = tanh(W_p∗x + Z_p∗z)
        s = σ(W_s∗x + Z_s∗z)
        z' = s∘p + (1 − s)∘z

    The carry and the output are z `[B, H, W, F]`, float32 whatever `dtype` is. Kernels
    are initialised uniformly in ±0.001, so that at first z' is about half of z.

    Attributes: See `RecurrentCell`; and
        layer_norm: See `SpatiotemporalCell`.
    """

    layer_norm: bool = False
    kernel_init: nn.initializers.Initializer = _almost_zero
    recurrent_kernel_init: nn.initializers.Initializer = _almost_zero

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        gates = 2 * self.features
        kernels = self.kernels(
            input_features, input_kernel=(False, gates), recurrent_kernel=(True, gates)
        )
        norms = {"input": gates, "recurrent": gates} if self.layer_norm else {}
        return CellWeights(kernels, self.norms(height, width, **norms))

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Hidden,
        inputs: CellInputs,
    ) -> tuple[Hidden, Hidden]:
        """See `RecurrentCell`."""
        if self.layer_norm:
            x = convolve(input_kernel=inputs).astype(carry.dtype)
            z = convolve(recurrent_kernel=carry).astype(carry.dtype)
            gates = normalise(x, parameters, "input")
            gates = gates + normalise(z, parameters, "recurrent")
        else:
            gates = convolve(input_kernel=inputs, recurrent_kernel=carry)
        p, s = jnp.split(gates.astype(carry.dtype), 2, axis=-1)
        s = jax.nn.sigmoid(s)
        carry = s * jnp.tanh(p) + (1 - s) * carry
        return carry, carry

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> Hidden:
        """See `RecurrentCell`."""
        return jnp.zeros((*input_shape[:-1], self.features), state_dtype(self.dtype))
