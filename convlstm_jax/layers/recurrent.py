"""A recurrent cell run over a whole sequence, of frames or of vectors."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from convlstm_jax.cells.cell import (
    RecurrentCell,
    checked_carry,
    require_choice,
    step_of,
)
from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.ops.engine import MEMORY, Tree, run, where_valid
from convlstm_jax.ops.explicit_mesh import over_batch
from convlstm_jax.types import Array, HiddenSequence, Video

IMPLEMENTATIONS = ("fused", "scan")
VectorCarry = tuple[Float[Array, "B F"], Float[Array, "B F"]]


class RecurrentLayer(nn.Module):
    """A cell run over a whole sequence, as `nn.RNN` would run it.

    The two implementations share their parameters and agree, outputs and gradients, to
    1e-9 in float64; the parameter tree is that of `nn.RNN(cell)`.

    Attributes:
        cell: The cell.
        implementation: "fused" (fast, `ops.engine.run`) or "scan" (the cell under
            `nn.scan`, plain autodiff: the reference).
        reverse: Runs from the last valid frame to the first; outputs stay at their
            frames.
        memory: What "fused" keeps for the backward pass, see `ops.engine.run`.
    """

    cell: RecurrentCell
    implementation: str = "fused"
    reverse: bool = False
    memory: str = "default"

    def __post_init__(self) -> None:
        """Refuses invalid fields."""
        require_choice("implementation", self.implementation, IMPLEMENTATIONS)
        require_choice("memory", self.memory, MEMORY)
        for problem in memory_problem(self.memory, self.implementation):
            raise ValueError(problem)
        super().__post_init__()

    def __call__(
        self,
        inputs: Video | None,
        *,
        initial_carry: Tree | None = None,
        seq_lengths: Int[Array, " B"] | None = None,
        num_steps: int | None = None,
    ) -> tuple[Tree, HiddenSequence]:
        """Runs the layer.

        Args:
            inputs: `[B, T, H, W, C]`; or `None` for a layer without input, which then
                needs `initial_carry` and `num_steps`.
            initial_carry: The cell's carry; zeros if not given.
            seq_lengths: Valid frames of each clip, `[B]`. After a clip's end its carry
                stays as it is and its outputs are zero.
            num_steps: Frames to run when there is no input.

        Returns:
            The final carry and the outputs `[B, T, H, W, F]`.

        Raises:
            ValueError: The arguments do not fit the layer or each other.
        """
        frame_shape = None
        if inputs is None:
            if initial_carry is None or num_steps is None:
                raise ValueError(
                    "inputs is None: a layer without input needs initial_carry and "
                    "num_steps"
                )
        else:
            if inputs.ndim != 5:
                raise ValueError(
                    f"inputs has shape {inputs.shape}: it must be [B, T, H, W, C]"
                )
            if num_steps not in (None, inputs.shape[1]):
                raise ValueError(
                    f"num_steps is {num_steps}: it must be left out, or "
                    f"{inputs.shape[1]}, the frames of the inputs"
                )
            num_steps = inputs.shape[1]
            frame_shape = (inputs.shape[0], *inputs.shape[2:])
            if initial_carry is None:
                initial_carry = self.cell.initialize_carry(None, frame_shape)
        carry = checked_carry("initial_carry", self.cell, initial_carry, frame_shape)
        shape = frame_shape or jax.tree.leaves(carry)[0].shape
        valid = _valid_frames(seq_lengths, shape[0], num_steps)
        if self.implementation == "scan":
            return self._scan(inputs, carry, valid, num_steps)
        channels = None if inputs is None else inputs.shape[-1]
        kernels, parameters = self.cell.weights(channels, *shape[1:3])
        return run(
            step_of(self.cell),
            kernels,
            parameters,
            carry,
            inputs if self.cell.only_convolves_inputs else (inputs,),
            num_steps=num_steps,
            valid=valid,
            reverse=self.reverse,
            memory=self.memory,
            dtype=self.cell.dtype,
        )

    def _scan(self, inputs: Any, carry: Any, valid: Any, num_steps: Any) -> Any:
        # On a mesh with explicit axes a carry of zeros is sharded as it will be.
        carry = over_batch(lambda _, carry, inputs: carry, None, carry, inputs)

        def step(cell: Any, carry: Any, frame: Any) -> Any:
            inputs, valid = frame
            if valid is None:
                return cell(carry, inputs)
            if inputs is not None:
                inputs = where_valid(valid, inputs, 0)
            new_carry, output = cell(carry, inputs)
            new_carry = jax.tree.map(partial(where_valid, valid), new_carry, carry)
            return new_carry, where_valid(valid, output, 0)

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            length=num_steps,
            reverse=self.reverse,
        )
        return scan(self.cell, carry, (inputs, valid))


def _valid_frames(seq_lengths: Any, batch: Any, num_steps: Any) -> Array | None:
    if seq_lengths is None:
        return None
    seq_lengths = jnp.asarray(seq_lengths)
    integers = jnp.issubdtype(seq_lengths.dtype, jnp.integer)
    if seq_lengths.shape != (batch,) or not integers:
        raise ValueError(
            f"seq_lengths has shape {seq_lengths.shape} and dtype "
            f"{seq_lengths.dtype}: it must be one integer a clip, {(batch,)}"
        )
    return jnp.arange(num_steps)[None, :] < seq_lengths[:, None]


def memory_problem(memory: str, implementation: str) -> Iterator[str]:
    """What is wrong with these fields together: "fused" alone can save memory."""
    if implementation != "fused" and memory != "default":
        yield (
            f"memory is {memory!r}: it must be 'default' with "
            f"implementation={implementation!r}, as 'fused' alone can save memory"
        )


class ConvLSTM(nn.Module):
    """A ConvLSTM over a sequence (Shi et al. 2015, arXiv:1506.04214, equation 3).

    The parameters are those of `nn.RNN(ConvLSTMCell(…))`.

    Attributes:
        features: Hidden channels F.
        kernel_size: Input-to-state and state-to-state kernel, pixels, odd.
        peephole: See `ConvLSTMCell`, as `activation` and `dtype`.
        reverse: See `RecurrentLayer`, as `memory`.
    """

    features: int
    kernel_size: int = 3
    peephole: str = "channel"
    activation: str = "tanh"
    reverse: bool = False
    memory: str = "default"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        inputs: Video,
        *,
        initial_carry: Tree | None = None,
        seq_lengths: Int[Array, " B"] | None = None,
    ) -> tuple[Tree, HiddenSequence]:
        """The final carry (c, h) and the hidden states, see `RecurrentLayer`."""
        cell = ConvLSTMCell(
            features=self.features,
            input_kernel_size=self.kernel_size,
            recurrent_kernel_size=self.kernel_size,
            peephole=self.peephole,
            activation=self.activation,
            dtype=self.dtype,
            name="cell",
        )
        layer = RecurrentLayer(cell, reverse=self.reverse, memory=self.memory)
        return layer(inputs, initial_carry=initial_carry, seq_lengths=seq_lengths)


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
