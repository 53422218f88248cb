"""A ConvLSTM over a whole sequence, with a backward pass made for speed.

The same function as a scan of `convlstm_step`, differently ordered:

* The input convolution does not depend on the carry, so it is one convolution over all
  B·T frames before the loop.
* Under plain autodiff the gradient of the recurrent kernel is a convolution inside the
  backward loop. Here the loop holds the recurrence alone (one convolution with the
  transposed kernel a step) and stores the gradients of the pre-activations; the
  kernels' gradients follow as one convolution each over all B·T frames.
* Gates are added gate by gate, not on all 4F channels at once: XLA:CPU then keeps its
  fast convolution inside the loop.
* Everything stays batch-major, `[B, T, …]`: a batch that is sharded over devices then
  never has to move, and nothing is transposed.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool

from convlstm_jax.array_types import Carry, Hidden, HiddenSequence, Video
from convlstm_jax.ops.convolution import (
    kernel_gradient,
    kernel_gradient_in_loop,
    same_convolution,
    transposed_kernel,
)
from convlstm_jax.ops.gates import (
    Gates,
    frame_peepholes,
    split_gates,
    update_state,
    update_state_gradient,
)
from convlstm_jax.ops.step import Weights, check_inputs, state_dtype

ValidFrames = Bool[Array, "B T"]


class _Settings(NamedTuple):
    num_steps: int
    activation: str
    reverse: bool
    dtype: jnp.dtype
    in_loop: bool


class _Residuals(NamedTuple):
    """What the backward pass needs, each `[B, T, H, W, F]` or `[B, T+1, H, W, F]`."""

    gates: Gates
    cell_states: HiddenSequence
    hiddens: HiddenSequence


def convlstm_sequence(
    weights: Weights,
    inputs: Video | None,
    initial_carry: Carry,
    *,
    num_steps: int | None = None,
    activation: str = "tanh",
    valid: ValidFrames | None = None,
    reverse: bool = False,
    dtype=jnp.float32,
    in_loop: bool = False,
) -> tuple[Carry, HiddenSequence]:
    """Runs one ConvLSTM layer over a sequence (Shi et al. 2015, equation 3).

    Equal to scanning `convlstm_step`, outputs and gradients, up to the order of
    floating-point sums (1e-9 in float64).

    Args:
      weights: the layer's weights.
      inputs: `[B, T, H, W, C]`, or `None` for a layer without input.
      initial_carry: `(c, h)`, each `[B, H, W, F]`.
      num_steps: T, needed when `inputs` is `None`.
      activation: "tanh" or "relu".
      valid: `[B, T]`; at a frame that is not valid the carry is kept and the output is
        zero. `None` means all frames are.
      reverse: runs from the last frame to the first; outputs stay at their frames.
      dtype: dtype of the convolutions, the outputs and the stored gates; the cell
        state is kept in float32 (float64 if `dtype` is).
      in_loop: whether the call itself is in a loop's body, which decides how kernels'
        gradients are fast.

    Returns:
      The final carry and the outputs `[B, T, H, W, F]`.

    Raises:
      ValueError: neither `inputs` nor `num_steps` says how long the sequence is, or
        the inputs do not fit the weights.
    """
    check_inputs(weights, inputs)
    if inputs is not None:
        num_steps = inputs.shape[1]
    if num_steps is None:
        raise ValueError("num_steps is None: without inputs it must be given")
    settings = _Settings(num_steps, activation, reverse, jnp.dtype(dtype), in_loop)
    cell_state, hidden = initial_carry
    carry = (cell_state.astype(state_dtype(dtype)), hidden.astype(dtype))
    if inputs is not None:
        inputs = inputs.astype(dtype)
    return _sequence(settings, weights, inputs, carry, valid)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sequence(settings, weights, inputs, carry, valid):
    final_carry, outputs, _ = _forward(settings, weights, inputs, carry, valid, False)
    return final_carry, outputs


def _sequence_forward(settings, weights, inputs, carry, valid):
    final_carry, outputs, residuals = _forward(
        settings, weights, inputs, carry, valid, True
    )
    return (final_carry, outputs), (weights, inputs, valid, residuals)


def _forward(settings, weights, inputs, carry, valid, keep_residuals):
    steps, dtype = settings.num_steps, settings.dtype
    kernel = weights.recurrent_kernel.astype(dtype)
    bias = None if weights.bias is None else weights.bias.astype(dtype)
    peepholes = frame_peepholes(weights.peephole, state_dtype(dtype))
    input_gates = None
    if inputs is not None:
        hoisted = same_convolution(inputs, weights.input_kernel.astype(dtype))
        if bias is not None:
            hoisted = hoisted + bias.reshape(1, 1, 1, 1, -1)
        input_gates = split_gates(hoisted)

    def step(state, t):
        cell_state, hidden, stored = state
        z: tuple[Array, ...] = split_gates(same_convolution(hidden, kernel))
        if input_gates is not None:
            z = tuple(a + _frame(b, t) for a, b in zip(z, input_gates, strict=True))
        elif bias is not None:
            z = tuple(
                a + b.reshape(1, 1, 1, -1)
                for a, b in zip(z, split_gates(bias), strict=True)
            )
        gates, new_cell_state, new_hidden = update_state(
            z, cell_state, peepholes, settings.activation
        )
        new_hidden = new_hidden.astype(dtype)
        if valid is not None:
            keep = _valid_frame(valid, t)
            new_cell_state = jnp.where(keep, new_cell_state, cell_state)
            new_hidden = jnp.where(keep, new_hidden, hidden)
        slot = _slot_after(settings, t)
        stored = stored._replace(hiddens=_store(stored.hiddens, new_hidden, slot))
        if keep_residuals:
            stored = _Residuals(
                Gates(*(map(partial(_store, index=t), stored.gates, gates))),
                _store(stored.cell_states, new_cell_state, slot),
                stored.hiddens,
            )
        return (new_cell_state, new_hidden, stored), None

    cell_state, hidden = carry
    start = _slot_before(settings, steps - 1 if settings.reverse else 0)
    stored = _Residuals(
        gates=Gates(*(_empty(hidden, steps) for _ in range(4))),
        cell_states=_store(_empty(cell_state, steps + 1), cell_state, start),
        hiddens=_store(_empty(hidden, steps + 1), hidden, start),
    )
    if not keep_residuals:
        stored = _Residuals(None, None, stored.hiddens)  # type: ignore[arg-type]
    (cell_state, hidden, stored), _ = lax.scan(
        step,
        (cell_state, hidden, stored),
        jnp.arange(steps),
        reverse=settings.reverse,
    )
    outputs = stored.hiddens[:, :-1] if settings.reverse else stored.hiddens[:, 1:]
    if valid is not None:
        outputs = jnp.where(valid[:, :, None, None, None], outputs, 0)
    return (cell_state, hidden), outputs, stored


def _sequence_backward(settings, saved, gradients):
    weights, inputs, valid, residuals = saved
    (final_cell_gradient, final_hidden_gradient), output_gradient = gradients
    dtype = settings.dtype
    peepholes = frame_peepholes(weights.peephole, state_dtype(dtype))
    kernel = transposed_kernel(weights.recurrent_kernel.astype(dtype))

    def step(state, t):
        cell_gradient, hidden_gradient, stored = state
        kept_cell_gradient, kept_hidden_gradient = cell_gradient, hidden_gradient
        hidden_gradient = hidden_gradient + _frame(output_gradient, t)
        hidden_gradient = hidden_gradient.astype(cell_gradient.dtype)
        if valid is not None:
            keep = _valid_frame(valid, t)
            cell_gradient = jnp.where(keep, cell_gradient, 0)
            hidden_gradient = jnp.where(keep, hidden_gradient, 0)
        gate_gradients, cell_gradient = update_state_gradient(
            cell_gradient,
            hidden_gradient,
            Gates(*(_frame(gate, t) for gate in residuals.gates)),
            _frame(residuals.cell_states, _slot_before(settings, t)),
            _frame(residuals.cell_states, _slot_after(settings, t)),
            peepholes,
            settings.activation,
        )
        dz = jnp.concatenate(gate_gradients, axis=-1).astype(dtype)
        hidden_gradient = same_convolution(dz, kernel)
        if valid is not None:
            cell_gradient = jnp.where(keep, cell_gradient, kept_cell_gradient)
            hidden_gradient = jnp.where(keep, hidden_gradient, kept_hidden_gradient)
        return (cell_gradient, hidden_gradient, _store(stored, dz, t)), None

    batch, height, width, features = final_hidden_gradient.shape
    dz_frame = jax.ShapeDtypeStruct((batch, height, width, 4 * features), dtype)
    initial = (
        final_cell_gradient,
        final_hidden_gradient,
        _empty(dz_frame, settings.num_steps),
    )
    (cell_gradient, hidden_gradient, dz), _ = lax.scan(
        step, initial, jnp.arange(settings.num_steps), reverse=not settings.reverse
    )
    carry_gradient = (cell_gradient, hidden_gradient)
    weight_gradient, input_gradient = _parameter_gradients(
        settings, weights, inputs, residuals, dz
    )
    return weight_gradient, input_gradient, carry_gradient, None


def _parameter_gradients(settings, weights, inputs, residuals, dz):
    """The gradients that need no loop: kernels, bias, peepholes and inputs."""
    dtype = settings.dtype
    gradient_of = kernel_gradient_in_loop if settings.in_loop else kernel_gradient
    before, after = slice(None, -1), slice(1, None)
    if settings.reverse:
        before, after = after, before

    def like(gradient, weight):
        return None if weight is None else gradient().astype(weight.dtype)

    def recurrent_kernel():
        kernel = weights.recurrent_kernel.astype(dtype)
        return gradient_of(residuals.hiddens[:, before], dz, kernel)

    def input_kernel():
        return gradient_of(inputs, dz, weights.input_kernel.astype(dtype))

    def peephole():
        dz_i, dz_f, _, dz_o = split_gates(dz)
        previous, new = (
            residuals.cell_states[:, before],
            residuals.cell_states[:, after],
        )
        axes = (0, 1) if weights.peephole.ndim == 4 else (0, 1, 2, 3)
        return jnp.stack(
            [(dz_i * previous).sum(axes), (dz_f * previous).sum(axes),
             (dz_o * new).sum(axes)]
        )  # fmt: skip

    def bias():
        return dz.sum((0, 1, 2, 3), dtype=state_dtype(dtype))

    weight_gradient = Weights(
        input_kernel=like(input_kernel, weights.input_kernel),
        recurrent_kernel=like(recurrent_kernel, weights.recurrent_kernel),
        bias=like(bias, weights.bias),
        peephole=like(peephole, weights.peephole),
    )
    if inputs is None:
        return weight_gradient, None
    kernel = transposed_kernel(weights.input_kernel.astype(dtype))
    return weight_gradient, same_convolution(dz, kernel)


_sequence.defvjp(_sequence_forward, _sequence_backward)


# States are stored in T+1 slots, so that the state before and after every step are two
# views of one buffer: forwards, step t reads slot t and writes slot t+1; in reverse it
# reads slot t+1 and writes slot t.
def _slot_before(settings: _Settings, t):
    return t + 1 if settings.reverse else t


def _slot_after(settings: _Settings, t):
    return t if settings.reverse else t + 1


def _empty(frame: Hidden | jax.ShapeDtypeStruct, num_frames: int) -> HiddenSequence:
    """Room for a sequence of frames; every slot is written before it is read."""
    return jnp.zeros((frame.shape[0], num_frames, *frame.shape[1:]), frame.dtype)


def _frame(sequence: Array, t) -> Array:
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def _valid_frame(valid: ValidFrames, t) -> Array:
    return _frame(valid, t)[:, None, None, None]


def _store(sequence: Array, frame: Array, index) -> Array:
    return lax.dynamic_update_index_in_dim(
        sequence, frame.astype(sequence.dtype), index, axis=1
    )
