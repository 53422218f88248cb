"""A ConvLSTM over a sequence that keeps less for its backward pass, and takes longer.

`convlstm_sequence` keeps the gates and both states of every step, 6 F values a pixel,
until the layers above have been differentiated. `checkpointed_sequence` has its
arguments and results, and keeps its inputs and the carry of every ⌈√T⌉th step. Its
backward pass runs the steps between a second time, so that gates and their gradients
are in memory for ⌈√T⌉ steps of one layer at a time.

Chen et al. 2016, arXiv:1604.06174. Outputs and gradients are those of
`convlstm_sequence` up to the order of floating-point sums (1e-9 in float64).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from convlstm_jax.array_types import Carry, HiddenSequence, Video
from convlstm_jax.ops.recurrence import ValidFrames
from convlstm_jax.ops.sequence import convlstm_sequence
from convlstm_jax.ops.step import Weights, state_dtype


def checkpointed_sequence(
    weights: Weights,
    inputs: Video | None,
    initial_carry: Carry,
    *,
    num_steps: int | None = None,
    activation: str = "tanh",
    valid: ValidFrames | None = None,
    reverse: bool = False,
    dtype=jnp.float32,
) -> tuple[Carry, HiddenSequence]:
    """`convlstm_sequence` in segments of ⌈√T⌉ steps; arguments and errors as there."""
    if inputs is not None:
        num_steps = inputs.shape[1]
    if num_steps is None:
        raise ValueError("num_steps is None: without inputs it must be given")
    length = math.isqrt(max(num_steps - 1, 0)) + 1
    num_segments, rest = divmod(num_steps, length)

    def run(length, carry, frames):
        @partial(jax.checkpoint, prevent_cse=False)  # Nothing is shared in a scan.
        def segment(weights, carry, frames):
            inputs, valid = frames
            return convlstm_sequence(
                weights,
                inputs,
                carry,
                num_steps=length,
                activation=activation,
                valid=valid,
                reverse=reverse,
                dtype=dtype,
                in_loop=True,
            )

        return segment(weights, carry, frames)

    cell_state, hidden = initial_carry
    carry = (cell_state.astype(state_dtype(dtype)), hidden.astype(dtype))
    frames = (inputs, valid)
    cut = num_segments * length
    last = jax.tree.map(lambda x: x[:, cut:], frames)
    outputs_of_rest = None
    if rest and reverse:
        carry, outputs_of_rest = run(rest, carry, last)
    carry, outputs = lax.scan(
        partial(run, length),
        carry,
        jax.tree.map(lambda x: _cut(x, num_segments, length), frames),
        length=num_segments,
        reverse=reverse,
    )
    outputs = jnp.moveaxis(outputs, 0, 1)
    outputs = outputs.reshape(outputs.shape[0], cut, *outputs.shape[3:])
    if rest and not reverse:
        carry, outputs_of_rest = run(rest, carry, last)
    if outputs_of_rest is not None:
        outputs = jnp.concatenate([outputs, outputs_of_rest], axis=1)
    return carry, outputs


def _cut(sequence: Array, num_segments: int, length: int) -> Array:
    """`[B, T, …]` to segments `[N, B, L, …]`, without what is left over."""
    whole = sequence[:, : num_segments * length]
    segments = whole.reshape(whole.shape[0], num_segments, length, *whole.shape[2:])
    return jnp.moveaxis(segments, 1, 0)


# What is kept for the backward pass, by name.
MEMORY = {"default": convlstm_sequence, "checkpoint": checkpointed_sequence}
