"""ConvLSTM as Linen modules: the cell, and the cell run over a sequence."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Int

from convlstm_jax.ops.cell import (
    ACTIVATIONS,
    PEEPHOLES,
    Weights,
    carry_of_dtype,
    convlstm_step,
    peephole_shape,
    state_dtype,
)
from convlstm_jax.ops.memory import MEMORY
from convlstm_jax.types import Array, Carry, Frame, Hidden, HiddenSequence, Video

IMPLEMENTATIONS = ("fused", "scan")


def forget_gate_ones(
    key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Initial bias `[4F]`: one for the forget gate, zero for the others.

    A cell that starts out remembering trains faster (Jozefowicz et al. 2015).
    """
    del key
    features = shape[0] // 4
    return jnp.zeros(shape, dtype).at[features : 2 * features].set(1)


class ConvLSTMCell(nn.RNNCellBase):
    """One step of a convolutional LSTM with peepholes (arXiv:1506.04214, equation 3).

    Follows Flax's RNN-cell interface, so it works under `nn.scan` and `nn.RNN`.
    The carry is `(c, h)`, each `[B, H, W, F]`; c is float32 whatever `dtype` is.

    Attributes:
        features: Hidden channels F.
        input_kernel_size: Input-to-state kernel, pixels, odd.
        recurrent_kernel_size: State-to-state kernel, pixels, odd.
        peephole: "channel" (one weight per channel), "location" (one per pixel and
            channel) or "none".
        activation: "tanh" or "relu", for the candidate and the output.
        use_bias: Whether every gate has a bias.
        dtype: Of the convolutions and of h; parameters are of `param_dtype`.

    Raises:
        ValueError: At construction, for a value that is not allowed.
    """

    features: int
    input_kernel_size: int = 3
    recurrent_kernel_size: int = 3
    peephole: str = "channel"
    activation: str = "tanh"
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    recurrent_kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = forget_gate_ones
    peephole_init: nn.initializers.Initializer = nn.initializers.zeros

    def __post_init__(self) -> None:
        """Refuses invalid fields before any parameter is created."""
        _require_positive_integer("features", self.features)
        for name in ("input_kernel_size", "recurrent_kernel_size"):
            size = getattr(self, name)
            _require_positive_integer(name, size)
            if size % 2 == 0:
                raise ValueError(
                    f"{name} is {size}: it must be odd, so that the state keeps its "
                    "size and its place"
                )
        require_choice("peephole", self.peephole, PEEPHOLES)
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        super().__post_init__()

    @nn.compact
    def weights(self, input_features: int | None, height: Any, width: Any) -> Weights:
        """The cell's parameters, created on first use.

        `input_features` is `None` for a cell without input; peepholes per location
        depend on height and width, in pixels.
        """

        def kernel(name: Any, init: Any, size: Any, channels: Any) -> Any:
            shape = (size, size, channels, 4 * self.features)
            return self.param(name, init, shape, self.param_dtype)

        input_kernel = bias = peephole = None
        if input_features is not None:
            input_kernel = kernel(
                "input_kernel", self.kernel_init, self.input_kernel_size, input_features
            )
        recurrent_kernel = kernel(
            "recurrent_kernel",
            self.recurrent_kernel_init,
            self.recurrent_kernel_size,
            self.features,
        )
        if self.use_bias:
            bias = self.param(
                "bias", self.bias_init, (4 * self.features,), self.param_dtype
            )
        shape = peephole_shape(self.peephole, self.features, height, width)
        if shape is not None:
            peephole = self.param(
                "peephole", self.peephole_init, shape, self.param_dtype
            )
        return Weights(input_kernel, recurrent_kernel, bias, peephole)

    def __call__(self, carry: Carry, inputs: Frame | None) -> tuple[Carry, Hidden]:
        """One step: `(c, h)` and a frame `[B, H, W, C]` (or `None`) to `(c, h), h`."""
        frame_shape = None if inputs is None else inputs.shape
        _require_carry("carry", carry, frame_shape, self.features)
        height, width = carry[1].shape[1:3]
        input_features = None if inputs is None else inputs.shape[-1]
        weights = self.weights(input_features, height, width)
        return convlstm_step(
            weights, carry, inputs, activation=self.activation, dtype=self.dtype
        )

    @nn.nowrap
    def initialize_carry(
        self, rng: Array | None, input_shape: tuple[Any, ...]
    ) -> Carry:
        """Zeros for inputs of shape `[B, H, W, C]`; `rng` is not used."""
        del rng
        shape = (*input_shape[:-1], self.features)
        return (jnp.zeros(shape, state_dtype(self.dtype)), jnp.zeros(shape, self.dtype))

    @property
    def num_feature_axes(self) -> int:
        """Height, width and channels."""
        return 3


class ConvLSTM(nn.Module):
    """A `ConvLSTMCell` run over a whole sequence, as `nn.RNN` would run it.

    The two implementations share their parameters and agree, outputs and gradients, to
    1e-9 in float64; the parameter tree is that of `nn.RNN(cell)`.

    Attributes:
        cell: The cell.
        implementation: "fused" (fast, `ops.sequence`) or "scan" (the cell under
            `nn.scan`, plain autodiff: the reference).
        reverse: Runs from the last valid frame to the first; outputs stay at their
            frames.
        memory: What "fused" keeps for the backward pass: "default", all gates and
            states; or "checkpoint", the carry of every ⌈√T⌉th step, see `ops.memory`.
    """

    cell: ConvLSTMCell
    implementation: str = "fused"
    reverse: bool = False
    memory: str = "default"

    def __post_init__(self) -> None:
        """Refuses invalid fields."""
        require_choice("implementation", self.implementation, IMPLEMENTATIONS)
        require_choice("memory", self.memory, tuple(MEMORY))
        for problem in memory_problem(self.memory, self.implementation):
            raise ValueError(problem)
        super().__post_init__()

    def __call__(
        self,
        inputs: Video | None,
        *,
        initial_carry: Carry | None = None,
        seq_lengths: Int[Array, " B"] | None = None,
        num_steps: int | None = None,
    ) -> tuple[Carry, HiddenSequence]:
        """Runs the layer.

        Args:
            inputs: `[B, T, H, W, C]`; or `None` for a layer without input, which then
                needs `initial_carry` and `num_steps`.
            initial_carry: `(c, h)`, each `[B, H, W, F]`; zeros if not given.
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
        _require_carry("initial_carry", initial_carry, frame_shape, self.cell.features)
        valid = None
        if seq_lengths is not None:
            seq_lengths = jnp.asarray(seq_lengths)
            batch = (len(initial_carry[1]),)
            integers = jnp.issubdtype(seq_lengths.dtype, jnp.integer)
            if seq_lengths.shape != batch or not integers:
                raise ValueError(
                    f"seq_lengths has shape {seq_lengths.shape} and dtype "
                    f"{seq_lengths.dtype}: it must be one integer a clip, {batch}"
                )
            valid = jnp.arange(num_steps)[None, :] < seq_lengths[:, None]
        if self.implementation == "scan":
            return self._scan(inputs, initial_carry, valid, num_steps)
        height, width = initial_carry[1].shape[1:3]
        input_features = None if inputs is None else inputs.shape[-1]
        return MEMORY[self.memory](
            self.cell.weights(input_features, height, width),
            inputs,
            initial_carry,
            num_steps=num_steps,
            activation=self.cell.activation,
            valid=valid,
            reverse=self.reverse,
            dtype=self.cell.dtype,
        )

    def _scan(self, inputs: Any, initial_carry: Any, valid: Any, num_steps: Any) -> Any:
        def step(cell: Any, carry: Any, frame: Any) -> Any:
            inputs, valid = frame
            new_carry, output = cell(carry, inputs)
            if valid is None:
                return new_carry, output
            keep = valid[:, None, None, None]
            new_carry = tuple(
                jnp.where(keep, new, old)
                for new, old in zip(new_carry, carry, strict=True)
            )
            return new_carry, jnp.where(keep, output, 0)

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            length=num_steps,
            reverse=self.reverse,
        )
        carry = carry_of_dtype(initial_carry, self.cell.dtype)
        return scan(self.cell, carry, (inputs, valid))


def _require_positive_integer(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}: it must be an integer of at least 1")


def _require_carry(
    name: str, carry: Carry, frame_shape: tuple[Any, ...] | None, features: int
) -> None:
    """Raises a ValueError over a carry that is not `(c, h)` of `[B, H, W, F]` each.

    `frame_shape` is `(B, H, W, C)`, or `None` where there is no input.
    """
    shapes = tuple(jnp.shape(state) for state in carry)
    like = frame_shape or (shapes or ((),))[0]
    if len(like) != 4:
        wrong = name if frame_shape is None else "inputs"
        raise ValueError(f"{wrong} has shape {like}: it must be [B, H, W, channels]")
    expected = (*like[:3], features)
    if shapes != (expected, expected):
        raise ValueError(
            f"{name} has the shapes {shapes}: it must be (c, h), each {expected}"
        )


def require_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises a ValueError over a module's field that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: it must be one of {allowed}")


def memory_problem(memory: str, implementation: str) -> Iterator[str]:
    """What is wrong with these fields together: "fused" alone can save memory."""
    if implementation != "fused" and memory != "default":
        yield (
            f"memory is {memory!r}: it must be 'default' with "
            f"implementation={implementation!r}, as 'fused' alone can save memory"
        )
