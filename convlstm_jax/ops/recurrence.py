"""The two loops over time of a ConvLSTM layer, whichever way it convolves.

`run_forwards` is told how pre-activations come about, `run_backwards` what their
gradients give. Gates are added gate by gate, not on all 4F channels at once: XLA:CPU
then keeps its fast convolution inside the loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool

from convlstm_jax.array_types import Carry, Hidden, HiddenSequence
from convlstm_jax.ops.gates import (
    Gates,
    frame_peepholes,
    update_state,
    update_state_gradient,
)
from convlstm_jax.ops.step import state_dtype

ValidFrames = Bool[Array, "B T"]


class Settings(NamedTuple):
    """How a sequence is run, see `convlstm_sequence`."""

    num_steps: int
    activation: str
    reverse: bool
    dtype: jnp.dtype
    in_loop: bool

    @property
    def before(self) -> slice:
        """Of the T+1 stored states, those that the steps start from."""
        return slice(1, None) if self.reverse else slice(None, -1)

    @property
    def after(self) -> slice:
        """Of the T+1 stored states, those that the steps lead to."""
        return slice(None, -1) if self.reverse else slice(1, None)


class Residuals(NamedTuple):
    """What the backward pass needs, each `[B, T, H, W, F]` or `[B, T+1, H, W, F]`.

    States have T+1 slots, so that those before and after every step are two views of
    one buffer: forwards, step t reads slot t and writes slot t+1; in reverse it reads
    slot t+1 and writes slot t.
    """

    gates: Gates
    cell_states: HiddenSequence
    hiddens: HiddenSequence


PreActivations = Callable[[Hidden, Array], tuple[Array, ...]]
# (gradients of the four pre-activations, t, what was gathered) → (gradient of the
# hidden state that the step started from, what is gathered now).
Gather = Callable[[tuple[Array, ...], Array, Any], tuple[Hidden, Any]]


def run_forwards(
    settings: Settings,
    peephole: Array | None,
    carry: Carry,
    valid: ValidFrames | None,
    keep_residuals: bool,
    pre_activations: PreActivations,
) -> tuple[Carry, HiddenSequence, Residuals]:
    """The recurrence from the first step to the last.

    Args:
      settings: how the sequence is run.
      peephole: as in `Weights`.
      carry: `(c, h)` before the first step, in the dtypes of the computation.
      valid: see `convlstm_sequence`.
      keep_residuals: whether a backward pass follows.
      pre_activations: from a hidden state and t to the four pre-activations.

    Returns:
      The final carry, the outputs `[B, T, H, W, F]` and the residuals, without gates
      and cell states where they are not kept.
    """
    steps, dtype = settings.num_steps, settings.dtype
    peepholes = frame_peepholes(peephole, state_dtype(dtype))

    def step(state, t):
        cell_state, hidden, stored = state
        gates, new_cell_state, new_hidden = update_state(
            pre_activations(hidden, t), cell_state, peepholes, settings.activation
        )
        new_hidden = new_hidden.astype(dtype)
        if valid is not None:
            keep = _valid_frame(valid, t)
            new_cell_state = jnp.where(keep, new_cell_state, cell_state)
            new_hidden = jnp.where(keep, new_hidden, hidden)
        slot = _slot_after(settings, t)
        stored = stored._replace(hiddens=store(stored.hiddens, new_hidden, slot))
        if keep_residuals:
            stored = Residuals(
                Gates(*(map(partial(store, index=t), stored.gates, gates))),
                store(stored.cell_states, new_cell_state, slot),
                stored.hiddens,
            )
        return (new_cell_state, new_hidden, stored), None

    cell_state, hidden = carry
    start = _slot_before(settings, steps - 1 if settings.reverse else 0)
    stored = Residuals(
        gates=Gates(*(room(hidden, steps) for _ in range(4))),
        cell_states=store(room(cell_state, steps + 1), cell_state, start),
        hiddens=store(room(hidden, steps + 1), hidden, start),
    )
    if not keep_residuals:
        stored = Residuals(None, None, stored.hiddens)  # type: ignore[arg-type]
    (cell_state, hidden, stored), _ = lax.scan(
        step, (cell_state, hidden, stored), jnp.arange(steps), reverse=settings.reverse
    )
    outputs = stored.hiddens[:, settings.after]
    if valid is not None:
        outputs = jnp.where(valid[:, :, None, None, None], outputs, 0)
    return (cell_state, hidden), outputs, stored


def run_backwards(
    settings: Settings,
    peephole: Array | None,
    valid: ValidFrames | None,
    residuals: Residuals,
    gradients: tuple[Carry, HiddenSequence],
    gather: Gather,
    gathered: Any,
) -> tuple[Carry, Any]:
    """The recurrence's adjoint, from the last step to the first.

    Args:
      settings: as for `run_forwards`.
      peephole: likewise.
      valid: likewise.
      residuals: what `run_forwards` kept.
      gradients: of the final carry and of the outputs.
      gather: takes the gradients of a step's pre-activations.
      gathered: what `gather` starts from.

    Returns:
      The gradient of the carry before the first step, and what was gathered.
    """
    (final_cell_gradient, final_hidden_gradient), output_gradient = gradients
    peepholes = frame_peepholes(peephole, state_dtype(settings.dtype))

    def step(state, t):
        cell_gradient, hidden_gradient, gathered = state
        kept_cell_gradient, kept_hidden_gradient = cell_gradient, hidden_gradient
        hidden_gradient = hidden_gradient + frame_at(output_gradient, t)
        hidden_gradient = hidden_gradient.astype(cell_gradient.dtype)
        if valid is not None:
            keep = _valid_frame(valid, t)
            cell_gradient = jnp.where(keep, cell_gradient, 0)
            hidden_gradient = jnp.where(keep, hidden_gradient, 0)
        gate_gradients, cell_gradient = update_state_gradient(
            cell_gradient,
            hidden_gradient,
            Gates(*(frame_at(gate, t) for gate in residuals.gates)),
            state_before(settings, residuals.cell_states, t),
            state_after(settings, residuals.cell_states, t),
            peepholes,
            settings.activation,
        )
        hidden_gradient, gathered = gather(gate_gradients, t, gathered)
        if valid is not None:
            cell_gradient = jnp.where(keep, cell_gradient, kept_cell_gradient)
            hidden_gradient = jnp.where(keep, hidden_gradient, kept_hidden_gradient)
        return (cell_gradient, hidden_gradient, gathered), None

    (cell_gradient, hidden_gradient, gathered), _ = lax.scan(
        step,
        (final_cell_gradient, final_hidden_gradient, gathered),
        jnp.arange(settings.num_steps),
        reverse=not settings.reverse,
    )
    return (cell_gradient, hidden_gradient), gathered


def room(frame: Array | jax.ShapeDtypeStruct, num_frames: int) -> Array:
    """Room for a sequence of frames; every slot is written before it is read."""
    return jnp.zeros((frame.shape[0], num_frames, *frame.shape[1:]), frame.dtype)


def frame_at(sequence: Array, t) -> Array:
    """Frame t of `[B, T, …]`."""
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def store(sequence: Array, frame: Array, index) -> Array:
    """The sequence with the frame in its place."""
    return lax.dynamic_update_index_in_dim(
        sequence, frame.astype(sequence.dtype), index, axis=1
    )


def state_before(settings: Settings, states: HiddenSequence, t) -> Hidden:
    """The state that step t starts from."""
    return frame_at(states, _slot_before(settings, t))


def state_after(settings: Settings, states: HiddenSequence, t) -> Hidden:
    """The state that step t leads to."""
    return frame_at(states, _slot_after(settings, t))


def _slot_before(settings: Settings, t):
    return t + 1 if settings.reverse else t


def _slot_after(settings: Settings, t):
    return t if settings.reverse else t + 1


def _valid_frame(valid: ValidFrames, t) -> Array:
    return frame_at(valid, t)[:, None, None, None]
