"""A stack of ConvLSTM layers that reads frames, or its own last prediction.

Where the output is fed back, nothing can be computed before the loop over time. What
can still leave it are the gradients of the kernels, which XLA:CPU has no fast
convolution for inside a loop:

* Inside the loop the kernels are constants (`ops.held_convolution`); where nothing is
  done to their results before they are added, a layer convolves input and hidden state
  side by side. The result of every convolution passes through a *tap*, a place where a
  perturbation δ[t] = 0 could be added, and the loop is differentiated with respect to
  the taps instead of the kernels.
* The gradient with respect to δ[t] is that of the convolution's result, for every step.
  With the convolutions' inputs, which the forward loop hands out, each kernel's
  gradient follows from all B·T frames at once.

The gradient is that of plain autodiff up to the order of floating-point sums (1e-9 in
float64).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from convlstm_jax.array_types import Carry, Frame, Hidden, Video
from convlstm_jax.ops.gates import split_gates, update_state, update_state_gradient
from convlstm_jax.ops.held_convolution import (
    HeldKernel,
    Read,
    gathered_kernel_gradient,
    held_convolution,
    hold_kernel,
)
from convlstm_jax.ops.step import state_dtype

TakesTruth = Bool[Array, "B S"]

_NORM_EPSILON = 1e-5
_ACTIVATION = "tanh"


class Norm(NamedTuple):
    """The elementwise weights of a layer norm over a whole frame.

    Attributes:
      scale: `[H, W, 4F]`.
      offset: `[H, W, 4F]`.
    """

    scale: Float[Array, "H W G"]
    offset: Float[Array, "H W G"]


class LayerWeights(NamedTuple):
    """One ConvLSTM layer without biases, gates along the last axis in `GATE_ORDER`.

    Attributes:
      input_kernel: `[K, K, C, 4F]`.
      recurrent_kernel: `[K, K, F, 4F]`.
      norms: layer norms of the two convolutions' results, in this order, or `None`.
    """

    input_kernel: Float[Array, "K K C G"]
    recurrent_kernel: Float[Array, "K K F G"]
    norms: tuple[Norm, Norm] | None = None


class StackWeights(NamedTuple):
    """Layers, bottom first, and the output convolution over the last one's h.

    Attributes:
      layers: the layers.
      output_kernel: `[1, 1, F, C]`: hidden state of the last layer to the next frame.
    """

    layers: tuple[LayerWeights, ...]
    output_kernel: Float[Array, "1 1 F C"]


class RolloutState(NamedTuple):
    """What goes from one step to the next.

    Attributes:
      carries: `(c, h)` of each layer.
      prediction: of the frame that comes next, `[B, H, W, C]`.
    """

    carries: tuple[Carry, ...]
    prediction: Frame


class _Settings(NamedTuple):
    forget_offset: float
    dtype: jnp.dtype


def initial_state(
    weights: StackWeights, frame_shape: tuple[int, ...], dtype=jnp.float32
) -> RolloutState:
    """Zeros for frames of shape `(B, H, W, C)`."""
    *leading, _ = frame_shape
    carries = []
    for layer in weights.layers:
        shape = (*leading, layer.recurrent_kernel.shape[2])
        carries.append((jnp.zeros(shape, state_dtype(dtype)), jnp.zeros(shape, dtype)))
    return RolloutState(tuple(carries), jnp.zeros(frame_shape, dtype))


def rollout(
    weights: StackWeights,
    frames: Video,
    takes_truth: TakesTruth,
    state: RolloutState,
    *,
    forget_offset: float = 1.0,
    dtype=jnp.float32,
) -> tuple[RolloutState, Video]:
    """Runs the stack for S steps, one predicted frame a step.

    Step t reads frame t where `takes_truth[:, t]`, and what step t−1 predicted where
    not. Its output is the prediction of frame t+1. The layers are those of equation 3
    of Shi et al. 2015 (arXiv:1506.04214) without peepholes and biases; a constant is
    added to the forget gate's pre-activation.

    Args:
      weights: the stack's weights.
      frames: `[B, T, H, W, C]`; T may be less than S where the later frames are not
        taken, and frames after S are not looked at.
      takes_truth: `[B, S]`, true where a clip's frame is read at a step.
      state: what came before; `initial_state` at the start of a clip.
      forget_offset: the constant added to the forget gate's pre-activation.
      dtype: dtype of the convolutions, h and the predictions; cell states are float32
        (float64 if `dtype` is).

    Returns:
      The state after the last step, and the predictions `[B, S, H, W, C]`.
    """
    num_steps = takes_truth.shape[1]
    frames = frames[:, :num_steps].astype(dtype)
    missing = num_steps - frames.shape[1]
    frames = jnp.pad(frames, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)))
    carries = tuple((c.astype(state_dtype(dtype)), h.astype(dtype))
                    for c, h in state.carries)  # fmt: skip
    state = RolloutState(carries, state.prediction.astype(dtype))
    settings = _Settings(forget_offset, jnp.dtype(dtype))
    return _rollout(settings, weights, frames, state, takes_truth)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rollout(settings, weights, frames, state, takes_truth):
    layers = tuple((None,) * 2 for _ in weights.layers)
    result, _ = _run(settings, weights, takes_truth, (layers, None), frames, state)
    return result


def _rollout_forward(settings, weights, frames, state, takes_truth):
    norms = tuple(layer.norms for layer in weights.layers)

    def run(taps, norms, frames, state):
        layers = tuple(
            layer._replace(norms=norm)
            for layer, norm in zip(weights.layers, norms, strict=True)
        )
        with_norms = weights._replace(layers=layers)
        return _run(settings, with_norms, takes_truth, taps, frames, state)

    taps = _zero_taps(settings, weights, frames)
    result, pull_back, inputs = jax.vjp(run, taps, norms, frames, state, has_aux=True)
    hiddens = tuple(h for _, h in state.carries)
    return result, (weights, hiddens, inputs, pull_back)


def _rollout_backward(settings, saved, gradients):
    weights, initial_hiddens, (read, hiddens), pull_back = saved
    tap_gradients, norm_gradients, frame_gradient, state_gradient = pull_back(gradients)
    layer_gradients, output_gradient = tap_gradients

    def gradient(read, result_gradient, *kernels):
        held = _side_by_side(kernels).astype(settings.dtype)
        found = gathered_kernel_gradient(read, result_gradient, held)
        cut = kernels[0].shape[2]
        parts = (found[:, :, :cut], found[:, :, cut:])
        return [p.astype(k.dtype) for p, k in zip(parts, kernels, strict=False)]

    layers = []
    inputs = read
    for layer, norms, initial, after, (dz, dz_recurrent) in zip(
        weights.layers, norm_gradients, initial_hiddens, hiddens, layer_gradients,
        strict=True,
    ):  # fmt: skip
        kernels = (layer.input_kernel, layer.recurrent_kernel)
        if _is_side_by_side(layer):
            found = gradient(Read(inputs, (initial, after)), dz, *kernels)
        else:
            # Without norms the results are added, and one gradient is that of both.
            dz_recurrent = dz if dz_recurrent is None else dz_recurrent
            found = gradient(Read(inputs, None), dz, kernels[0])
            found += gradient(Read(None, (initial, after)), dz_recurrent, kernels[1])
        input_kernel, recurrent_kernel = found
        layers.append(LayerWeights(input_kernel, recurrent_kernel, norms))
        inputs = after
    (output_kernel,) = gradient(
        Read(inputs, None), output_gradient, weights.output_kernel
    )
    weight_gradient = StackWeights(tuple(layers), output_kernel)
    return weight_gradient, frame_gradient, state_gradient, None


_rollout.defvjp(_rollout_forward, _rollout_backward)


def _run(settings, weights, takes_truth, taps, frames, state):
    """The loop; also returns what its convolutions read, `[S, B, H, W, …]`."""
    frame_shape = (frames.shape[0], *frames.shape[2:])

    def hold(*kernels):
        return hold_kernel(_side_by_side(kernels).astype(settings.dtype), frame_shape)

    kernels = []
    for layer in weights.layers:
        both = (layer.input_kernel, layer.recurrent_kernel)
        together = _is_side_by_side(layer)
        kernels.append((hold(*both),) if together else tuple(map(hold, both)))
    output_kernel = hold(weights.output_kernel)

    def step(state, now):
        frame, takes_truth, (layer_taps, output_tap) = now
        read = jnp.where(takes_truth[:, None, None, None], frame, state.prediction)
        carries = []
        inputs = read
        for layer, kernel, tap, carry in zip(
            weights.layers, kernels, layer_taps, state.carries, strict=True
        ):
            carry = _layer_step(settings, layer.norms, kernel, tap, carry, inputs)
            carries.append(carry)
            inputs = carry[1]
        prediction = _tap(held_convolution(inputs, output_kernel), output_tap)
        hiddens = tuple(h for _, h in carries)
        state = RolloutState(tuple(carries), prediction)
        return state, (prediction, (read, hiddens))

    sequence = (_swap_time(frames), takes_truth.T, taps)
    state, (predictions, inputs) = lax.scan(step, state, sequence)
    return (state, _swap_time(predictions)), inputs


def _layer_step(
    settings: _Settings,
    norms: tuple[Norm, Norm] | None,
    kernels: tuple[HeldKernel, ...],
    taps: Any,
    carry: Carry,
    inputs: Frame,
) -> Carry:
    cell_state, hidden = carry
    dtype = cell_state.dtype
    if len(kernels) == 1:
        both = jnp.concatenate([inputs, hidden], axis=-1)
        z = _tap(held_convolution(both, kernels[0]), taps[0]).astype(dtype)
    elif norms is None:
        z, z_recurrent = map(held_convolution, (inputs, hidden), kernels)
        z = _tap(z + z_recurrent, taps[0]).astype(dtype)
    else:
        z, z_recurrent = (
            _normalise(_tap(held_convolution(*read), tap).astype(dtype), norm)
            for read, tap, norm in zip(
                zip((inputs, hidden), kernels, strict=True), taps, norms, strict=True
            )
        )
        z = z + z_recurrent
    z_i, z_f, z_g, z_o = split_gates(z)
    z_gates = (z_i, z_f + settings.forget_offset, z_g, z_o)
    cell_state, hidden = _update_state(z_gates, cell_state)
    return cell_state, hidden.astype(settings.dtype)


@jax.custom_vjp
def _update_state(z_gates: tuple[Array, ...], cell_state: Hidden) -> Carry:
    """`update_state`, for whose gradient gates and cell states alone are kept."""
    return update_state(z_gates, cell_state, None, _ACTIVATION)[1:]


def _update_state_forward(z_gates, cell_state):
    gates, *carry = update_state(z_gates, cell_state, None, _ACTIVATION)
    return tuple(carry), (gates, cell_state)


def _update_state_backward(kept, gradients):
    gates, cell_state = kept
    cell_gradient, hidden_gradient = gradients
    after = gates.f * cell_state + gates.i * gates.g
    return update_state_gradient(
        cell_gradient, hidden_gradient, gates, cell_state, after, None, _ACTIVATION
    )


_update_state.defvjp(_update_state_forward, _update_state_backward)


def _normalise(z: Hidden, norm: Norm) -> Hidden:
    """Layer norm over height, width and channels of each sample."""
    axes = (1, 2, 3)
    centred = z - z.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return (
        centred * lax.rsqrt(variance + _NORM_EPSILON) * norm.scale[None]
        + (norm.offset[None])
    )


def _is_side_by_side(layer: LayerWeights) -> bool:
    """Whether one convolution can read input and hidden state."""
    sizes = layer.input_kernel.shape[:2], layer.recurrent_kernel.shape[:2]
    return layer.norms is None and sizes[0] == sizes[1]


def _side_by_side(kernels: tuple[Array, ...]) -> Array:
    """Kernels that read one tensor of all their channels."""
    return kernels[0] if len(kernels) == 1 else jnp.concatenate(kernels, axis=2)


@jax.custom_vjp
def _tap(value: Frame, tap: Frame | None) -> Frame:
    """`value + tap` for a tap of zeros, which are never read."""
    del tap
    return value


def _tap_forward(value, tap):
    del tap
    return value, None


def _tap_backward(_, gradient):
    return gradient, gradient


_tap.defvjp(_tap_forward, _tap_backward)


def _zero_taps(settings: _Settings, weights: StackWeights, frames: Video) -> Any:
    """For each step, layer and result a tap, and one for the prediction."""
    batch, num_steps, height, width, _ = frames.shape

    def zeros(kernel):
        shape = (num_steps, batch, height, width, kernel.shape[-1])
        return jnp.zeros(shape, settings.dtype)

    layers = tuple(
        (
            zeros(layer.input_kernel),
            None if layer.norms is None else zeros(layer.recurrent_kernel),
        )
        for layer in weights.layers
    )
    return layers, zeros(weights.output_kernel)


def _swap_time(sequence: Array) -> Array:
    """`[B, S, …]` to `[S, B, …]` and back."""
    return jnp.swapaxes(sequence, 0, 1)
