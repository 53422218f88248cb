"""A ConvLSTM over a whole sequence, with a backward pass made for speed.

The same function as a scan of `convlstm_step`, differently ordered:

* The input convolution does not depend on the carry, so it is one convolution over all
  B·T frames before the loop.
* The backward loop holds the recurrence alone and stores the gradients of the
  pre-activations; each kernel's gradient is then one convolution over all B·T frames.
  Plain autodiff would convolve for it at every step.
* On a CPU, where `winograd_for` finds an algorithm, `ops.tiled_sequence` takes over.
* Everything stays batch-major, `[B, T, …]`: a batch that is sharded over devices never
  moves, and nothing is transposed.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from convlstm_jax.ops.cell import (
    Weights,
    carry_of_dtype,
    check_inputs,
    split_gates,
    state_dtype,
)
from convlstm_jax.ops.convolution import (
    kernel_gradient,
    kernel_gradient_in_loop,
    same_convolution,
    transposed_kernel,
)
from convlstm_jax.ops.recurrence import (
    Settings,
    ValidFrames,
    buffer,
    frame_at,
    run_backwards,
    run_forwards,
    states_before,
    store,
)
from convlstm_jax.ops.tiled_sequence import tiled_backward, tiled_forward
from convlstm_jax.ops.winograd import winograd_for
from convlstm_jax.types import Carry, HiddenSequence, Video


def convlstm_sequence(
    weights: Weights,
    inputs: Video | None,
    initial_carry: Carry,
    *,
    num_steps: int | None = None,
    activation: str = "tanh",
    valid: ValidFrames | None = None,
    reverse: bool = False,
    dtype: Any = jnp.float32,
    in_loop: bool = False,
) -> tuple[Carry, HiddenSequence]:
    """Runs one ConvLSTM layer over a sequence (Shi et al. 2015, equation 3).

    Equal to scanning `convlstm_step`, outputs and gradients, up to the order of
    floating-point sums (1e-9 in float64).

    Args:
        weights: The layer's weights.
        inputs: `[B, T, H, W, C]`, or `None` for a layer without input.
        initial_carry: `(c, h)`, each `[B, H, W, F]`.
        num_steps: T, needed when `inputs` is `None`.
        activation: "tanh" or "relu".
        valid: `[B, T]`; at an invalid frame the carry is kept and the output is zero.
            `None`: all frames are valid.
        reverse: Runs from the last frame to the first; outputs stay at their frames.
        dtype: Of the convolutions, the outputs and the stored gates; the cell state is
            float32 (float64 if `dtype` is).
        in_loop: Whether the call is in a loop's body, which decides how kernels'
            gradients are fast.

    Returns:
        The final carry and the outputs `[B, T, H, W, F]`.

    Raises:
        ValueError: Neither `inputs` nor `num_steps` is given, or the inputs do not fit
            the weights.
    """
    check_inputs(weights, inputs)
    if inputs is not None:
        num_steps = inputs.shape[1]
    if num_steps is None:
        raise ValueError("num_steps is None: without inputs it must be given")
    settings = Settings(num_steps, activation, reverse, jnp.dtype(dtype), in_loop)
    carry = carry_of_dtype(initial_carry, dtype)
    if not num_steps:
        hidden = carry[1]
        return carry, jnp.zeros((hidden.shape[0], 0, *hidden.shape[1:]), dtype)
    if inputs is not None:
        inputs = inputs.astype(dtype)
    return _sequence(settings, weights, inputs, carry, valid)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sequence(settings: Any, weights: Any, inputs: Any, carry: Any, valid: Any) -> Any:
    final_carry, outputs, _ = _run(settings, weights, inputs, carry, valid, False)
    return final_carry, outputs


def _sequence_forward(
    settings: Any, weights: Any, inputs: Any, carry: Any, valid: Any
) -> Any:
    final_carry, outputs, residuals = _run(
        settings, weights, inputs, carry, valid, True
    )
    return (final_carry, outputs), (weights, inputs, valid, residuals)


def _sequence_backward(settings: Any, saved: Any, gradients: Any) -> Any:
    weights, inputs, valid, residuals = saved
    arguments = (weights, inputs, valid, residuals, gradients)
    backward = partial(_backward, settings)
    algorithm = _algorithm(settings, weights, residuals.initial[1])
    if algorithm is None:
        result = backward(*arguments)
    else:
        result = lax.platform_dependent(
            *arguments,
            cpu=partial(tiled_backward, algorithm, settings),
            default=backward,
        )
    weight_gradient, input_gradient, carry_gradient = result
    return weight_gradient, input_gradient, carry_gradient, None


_sequence.defvjp(_sequence_forward, _sequence_backward)


def _run(
    settings: Any,
    weights: Any,
    inputs: Any,
    carry: Any,
    valid: Any,
    keep_residuals: Any,
) -> Any:
    arguments = (weights, inputs, carry, valid)
    forward = partial(_forward, settings, keep_residuals=keep_residuals)
    algorithm = _algorithm(settings, weights, carry[1])
    if algorithm is None:
        return forward(*arguments)
    tiled = partial(tiled_forward, algorithm, settings, keep_residuals=keep_residuals)
    return lax.platform_dependent(*arguments, cpu=tiled, default=forward)


def _algorithm(settings: Any, weights: Any, hidden: Any) -> Any:
    kernel_shape = weights.recurrent_kernel.shape
    kernel = weights.input_kernel
    if kernel is not None and kernel.shape[:2] != kernel_shape[:2]:
        return None  # The two do not go side by side.
    return winograd_for(kernel_shape, hidden.shape, settings.dtype)


def _forward(
    settings: Any,
    weights: Any,
    inputs: Any,
    carry: Any,
    valid: Any,
    *,
    keep_residuals: Any,
) -> Any:
    dtype = settings.dtype
    kernel = weights.recurrent_kernel.astype(dtype)
    bias = None if weights.bias is None else weights.bias.astype(dtype)
    hoisted = None
    if inputs is not None:
        hoisted = same_convolution(inputs, weights.input_kernel.astype(dtype))
        if bias is not None:
            hoisted = hoisted + bias.reshape(1, 1, 1, 1, -1)

    def pre_activations(hidden: Any, t: Any) -> Any:
        z = split_gates(same_convolution(hidden, kernel))
        if hoisted is not None:
            others = frame_at(hoisted, t)
        elif bias is not None:
            others = bias.reshape(1, 1, 1, -1)
        else:
            return z
        return tuple(a + b for a, b in zip(z, split_gates(others), strict=True))

    return run_forwards(
        settings, weights.peephole, carry, valid, keep_residuals, pre_activations
    )


def _backward(
    settings: Any, weights: Any, inputs: Any, valid: Any, residuals: Any, gradients: Any
) -> Any:
    dtype = settings.dtype
    kernel = transposed_kernel(weights.recurrent_kernel.astype(dtype))

    def gather(gate_gradients: Any, t: Any, stored: Any) -> Any:
        dz = jnp.concatenate(gate_gradients, axis=-1).astype(dtype)
        return same_convolution(dz, kernel), store(stored, dz, t)

    *shape, features = residuals.initial[1].shape
    dz_frame = jax.ShapeDtypeStruct((*shape, 4 * features), dtype)
    carry_gradient, dz = run_backwards(
        settings,
        weights.peephole,
        valid,
        residuals,
        gradients,
        gather,
        buffer(dz_frame, settings.num_steps),
    )
    weight_gradient, input_gradient = _parameter_gradients(
        settings, weights, inputs, residuals, dz
    )
    return weight_gradient, input_gradient, carry_gradient


def _parameter_gradients(
    settings: Any, weights: Any, inputs: Any, residuals: Any, dz: Any
) -> Any:
    """The gradients that need no loop: kernels, bias, peepholes and inputs."""
    dtype = settings.dtype
    gradient_of = kernel_gradient_in_loop if settings.in_loop else kernel_gradient
    initial_cell_state, initial_hidden = residuals.initial

    def like(gradient: Any, weight: Any) -> Any:
        return None if weight is None else gradient().astype(weight.dtype)

    def recurrent_kernel() -> Any:
        kernel = weights.recurrent_kernel.astype(dtype)
        before = states_before(settings, initial_hidden, residuals.hiddens)
        return gradient_of(before, dz, kernel)

    def input_kernel() -> Any:
        return gradient_of(inputs, dz, weights.input_kernel.astype(dtype))

    def peephole() -> Any:
        dz_i, dz_f, _, dz_o = split_gates(dz)
        new = residuals.cell_states
        previous = states_before(settings, initial_cell_state, new)
        axes = (0, 1) if weights.peephole.ndim == 4 else (0, 1, 2, 3)
        return jnp.stack(
            [(dz_i * previous).sum(axes), (dz_f * previous).sum(axes),
             (dz_o * new).sum(axes)]
        )  # fmt: skip

    def bias() -> Any:
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
