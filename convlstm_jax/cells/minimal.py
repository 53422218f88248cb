"""Minimal GRU and LSTM, whose gates see the input alone: linear in the state.

L. Feng et al. 2024, "Were RNNs All We Needed?", arXiv:2410.01201; as convolutions in
C. C. Horuz et al. 2025, "Minimal Convolutional RNNs Accelerate Spatiotemporal
Learning", arXiv:2508.03614. A layer sees as far around a pixel as its one kernel.

Both papers compute in logarithms. Here the recurrence is computed as it stands: all
terms are positive, so that their sums lose no digits. In float32 the relative error is
below 6e-7 after any number of frames; with sums of logarithms, as in the papers' code,
it is 4e-5 after 200 frames and 4e-4 after 2,000 (with pre-activations of about one).
The state starts from zero, which has no logarithm; the authors' convolutional program
starts from ½ where it runs in parallel, and from 0 step by step.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, state_dtype
from convlstm_jax.ops.engine import CellInputs, Convolve, per_channel
from convlstm_jax.types import Array, Hidden

# Added to gates that are divided by their sum: where both are 0, h and n count one half
# each. Its square is a normal number in float32. With logarithms of the gates in place
# of it a layer takes 1.35 times as long to train on a CPU.
_SHUT = 1e-19


class LinearCell(RecurrentCell):
    """h' = a∘h + b, where a and b depend on the input alone.

    A cell declares its number of gates and `update`. The carry and the output are h
    `[B, H, W, F]`, float32 whatever `dtype` is. No kernel reads the state, and the
    fields that describe such a kernel are not used.

    Attributes: See `RecurrentCell`.
    """

    needs_input: ClassVar[bool] = True
    num_gates: ClassVar[int]
    """Gates, of F features each, side by side in the kernel and in the bias."""

    @nn.nowrap
    def update(self, *gates: Array) -> tuple[Array, Array]:
        """The coefficients a and b from the pre-activations of all gates."""
        raise NotImplementedError

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        outputs = self.num_gates * self.features
        kernels = self.kernels(input_features, input_kernel=(False, outputs))
        bias = self.param("bias", nn.initializers.zeros, (outputs,), self.param_dtype)
        return CellWeights(kernels, {"bias": bias})

    @nn.nowrap
    def coefficients(
        self, convolve: Convolve, parameters: dict[str, Any], inputs: CellInputs
    ) -> tuple[Array, Array]:
        """Those of a frame or of all, `[B, T, H, W, F]`; see `ops.engine.run`."""
        z = convolve(input_kernel=inputs).astype(state_dtype(self.dtype))
        biases = jnp.split(parameters["bias"].astype(z.dtype), self.num_gates)
        gates = zip(jnp.split(z, self.num_gates, axis=-1), biases, strict=True)
        return self.update(*(gate + per_channel(b, gate.shape) for gate, b in gates))

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Hidden,
        inputs: CellInputs,
    ) -> tuple[Hidden, Hidden]:
        """See `RecurrentCell`."""
        a, b = self.coefficients(convolve, parameters, inputs)
        hidden = a * carry + b
        return hidden, hidden


class MinGRUCell(LinearCell):
    """One step of a minimal convolutional GRU (arXiv:2508.03614; arXiv:2410.01201).

        z = σ(W_z∗x + b_z)
        n = g(W_n∗x + b_n)
        h' = (1 − z)∘h + z∘n

    with g of `positive`. Gates stand in the order z, n. With the kernel W_i − W_f for
    W_z it is also the exponentially gated LSTM of arXiv:2508.03614.

    Attributes: See `RecurrentCell`.
    """

    num_gates: ClassVar[int] = 2

    @nn.nowrap
    def update(self, *gates: Array) -> tuple[Array, Array]:
        """See `LinearCell`."""
        z, n = gates
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * positive(n)


class MinLSTMCell(LinearCell):
    """One step of a minimal convolutional LSTM (arXiv:2508.03614; arXiv:2410.01201).

        f = σ(W_f∗x + b_f)
        i = σ(W_i∗x + b_i)
        n = g(W_n∗x + b_n)
        h' = (f∘h + i∘n) / (f + i)

    with g of `positive`. Gates stand in the order f, i, n.

    Attributes: See `RecurrentCell`.
    """

    num_gates: ClassVar[int] = 3

    @nn.nowrap
    def update(self, *gates: Array) -> tuple[Array, Array]:
        """See `LinearCell`."""
        *both, n = gates
        f, i = (jax.nn.sigmoid(gate) + _SHUT for gate in both)
        return f / (f + i), i / (f + i) * positive(n)


def positive(x: Array) -> Array:
    """The g of both papers: x + ½ where x ≥ 0, σ(x) elsewhere."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))
