"""The spatiotemporal LSTM of PredRNN, Wang et al. 2017, and of PredRNN-V2.

Y. Wang et al., "PredRNN: Recurrent Neural Networks for Predictive Learning using
Spatiotemporal LSTMs", NeurIPS 2017; and "PredRNN: A Recurrent Neural Network for
Spatiotemporal Predictive Learning", 2021, arXiv:2103.09504.
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from convlstm_jax.cells.cell import (
    CellWeights,
    RecurrentCell,
    normalise,
    state_dtype,
)
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

    layer_norm: bool = False
    forget_offset: float = 1.0

    def spatiotemporal_weights(
        self, input_features: int | None, size: tuple[Any, Any], **gates: int
    ) -> CellWeights:
        """Kernels and norms, given the gates computed from each part.

        Those of `parts_of_inputs` read the inputs, all others arrays of F channels; a
        1×1 kernel, "mixing", and "output" read the cell state and the memory.
        """
        if input_features is None:
            raise ValueError(
                f"inputs is None: a {type(self).__name__} cannot run without input"
            )
        features, kernel_size = self.features, self.recurrent_kernel_size
        outputs = {part: count * features for part, count in gates.items()}
        of_memory = outputs.pop("output", None)
        kernels = self.kernels(
            input_features,
            **{
                f"{part}_kernel": (part not in self.parts_of_inputs, count)
                for part, count in outputs.items()
            },
        )

        def of_both(name: str, size: int) -> None:
            shape = (size, size, 2 * features, features)
            kernels[name] = self.param(
                name, self.recurrent_kernel_init, shape, self.param_dtype
            )

        of_both("mixing_kernel", 1)
        if of_memory:
            of_both("output_kernel", kernel_size)
            outputs["output"] = of_memory
        norms = outputs if self.layer_norm else {}
        return CellWeights(kernels, self.norms(*size, **norms))

    @nn.nowrap
    def convolved(
        self, convolve: Convolve, parameters: dict[str, Any], part: str, array: Any
    ) -> Frame:
        """A part's convolution of an array, normalised where the cell does so."""
        z = convolve(**{f"{part}_kernel": array}).astype(state_dtype(self.dtype))
        return normalise(z, parameters, part) if self.layer_norm else z

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[Any, ...]) -> Any:
        """See `RecurrentCell`."""
        shape = (*input_shape[:-1], self.features)
        state = jnp.zeros(shape, state_dtype(self.dtype))
        return SpatiotemporalCarry(state, state, None, jnp.zeros(shape, self.dtype))


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

    decoupling: bool = False

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        gates = {"input": 7, "recurrent": 4, "memory": 3, "output": 1}
        size = (height, width)
        kernels, norms = self.spatiotemporal_weights(input_features, size, **gates)
        if self.layer_norm:
            return CellWeights(kernels, norms)
        kernels = dict(kernels)
        cell, memory = _cell_and_memory(kernels.pop("input_kernel"))
        parts = {"cell_input_kernel": cell, "memory_input_kernel": memory}
        return CellWeights(kernels | parts, norms)

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
        of_cell, of_memory = self._gates(convolve, parameters, inputs, h, m)
        i, f, g, o = split_gates(of_cell, 4)
        sigmoid, offset = jax.nn.sigmoid, self.forget_offset
        new_in_cell = sigmoid(i) * jnp.tanh(g)
        c = sigmoid(f + offset) * c + new_in_cell
        i, f, g = split_gates(of_memory, 3)
        new_in_memory = sigmoid(i) * jnp.tanh(g)
        m = sigmoid(f + offset) * m + new_in_memory
        both = jnp.concatenate([c, m], axis=-1)
        o = sigmoid(o + self.convolved(convolve, parameters, "output", both))
        mixed = convolve(mixing_kernel=both).astype(c.dtype)
        h = (o * jnp.tanh(mixed)).astype(self.dtype)
        if decoupling is not None:
            # Side by side, so that the kernel is read once.
            pair = jnp.concatenate([new_in_cell, new_in_memory], axis=2)
            adapted = convolve(adapter_kernel=pair).astype(c.dtype)
            decoupling = decoupling + _similarity(*jnp.split(adapted, 2, axis=2))
        return SpatiotemporalCarry(c, m, decoupling, h), h

    @nn.nowrap
    def _gates(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        inputs: CellInputs,
        h: Hidden,
        m: Hidden,
    ) -> tuple[Array, Array]:
        """Of i, f, g, o the part that c' and m' do not change, and i', f', g'."""
        if not self.layer_norm:
            cell = convolve(cell_input_kernel=inputs, recurrent_kernel=h)
            memory = convolve(memory_input_kernel=inputs, memory_kernel=m)
            return cell.astype(m.dtype), memory.astype(m.dtype)

        def convolved(part: str, array: Any) -> Frame:
            return self.convolved(convolve, parameters, part, array)

        cell, memory = _cell_and_memory(convolved("input", inputs))
        return cell + convolved("recurrent", h), memory + convolved("memory", m)

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


def _cell_and_memory(gates: Array) -> tuple[Array, Array]:
    """Of seven gates those of the cell state, i, f, g, o, and those of the memory."""
    i, f, g, *memory, o = split_gates(gates, 7)
    return jnp.concatenate([i, f, g, o], axis=-1), jnp.concatenate(memory, axis=-1)


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
