"""A ConvLSTM over a sequence among the tiles of `ops.winograd`, for CPUs.

Everything is in the loop over time: a step transforms input and hidden state, side by
side, multiplies, and transforms back. The backward step transforms the gradient of the
pre-activations once for the gradients of kernels, input and hidden state. Neither
pre-activations nor their gradients are kept for all T steps.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from convlstm_jax.ops.cell import Weights, split_gates, state_dtype
from convlstm_jax.ops.recurrence import (
    Residuals,
    Settings,
    ValidFrames,
    frame_at,
    late,
    run_backwards,
    run_forwards,
    state_before,
    store,
)
from convlstm_jax.ops.winograd import (
    TileKernels,
    Winograd,
    convolve,
    convolve_gradients,
    transform_kernel,
    transform_kernel_adjoint,
)
from convlstm_jax.types import Array, Carry, Hidden, HiddenSequence, Video


class _Gathered(NamedTuple):
    """Sums over the backward steps so far, and the inputs' gradients."""

    kernels: TileKernels
    bias: Array | None
    peephole: tuple[Array, ...] | None
    inputs: Video | None


def tiled_forward(
    algorithm: Winograd,
    settings: Settings,
    weights: Weights,
    inputs: Video | None,
    carry: Carry,
    valid: ValidFrames | None,
    keep_residuals: bool,
) -> tuple[Carry, HiddenSequence, Residuals]:
    """The forward pass; arguments and results as in `ops.sequence`."""
    kernels = _tile_kernels(algorithm, settings, weights)
    bias = None if weights.bias is None else weights.bias.astype(settings.dtype)

    def pre_activations(hidden: Any, t: Any) -> Any:
        z = split_gates(convolve(algorithm, _read(inputs, hidden, t), kernels))
        if bias is None:
            return z
        biases = (b.reshape(1, 1, 1, -1) for b in split_gates(bias))
        return tuple(a + b for a, b in zip(z, biases, strict=True))

    return run_forwards(
        settings, weights.peephole, carry, valid, keep_residuals, pre_activations
    )


def tiled_backward(
    algorithm: Winograd,
    settings: Settings,
    weights: Weights,
    inputs: Video | None,
    valid: ValidFrames | None,
    residuals: Residuals,
    gradients: tuple[Carry, HiddenSequence],
) -> tuple[Weights, Video | None, Carry]:
    """The gradients of weights, inputs and initial carry."""
    tile_kernels = _tile_kernels(algorithm, settings, weights)
    channels = 0 if inputs is None else inputs.shape[-1]
    initial_cell_state, initial_hidden = residuals.initial

    def gather(gate_gradients: Any, t: Any, gathered: Any) -> Any:
        dz = jnp.concatenate(gate_gradients, axis=-1).astype(settings.dtype)
        hidden = state_before(settings, initial_hidden, residuals.hiddens, t)
        kernels, read_gradient = convolve_gradients(
            algorithm, gathered.kernels, _read(inputs, hidden, t), tile_kernels, dz
        )
        bias = gathered.bias
        if bias is not None:
            bias = bias + _sum_over_pixels(dz)
        peephole = gathered.peephole
        if peephole is not None:
            dz_i, dz_f, _, dz_o = gate_gradients
            cell_states = residuals.cell_states
            before = state_before(settings, initial_cell_state, cell_states, t)
            after = frame_at(cell_states, t)
            shares = (dz_i * before, dz_f * before, dz_o * after)
            per_channel = peephole[0].ndim == 1
            peephole = tuple(
                total + (_sum_over_pixels(share) if per_channel else share.sum(0))
                for total, share in zip(peephole, shares, strict=True)
            )
        input_gradient = gathered.inputs
        if input_gradient is not None:
            frame_gradient = read_gradient[..., :channels]
            input_gradient = store(input_gradient, frame_gradient, t)
        gathered = _Gathered(kernels, bias, peephole, input_gradient)
        return read_gradient[..., channels:], gathered

    wide = state_dtype(settings.dtype)
    (cell_gradient, _), output_gradient = gradients

    def late_zeros(array: Any) -> Any:
        # The last of an encoder's outputs may have no gradient, a forecaster's carry.
        return late(jnp.zeros_like(array), cell_gradient, output_gradient)

    gathered = _Gathered(
        kernels=late_zeros(tile_kernels),
        bias=None if weights.bias is None else jnp.zeros(weights.bias.shape, wide),
        peephole=None
        if weights.peephole is None
        else (jnp.zeros(weights.peephole.shape[1:], wide),) * 3,
        inputs=None if inputs is None else late_zeros(inputs),
    )
    carry_gradient, gathered = run_backwards(
        settings, weights.peephole, valid, residuals, gradients, gather, gathered
    )
    kernel = transform_kernel_adjoint(algorithm, gathered.kernels)

    def like(gradient: Any, weight: Any) -> Any:
        return None if weight is None else gradient.astype(weight.dtype)

    peephole = gathered.peephole
    weight_gradient = Weights(
        input_kernel=like(kernel[:, :, :channels], weights.input_kernel),
        recurrent_kernel=like(kernel[:, :, channels:], weights.recurrent_kernel),
        bias=like(gathered.bias, weights.bias),
        peephole=None
        if peephole is None
        else like(jnp.stack(peephole), weights.peephole),
    )
    return weight_gradient, gathered.inputs, carry_gradient


def _tile_kernels(
    algorithm: Winograd, settings: Settings, weights: Weights
) -> TileKernels:
    """The transformed kernels of input and hidden state, in this order."""
    kernel = weights.recurrent_kernel.astype(settings.dtype)
    if weights.input_kernel is not None:
        input_kernel = weights.input_kernel.astype(settings.dtype)
        kernel = jnp.concatenate([input_kernel, kernel], axis=2)
    return transform_kernel(algorithm, kernel)


def _read(inputs: Video | None, hidden: Hidden, t: Any) -> Array:
    """What step t convolves: its input and the hidden state, side by side."""
    if inputs is None:
        return hidden
    return jnp.concatenate([frame_at(inputs, t), hidden], axis=-1)


def _sum_over_pixels(frames: Array) -> Array:
    """Sums `[B, H, W, D]` over all but D; a product is fast in a loop."""
    flat = frames.reshape(-1, frames.shape[-1])
    return (jnp.ones((1, flat.shape[0]), flat.dtype) @ flat)[0]
