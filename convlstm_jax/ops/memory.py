"""ConvLSTMs that keep less for their backward pass, and take longer.

`convlstm_sequence` keeps the gates and both states of every step, 6 F values a pixel.
`checkpointed_sequence` keeps its inputs and the carry of every ⌈√T⌉th step; its
backward pass runs the steps between a second time, so that gates and gradients are in
memory for ⌈√T⌉ steps of one layer at a time. `checkpointed_rollout` does the same for
all layers of `rollout` together. Chen et al. 2016, arXiv:1604.06174. Outputs and
gradients are unchanged up to the order of floating-point sums (1e-9 in float64).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from convlstm_jax.ops.cell import Weights, carry_of_dtype
from convlstm_jax.ops.recurrence import ValidFrames
from convlstm_jax.ops.rollout import (
    RolloutState,
    StackWeights,
    TeacherForcing,
    frames_of_steps,
    rollout,
    state_of_dtype,
)
from convlstm_jax.ops.sequence import convlstm_sequence
from convlstm_jax.types import Array, Carry, ForecastVideo, HiddenSequence, Video


def checkpointed_sequence(
    weights: Weights,
    inputs: Video | None,
    initial_carry: Carry,
    *,
    num_steps: int | None = None,
    valid: ValidFrames | None = None,
    reverse: bool = False,
    **options: Any,
) -> tuple[Carry, HiddenSequence]:
    """`convlstm_sequence` in segments of ⌈√T⌉ steps; arguments and errors as there."""
    if inputs is not None:
        num_steps = inputs.shape[1]
    if num_steps is None:
        raise ValueError("num_steps is None: without inputs it must be given")

    def run(length: Any, weights: Any, carry: Any, frames: Any) -> Any:
        inputs, valid = frames
        options_now = {"num_steps": length, "valid": valid, "reverse": reverse}
        return convlstm_sequence(
            weights, inputs, carry, **options_now, **options, in_loop=True
        )

    carry = carry_of_dtype(initial_carry, options.get("dtype", jnp.float32))
    return _in_segments(run, weights, carry, (inputs, valid), num_steps, reverse)


def checkpointed_rollout(
    weights: StackWeights,
    frames: Video,
    teacher_forcing: TeacherForcing,
    state: RolloutState,
    **options: Any,
) -> tuple[RolloutState, ForecastVideo]:
    """`rollout` in segments of ⌈√S⌉ steps; arguments as there."""
    num_steps = teacher_forcing.shape[1]

    def run(_: Any, weights: Any, state: Any, sequences: Any) -> Any:
        frames, teacher_forcing = sequences
        return rollout(weights, frames, teacher_forcing, state, **options)

    dtype = options.get("dtype", jnp.float32)
    state = state_of_dtype(state, dtype)
    sequences = (frames_of_steps(frames, num_steps, dtype), teacher_forcing)
    return _in_segments(run, weights, state, sequences, num_steps, False)


def _in_segments(
    run: Callable[..., Any],
    weights: Any,
    carry: Any,
    sequences: Any,
    num_steps: int,
    reverse: Any,
) -> tuple[Any, Array]:
    """Runs over sequences `[B, T, …]` with a checkpoint every ⌈√T⌉ steps.

    `run` takes the number of steps, the weights, the carry and its part of the
    sequences, and returns the carry and the outputs.
    """
    length = math.isqrt(max(num_steps - 1, 0)) + 1
    num_segments, rest = divmod(num_steps, length)

    def segment(length: Any, carry: Any, part: Any) -> Any:
        # Nothing is shared in a scan.
        checkpointed = jax.checkpoint(partial(run, length), prevent_cse=False)
        return checkpointed(weights, carry, part)

    cut = num_segments * length
    last = jax.tree.map(lambda x: x[:, cut:], sequences)
    outputs_of_rest = None
    if rest and reverse:
        carry, outputs_of_rest = segment(rest, carry, last)
    carry, outputs = lax.scan(
        partial(segment, length),
        carry,
        jax.tree.map(lambda x: _cut(x, num_segments, length), sequences),
        length=num_segments,
        reverse=reverse,
    )
    outputs = jnp.moveaxis(outputs, 0, 1)
    outputs = outputs.reshape(outputs.shape[0], cut, *outputs.shape[3:])
    if rest and not reverse:
        carry, outputs_of_rest = segment(rest, carry, last)
    if outputs_of_rest is not None:
        outputs = jnp.concatenate([outputs, outputs_of_rest], axis=1)
    return carry, outputs


def _cut(sequence: Array, num_segments: int, length: int) -> Array:
    """`[B, T, …]` to segments `[N, B, L, …]`, without the remainder."""
    whole = sequence[:, : num_segments * length]
    segments = whole.reshape(whole.shape[0], num_segments, length, *whole.shape[2:])
    return jnp.moveaxis(segments, 1, 0)


# By what is kept for the backward pass.
MEMORY = {"default": convlstm_sequence, "checkpoint": checkpointed_sequence}
ROLLOUT_MEMORY = {"default": rollout, "checkpoint": checkpointed_rollout}
