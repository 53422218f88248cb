"""The two loops over time of a ConvLSTM layer, for any way of convolving.

`run_forwards` takes a function that computes pre-activations, `run_backwards` one that
uses their gradients. Gates are added gate by gate, not on all 4F channels at once:
XLA:CPU then keeps its fast convolution inside the loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from convlstm_jax.ops.cell import (
    Gates,
    frame_peepholes,
    state_dtype,
    update_state,
    update_state_gradient,
)
from convlstm_jax.types import Array, Carry, Hidden, HiddenSequence

ValidFrames = Bool[Array, "B T"]


class Settings(NamedTuple):
    """How a sequence is run, see `convlstm_sequence`."""

    num_steps: int
    activation: str
    reverse: bool
    dtype: jnp.dtype
    in_loop: bool


class Residuals(NamedTuple):
    """What the backward pass needs; c and h are those after each step."""

    initial: Carry
    gates: Float[Array, "B T 4 H W F"]
    cell_states: HiddenSequence
    hiddens: HiddenSequence


PreActivations = Callable[[Hidden, Array], tuple[Array, ...]]
# (gradients of the four pre-activations, t, gathered so far) → (gradient of the hidden
# state before the step, gathered now).
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

    `pre_activations` maps a hidden state and t to the four pre-activations;
    `keep_residuals` tells whether a backward pass follows. Returns the final carry, the
    outputs `[B, T, H, W, F]` and the residuals.
    """
    steps, dtype = settings.num_steps, settings.dtype
    peepholes = frame_peepholes(peephole, state_dtype(dtype))

    def step(state: Any, t: Any) -> Any:
        cell_state, hidden, (all_gates, cell_states, hiddens) = state
        gates, new_cell_state, new_hidden = update_state(
            pre_activations(hidden, t), cell_state, peepholes, settings.activation
        )
        new_hidden = new_hidden.astype(dtype)
        if valid is not None:
            keep = _valid_frame(valid, t)
            new_cell_state = jnp.where(keep, new_cell_state, cell_state)
            new_hidden = jnp.where(keep, new_hidden, hidden)
        hiddens = store(hiddens, new_hidden, t)
        if keep_residuals:
            for index, gate in enumerate(gates):
                all_gates = _store_gate(all_gates, gate, t, index)
            cell_states = store(cell_states, new_cell_state, t)
        return (new_cell_state, new_hidden, (all_gates, cell_states, hiddens)), None

    cell_state, hidden = carry
    # One buffer for four gates: XLA:CPU copies buffers that start alike.
    four = jax.ShapeDtypeStruct((hidden.shape[0], 4, *hidden.shape[1:]), dtype)
    stored = (
        buffer(four, steps) if keep_residuals else None,
        buffer(cell_state, steps) if keep_residuals else None,
        buffer(hidden, steps),
    )
    (cell_state, hidden, stored), _ = lax.scan(
        step, (cell_state, hidden, stored), jnp.arange(steps), reverse=settings.reverse
    )
    residuals = Residuals(carry, *stored)  # type: ignore[arg-type]
    outputs = residuals.hiddens
    if valid is not None:
        outputs = jnp.where(valid[:, :, None, None, None], outputs, 0)
    return (cell_state, hidden), outputs, residuals


def run_backwards(
    settings: Settings,
    peephole: Array | None,
    valid: ValidFrames | None,
    residuals: Residuals,
    gradients: tuple[Carry, HiddenSequence],
    gather: Gather,
    gathered: Any,
) -> tuple[Carry, Any]:
    """The adjoint of `run_forwards`, from the last step to the first.

    At each step `gather` turns the gradients of the pre-activations into that of the
    hidden state, and adds to what is `gathered`.

    Returns:
        The gradient of the carry before the first step, and what was gathered.
    """
    (final_cell_gradient, final_hidden_gradient), output_gradient = gradients
    peepholes = frame_peepholes(peephole, state_dtype(settings.dtype))
    initial_cell_state, _ = residuals.initial

    def step(state: Any, t: Any) -> Any:
        cell_gradient, hidden_gradient, gathered = state
        kept_cell_gradient, kept_hidden_gradient = cell_gradient, hidden_gradient
        hidden_gradient = hidden_gradient + frame_at(output_gradient, t)
        hidden_gradient = hidden_gradient.astype(cell_gradient.dtype)
        if valid is not None:
            keep = _valid_frame(valid, t)
            cell_gradient = jnp.where(keep, cell_gradient, 0)
            hidden_gradient = jnp.where(keep, hidden_gradient, 0)
        gates = frame_at(residuals.gates, t)
        gate_gradients, cell_gradient = update_state_gradient(
            cell_gradient,
            hidden_gradient,
            # A transpose here XLA:GPU would make of all steps, before the loop.
            Gates(*(gates[:, index] for index in range(4))),
            state_before(settings, initial_cell_state, residuals.cell_states, t),
            frame_at(residuals.cell_states, t),
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


def buffer(frame: Array | jax.ShapeDtypeStruct, num_frames: int) -> Array:
    """A buffer for a sequence of frames; every slot is written before it is read."""
    return jnp.zeros((frame.shape[0], num_frames, *frame.shape[1:]), frame.dtype)


def frame_at(sequence: Array, t: Any) -> Array:
    """Frame t of `[B, T, …]`."""
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def store(sequence: Array, frame: Array, index: Any) -> Array:
    """The sequence with the frame at its index."""
    return lax.dynamic_update_index_in_dim(
        sequence, frame.astype(sequence.dtype), index, axis=1
    )


def state_before(
    settings: Settings, initial: Hidden, states: HiddenSequence, t: Any
) -> Hidden:
    """The state that step t starts from, given the states after each step."""
    previous, first = (
        (t + 1, settings.num_steps - 1) if settings.reverse else (t - 1, 0)
    )
    # Before the first step there is none, and whatever is read is not used.
    return jnp.where(t == first, initial, frame_at(states, previous))


def states_before(
    settings: Settings, initial: Hidden, states: HiddenSequence
) -> HiddenSequence:
    """`state_before` of all steps."""
    if settings.reverse:
        return jnp.concatenate([states[:, 1:], initial[:, None]], axis=1)
    return jnp.concatenate([initial[:, None], states[:, :-1]], axis=1)


def _store_gate(gates: Array, gate: Array, t: Any, index: int) -> Array:
    """All gates `[B, T, 4, H, W, F]` with one of step t in its place."""
    gate = gate.astype(gates.dtype)[:, None, None]
    return lax.dynamic_update_slice(gates, gate, (0, t, index, 0, 0, 0))


def _valid_frame(valid: ValidFrames, t: Any) -> Array:
    return frame_at(valid, t)[:, None, None, None]


def late(array: Array, *gradients: Array) -> Array:
    """The array, computed only once the gradients are known.

    XLA:CPU computes what depends on nothing as early as it can, such as zeros that the
    backward passes of all layers add to, which then take memory from the start. Where
    the first element of a gradient is not finite, all of the array is NaN.
    """
    for gradient in gradients:
        # XLA keeps this product, which is NaN for some values.
        array = array + (0 * gradient[(0,) * gradient.ndim]).astype(array.dtype)
    return array
