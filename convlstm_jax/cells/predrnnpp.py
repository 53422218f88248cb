"""The causal LSTM and the gradient highway unit of PredRNN++, Wang et al. 2018.

Y. Wang et al., "PredRNN++: Towards A Resolution of the Deep-in-Time Dilemma in
Spatiotemporal Predictive Learning", ICML 2018, arXiv:1804.06300.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, sum_of_convolutions
from convlstm_jax.cells.predrnn import SpatiotemporalCarry, SpatiotemporalCell
from convlstm_jax.ops.engine import CellInputs, Convolve
from convlstm_jax.types import Array, Hidden


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

    gates: ClassVar[dict[str, str]] = {
        "input": "i f g i' f' g' o",
        "recurrent": "i f g o",
        "cell": "i f g",
        "memory": "i' f' m",
        "cell_to_memory": "i' g' f' o",
        "memory_to_output": "o",
    }
    sums: ClassVar[tuple[str, ...]] = ("i f g", "i' f'", "g'", "m", "o")

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

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: SpatiotemporalCarry,
        inputs: CellInputs,
    ) -> tuple[SpatiotemporalCarry, Hidden]:
        """See `RecurrentCell`."""
        added = self.adding(convolve, parameters)
        sigmoid, offset = jax.nn.sigmoid, self.forget_offset
        c, m, _, h = carry
        i, f, g = added("i f g", input=inputs, recurrent=h, cell=c)
        c = sigmoid(f + offset) * c + sigmoid(i) * jnp.tanh(g)
        i, f = added("i' f'", input=inputs, cell_to_memory=c, memory=m)
        (g,) = added("g'", input=inputs, cell_to_memory=c)
        (kept,) = added("m", memory=m)
        m = sigmoid(f + offset) * jnp.tanh(kept) + sigmoid(i) * jnp.tanh(g)
        (o,) = added(
            "o", input=inputs, recurrent=h, cell_to_memory=c, memory_to_output=m
        )
        o = jnp.tanh(o)
        both = jnp.concatenate([c, m], axis=-1)
        mixed = convolve(mixing_kernel=both).astype(c.dtype)
        h = (o * jnp.tanh(mixed)).astype(self.dtype)
        return SpatiotemporalCarry(c, m, None, h), h


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
        gates = sum_of_convolutions(
            self, convolve, parameters, input=inputs, recurrent=carry
        )
        p, s = jnp.split(gates, 2, axis=-1)
        s = jax.nn.sigmoid(s)
        carry = s * jnp.tanh(p) + (1 - s) * carry
        return carry, carry
