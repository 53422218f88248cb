"""The spatiotemporal LSTM of PredRNN, Wang et al. 2017, and of PredRNN-V2.

Y. Wang et al., "PredRNN: Recurrent Neural Networks for Predictive Learning using
Spatiotemporal LSTMs", NeurIPS 2017; and "PredRNN: A Recurrent Neural Network for
Spatiotemporal Predictive Learning", 2021, arXiv:2103.09504.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, sum_of_convolutions
from convlstm_jax.ops.engine import CellInputs, Convolve
from convlstm_jax.types import Array, Frame, Hidden, PerExample


class SpatiotemporalCarry(NamedTuple):
    """The cell state c, the memory m, and h, each `[B, H, W, F]`.

    `decoupling`, `[B]`, exists only with the loss of PredRNN-V2.
    """

    cell_state: Frame
    memory: Frame
    decoupling: PerExample | None
    hidden: Hidden


class SpatiotemporalCell(RecurrentCell):
    """Base class of cells with a memory that passes through all layers.

    The memory zigzags: in a step it goes from the bottom layer to the top one, and from
    there to the bottom layer of the next step. All layers have the same features. A
    single layer keeps its own memory. Convolutions have no biases. Without layer norm,
    convolutions whose results are added are computed as one: fewer results are stored,
    which takes a third less memory in training.

    Attributes: See `RecurrentCell`; and
        layer_norm: Whether the result of each convolution, but for the 1×1 ones, is
            normalised over height, width and channels of a sample, with a weight and an
            offset per pixel and channel, as in OpenSTL's cells.
        forget_offset: Constant added to forget gates before their sigmoid.
    """

    needs_input: ClassVar[bool] = True
    passed: ClassVar[tuple[str, ...]] = ("memory",)
    parts_of_inputs: ClassVar[tuple[str, ...]] = ("input",)
    """Parts whose kernels read the inputs."""
    gates: ClassVar[dict[str, str]]
    """The gates that each part's convolution gives, in the order of its kernel.

    The part "output", if any, reads the cell state and the memory.
    """
    sums: ClassVar[tuple[str, ...]]
    """The gates that `step` asks for together, where a part has others as well."""

    layer_norm: bool = False
    forget_offset: float = 1.0

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`.

        Kernels and norms of all parts; a 1×1 kernel, "mixing", reads the cell state and
        the memory.
        """
        features, size = self.features, self.recurrent_kernel_size
        outputs = {
            part: features * len(names.split()) for part, names in self.gates.items()
        }
        kernels = self.kernels(
            input_features,
            **{
                f"{part}_kernel": (part not in self.parts_of_inputs, count)
                for part, count in outputs.items()
                if part != "output"
            },
        )
        of_both = {"mixing": 1} | ({"output": size} if "output" in outputs else {})
        for part, side in of_both.items():
            name, shape = f"{part}_kernel", (side, side, 2 * features, features)
            init = self.recurrent_kernel_init
            kernels[name] = self.param(name, init, shape, self.param_dtype)
        if self.layer_norm:
            return CellWeights(kernels, self.norms(height, width, **outputs))
        return CellWeights(self._cut(kernels), {})

    @nn.nowrap
    def _cut(self, kernels: dict[str, Array]) -> dict[str, Array]:
        """The kernels, those of a part in pieces where `step` adds them in pieces."""
        found = dict(kernels)
        for part, names in self.gates.items():
            own = names.split()
            pieces = [piece for piece in self.sums if {*piece.split()} < {*own}]
            if not pieces:
                continue
            cut = split_gates(found.pop(f"{part}_kernel"), len(own))
            gates = dict(zip(own, cut, strict=True))
            for piece in pieces:
                together = [gates[name] for name in piece.split()]
                found[f"{part} {piece}_kernel"] = jnp.concatenate(together, axis=-1)
        return found

    @nn.nowrap
    def adding(
        self, convolve: Convolve, parameters: dict[str, Any]
    ) -> Callable[..., list[Frame]]:
        """The function `added` of a step.

        `added("i f", input=x, recurrent=h)` is a list of gates, here i and f, each the
        sum of that of all parts given, whose convolutions read the arrays.
        """
        known: dict[str, dict[str, Frame]] = {}  # By part, of those with layer norm.

        def added(names: str, /, **arrays: Any) -> list[Frame]:
            wanted = names.split()
            if not self.layer_norm:
                pieces = {
                    part if names == self.gates[part] else f"{part} {names}": array
                    for part, array in arrays.items()
                }
                z = sum_of_convolutions(self, convolve, parameters, **pieces)
                return split_gates(z, len(wanted))
            for part, array in arrays.items():
                if part not in known:
                    own = self.gates[part].split()
                    z = sum_of_convolutions(self, convolve, parameters, **{part: array})
                    known[part] = dict(zip(own, split_gates(z, len(own)), strict=True))
            terms = ([known[part][name] for part in arrays] for name in wanted)
            return [sum(of[1:], start=of[0]) for of in terms]

        return added

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[Any, ...]) -> Any:
        """See `RecurrentCell`."""
        state = super().initialize_carry(rng, input_shape)
        return SpatiotemporalCarry(state, state, None, state.astype(self.dtype))


class SpatiotemporalLSTMCell(SpatiotemporalCell):
    """One step of PredRNN's ST-LSTM (Wang et al. 2017, equation 4).

        i = σ(Wᵢ∗x + Uᵢ∗h)               i' = σ(W'ᵢ∗x + Mᵢ∗m)
        f = σ(W_f∗x + U_f∗h + b)          f' = σ(W'_f∗x + M_f∗m + b)
        g = tanh(W_g∗x + U_g∗h)           g' = tanh(W'_g∗x + M_g∗m)
        c' = f∘c + i∘g                    m' = f'∘m + i'∘g'
        o = σ(Wₒ∗x + Uₒ∗h + Vₒ∗[c', m'])  h' = o∘tanh(V∗[c', m'])

    V is a 1×1 convolution, b is `forget_offset`. Gates stand in the order i, f, g, i',
    f', g', o along the last axis of kernels, as in OpenSTL.

    With `decoupling`, the carry sums |cos(A∗(i∘g), A∗(i'∘g'))| over the steps, the mean
    over channels of the absolute cosine similarity over pixels (arXiv:2103.09504,
    equation 6, as OpenSTL averages it). The 1×1 kernel A, "adapter_kernel" `[1, 1, F,
    F]`, is shared by all layers; the network provides it.

    Attributes: See `SpatiotemporalCell`.
    """

    gates: ClassVar[dict[str, str]] = {
        "input": "i f g i' f' g' o",
        "recurrent": "i f g o",
        "memory": "i' f' g'",
        "output": "o",
    }
    sums: ClassVar[tuple[str, ...]] = ("i f g o", "i' f' g'")

    decoupling: bool = False

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: SpatiotemporalCarry,
        inputs: CellInputs,
    ) -> tuple[SpatiotemporalCarry, Hidden]:
        """See `RecurrentCell`."""
        c, m, decoupling, h = carry
        added = self.adding(convolve, parameters)
        sigmoid, offset = jax.nn.sigmoid, self.forget_offset
        i, f, g, o = added("i f g o", input=inputs, recurrent=h)
        new_in_cell = sigmoid(i) * jnp.tanh(g)
        c = sigmoid(f + offset) * c + new_in_cell
        i, f, g = added("i' f' g'", input=inputs, memory=m)
        new_in_memory = sigmoid(i) * jnp.tanh(g)
        m = sigmoid(f + offset) * m + new_in_memory
        both = jnp.concatenate([c, m], axis=-1)
        (more,) = added("o", output=both)
        mixed = convolve(mixing_kernel=both).astype(c.dtype)
        h = (sigmoid(o + more) * jnp.tanh(mixed)).astype(self.dtype)
        if decoupling is not None:
            # Side by side, so that the kernel is read once.
            pair = jnp.concatenate([new_in_cell, new_in_memory], axis=2)
            adapted = convolve(adapter_kernel=pair).astype(c.dtype)
            decoupling = decoupling + _similarity(*jnp.split(adapted, 2, axis=2))
        return SpatiotemporalCarry(c, m, decoupling, h), h

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> SpatiotemporalCarry:
        """See `RecurrentCell`."""
        carry: SpatiotemporalCarry = super().initialize_carry(rng, input_shape)
        if not self.decoupling:
            return carry
        zeros = jnp.zeros(input_shape[:1], carry.cell_state.dtype)
        return carry._replace(decoupling=zeros)


def split_gates(gates: Array, count: int) -> list[Array]:
    """Splits the last axis into gates of one width each."""
    return list(jnp.split(gates, count, axis=-1))


def _similarity(first: Frame, second: Frame) -> PerExample:
    """The mean over channels of |cos| of two arrays, each as a vector of pixels."""

    def unit(array: Frame) -> Frame:
        squares = jnp.square(array).sum((1, 2), keepdims=True)
        return array * lax.rsqrt(jnp.maximum(squares, 1e-24))

    cosine = (unit(first) * unit(second)).sum((1, 2))
    return jnp.abs(cosine).mean(-1)
