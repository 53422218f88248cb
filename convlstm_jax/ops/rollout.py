"""A stack of ConvLSTM layers that reads frames, or its own last prediction.

As the output is fed back, nothing can be computed before the loop over time: the layers
go through each step together. The backward pass is written by hand:

* The forward loop keeps the frames that were read, the gates, the cell states and the
  inputs of layer norms. Hidden states, which follow from these, are recomputed.
* Where a layer's two convolutions are added unchanged, one convolution reads input and
  hidden state side by side.
* The loop gathers the gradients of the convolutions' results; after it each kernel's
  gradient is one convolution over all B·S frames. On a CPU the loop sums the kernels'
  gradients themselves: less memory and, but for 7×7 kernels and larger, no more time.

The gradient is that of plain autodiff up to the order of floating-point sums (1e-9 in
float64); in bfloat16 gates are kept and hidden states recomputed in that dtype.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from convlstm_jax.ops.cell import (
    ACTIVATIONS,
    Gates,
    carry_of_dtype,
    split_gates,
    state_dtype,
    update_state,
    update_state_gradient,
)
from convlstm_jax.ops.convolution import (
    HeldKernel,
    gathered_kernel_gradient,
    held_convolution,
    hold_kernel,
    pull_back,
    start_gathering,
)
from convlstm_jax.ops.recurrence import late
from convlstm_jax.types import Array, Carry, ForecastVideo, Frame, Hidden, Video

TeacherForcing = Bool[Array, "B S"]

_NORM_EPSILON = 1e-5
_ACTIVATION = "tanh"


class Norm(NamedTuple):
    """The weights `[H, W, 4F]` of a layer norm over a whole frame."""

    scale: Float[Array, "H W G"]
    offset: Float[Array, "H W G"]


class LayerWeights(NamedTuple):
    """One ConvLSTM layer without biases, gates along the last axis in `GATE_ORDER`.

    `norms` are layer norms of the two convolutions' results, in this order, or `None`.
    """

    input_kernel: Float[Array, "K K C G"]
    recurrent_kernel: Float[Array, "K K F G"]
    norms: tuple[Norm, Norm] | None = None


class StackWeights(NamedTuple):
    """Layers, bottom first, and the output convolution over the last one's h."""

    layers: tuple[LayerWeights, ...]
    output_kernel: Float[Array, "1 1 F C"]


class RolloutState(NamedTuple):
    """`(c, h)` of each layer, and the prediction `[B, H, W, C]` of the next frame."""

    carries: tuple[Carry, ...]
    prediction: Frame


class _Settings(NamedTuple):
    forget_offset: float
    dtype: jnp.dtype


class _PerKernel(NamedTuple):
    """One value for each kernel of a stack; a layer has one kernel or two."""

    layers: tuple[tuple[Any, ...], ...]
    output: Any


class _Kept(NamedTuple):
    """What the backward pass needs of a layer; for all steps together, S comes first.

    The cell state is that before the step; the results are those of the convolutions,
    where they are normalised.
    """

    gates: Array
    cell_state: Array
    results: tuple[Array, ...]


def initial_state(
    weights: StackWeights, frame_shape: Sequence[Any], dtype: Any = jnp.float32
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
    teacher_forcing: TeacherForcing,
    state: RolloutState,
    *,
    forget_offset: float = 1.0,
    dtype: Any = jnp.float32,
) -> tuple[RolloutState, ForecastVideo]:
    """Runs the stack for S steps, one predicted frame a step.

    Step t reads frame t where `teacher_forcing[:, t]`, and the prediction of step t−1
    elsewhere; its output is the prediction of frame t+1. The layers are those of
    equation 3 of Shi et al. 2015 (arXiv:1506.04214) without peepholes and biases.

    Args:
        weights: The stack's weights.
        frames: `[B, T, H, W, C]`; T may be less than S where later frames are not read;
            frames after S are ignored.
        teacher_forcing: `[B, S]`, true where a clip's frame is read at a step.
        state: The state before; `initial_state` at the start of a clip.
        forget_offset: Constant added to the forget gate's pre-activation.
        dtype: Of the convolutions, h and the predictions; cell states are float32
            (float64 if `dtype` is).

    Returns:
        The state after the last step, and the predictions `[B, S, H, W, C]`.
    """
    frames = frames_of_steps(frames, teacher_forcing.shape[1], dtype)
    state = state_of_dtype(state, dtype)
    if not teacher_forcing.shape[1]:
        return state, frames
    settings = _Settings(forget_offset, jnp.dtype(dtype))
    return _rollout(settings, weights, frames, state, teacher_forcing)


def frames_of_steps(frames: Video, num_steps: int, dtype: Any) -> ForecastVideo:
    """As many frames as steps; missing ones, which are not read, are zeros."""
    frames = frames[:, :num_steps].astype(dtype)
    missing = num_steps - frames.shape[1]
    return jnp.pad(frames, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)))


def state_of_dtype(state: RolloutState, dtype: Any) -> RolloutState:
    """The state in the dtypes of `rollout`."""
    carries = tuple(carry_of_dtype(carry, dtype) for carry in state.carries)
    return RolloutState(carries, state.prediction.astype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rollout(
    settings: Any, weights: Any, frames: Any, state: Any, teacher_forcing: Any
) -> Any:
    arguments = (weights, frames, state, teacher_forcing)
    result, _ = _by_platform(partial(_run, settings, keep=False), arguments)
    return result


def _rollout_forward(
    settings: Any, weights: Any, frames: Any, state: Any, teacher_forcing: Any
) -> Any:
    arguments = (weights, frames, state, teacher_forcing)
    result, kept = _by_platform(partial(_run, settings, keep=True), arguments)
    hiddens = tuple(hidden for _, hidden in state.carries)
    return result, (weights, teacher_forcing, hiddens, result[0].carries, *kept)


def _rollout_backward(settings: Any, saved: Any, gradients: Any) -> Any:
    arguments = (*saved, gradients)
    return *_by_platform(partial(_run_back, settings), arguments), None


_rollout.defvjp(_rollout_forward, _rollout_backward)


def _by_platform(function: Any, arguments: Any) -> Any:
    """Calls a function with whether it runs on a CPU."""
    return lax.platform_dependent(
        *arguments,
        cpu=partial(function, on_cpu=True),
        default=partial(function, on_cpu=False),
    )


def _run(
    settings: Any,
    weights: Any,
    frames: Any,
    state: Any,
    teacher_forcing: Any,
    *,
    keep: Any,
    on_cpu: Any,
) -> Any:
    """The loop over time: the result of `rollout`, and with `keep` what it kept."""
    kernels = _hold(settings, weights, state.prediction.shape, on_cpu)

    def step(state: Any, now: Any) -> Any:
        frame, teacher_forcing = now
        read = jnp.where(teacher_forcing[:, None, None, None], frame, state.prediction)
        carries, layers = [], []
        inputs = read
        for index, carry in enumerate(state.carries):
            norms = weights.layers[index].norms
            carry, layer = _layer_step(
                settings, kernels.layers[index], norms, carry, inputs
            )
            carries.append(carry)
            layers.append(layer)
            inputs = carry[1]
        prediction = held_convolution(inputs, kernels.output)
        kept = (read, tuple(layers)) if keep else None
        return RolloutState(tuple(carries), prediction), (prediction, kept)

    sequence = (_swap_time(frames), teacher_forcing.T)
    state, (predictions, kept) = lax.scan(step, state, sequence)
    return (state, _swap_time(predictions)), kept


def _layer_step(
    settings: _Settings,
    kernels: tuple[HeldKernel, ...],
    norms: tuple[Norm, Norm] | None,
    carry: Carry,
    inputs: Frame,
) -> tuple[Carry, _Kept]:
    cell_state, hidden = carry
    results = tuple(map(held_convolution, _reads(kernels, inputs, hidden), kernels))
    terms = [result.astype(cell_state.dtype) for result in results]
    if norms is not None:
        terms = list(map(_normalise, terms, norms))
    z_i, z_f, z_g, z_o = split_gates(sum(terms[1:], start=terms[0]))
    gates, new_cell_state, hidden = update_state(
        (z_i, z_f + settings.forget_offset, z_g, z_o), cell_state, None, _ACTIVATION
    )
    kept = _Kept(
        jnp.stack(gates).astype(settings.dtype),
        cell_state,
        () if norms is None else results,
    )
    return (new_cell_state, hidden.astype(settings.dtype)), kept


def _run_back(
    settings: Any,
    weights: Any,
    forcing: Any,
    hiddens: Any,
    carries: Any,
    read: Any,
    layers: Any,
    gradients: Any,
    *,
    on_cpu: Any,
) -> Any:
    """The backward loop, from each layer's first h, last carry and what was kept."""
    state_gradient, prediction_gradients = gradients
    num_steps, *frame_shape = read.shape
    kernels = _hold(settings, weights, frame_shape, on_cpu)

    def step(state: Any, now: Any) -> Any:
        gradient, carries, gathered, norm_sums = state
        t, forcing, prediction_gradient, frame, layers_now = now
        inputs = [frame, *(hidden for _, hidden in carries)]
        prediction_gradient = gradient.prediction + prediction_gradient
        gathered_output, from_above = pull_back(
            kernels.output, gathered.output, t, inputs[-1], prediction_gradient
        )
        carries_before = []
        for layer, now, initial in zip(layers, layers_now, hiddens, strict=True):
            # Before the first step there is none, and whatever is read is not used.
            before = lax.dynamic_index_in_dim(layer.gates, t - 1, keepdims=False)
            hidden = _hidden(settings, Gates(*before).o, now.cell_state)
            hidden = jnp.where(t == 0, initial, hidden)
            carries_before.append((now.cell_state, hidden))
        results: list[Any] = []
        for index in reversed(range(len(layers))):
            cell_gradient, hidden_gradient = gradient.carries[index]
            *result, from_above = _layer_step_back(
                settings,
                t,
                kernels.layers[index],
                weights.layers[index].norms,
                layers_now[index],
                inputs[index],
                (carries_before[index], carries[index]),
                (cell_gradient, hidden_gradient + from_above),
                gathered.layers[index],
            )
            results.insert(0, result)
        gathered_layers, norm_gradients, carry_gradients = map(
            tuple, zip(*results, strict=True)
        )
        forcing = forcing[:, None, None, None]
        state = (
            RolloutState(carry_gradients, jnp.where(forcing, 0, from_above)),
            tuple(carries_before),
            _PerKernel(gathered_layers, gathered_output),
            jax.tree.map(jnp.add, norm_sums, norm_gradients),
        )
        return state, jnp.where(forcing, from_above, 0)

    norms = tuple(layer.norms for layer in weights.layers)
    state = (
        state_gradient,
        carries,
        _start(kernels, num_steps, prediction_gradients if on_cpu else None),
        jax.tree.map(jnp.zeros_like, norms),
    )
    steps = (
        jnp.arange(num_steps),
        forcing.T,
        _swap_time(prediction_gradients),
        read,
        layers,
    )
    (gradient, _, gathered, norm_gradients), frame_gradients = lax.scan(
        step, state, steps, reverse=True
    )
    ends, kept = (hiddens, carries), (read, layers)
    found = gathered, norm_gradients
    gradients = _weight_gradients(settings, weights, kernels, found, ends, kept)
    return gradients, _swap_time(frame_gradients), gradient


def _start(kernels: _PerKernel, num_steps: int, late_for: Array | None) -> _PerKernel:
    """What the loop gathers, at its start."""

    def start(kernel: Any) -> Any:
        gathered = start_gathering(kernel, num_steps)
        return gathered if late_for is None else late(gathered, late_for)

    started: _PerKernel = jax.tree.map(
        start, kernels, is_leaf=lambda x: isinstance(x, HeldKernel)
    )
    return started


def _weight_gradients(
    settings: Any, weights: Any, kernels: Any, gathered: Any, ends: Any, kept: Any
) -> Any:
    """The gradients of all weights, after the backward loop."""
    (gathered, norm_gradients), (hiddens, carries) = gathered, ends
    inputs, layers = kept
    layer_gradients = []
    for index, layer in enumerate(layers):
        final_cell_state, _ = carries[index]
        cell_states = jnp.concatenate([layer.cell_state[1:], final_cell_state[None]])
        o = Gates(*jnp.moveaxis(layer.gates, 1, 0)).o
        after = _hidden(settings, o, cell_states)
        before = jnp.concatenate([hiddens[index][None], after[:-1]])
        held = kernels.layers[index]
        reads = _reads(held, inputs, before)
        found = list(map(gathered_kernel_gradient, held, gathered.layers[index], reads))
        input_kernel, recurrent_kernel = _apart(found, inputs, axis=2)
        layer_gradients.append(
            LayerWeights(input_kernel, recurrent_kernel, norm_gradients[index])
        )
        inputs = after
    output_gradient = gathered_kernel_gradient(kernels.output, gathered.output, inputs)
    return jax.tree.map(
        lambda gradient, weight: gradient.astype(weight.dtype),
        StackWeights(tuple(layer_gradients), output_gradient),
        weights,
    )


def _hidden(settings: _Settings, o: Array, cell_state: Array) -> Array:
    """The hidden state after a step, or after all, from o and c."""
    activated = ACTIVATIONS[_ACTIVATION].apply(cell_state)
    return (o.astype(cell_state.dtype) * activated).astype(settings.dtype)


def _layer_step_back(
    settings: _Settings,
    t: Array,
    kernels: tuple[HeldKernel, ...],
    norms: tuple[Norm, Norm] | None,
    kept: _Kept,
    inputs: Frame,
    carries: tuple[Carry, Carry],
    carry_gradient: Carry,
    gathered: tuple[Array, ...],
) -> tuple[tuple[Array, ...], Any, Carry, Frame]:
    """The adjoint of `_layer_step`, given the carries before and after it."""
    (cell_state, hidden), (new_cell_state, _) = carries
    cell_gradient, hidden_gradient = carry_gradient
    gate_gradients, cell_gradient = update_state_gradient(
        cell_gradient,
        hidden_gradient.astype(cell_gradient.dtype),
        Gates(*kept.gates),
        cell_state,
        new_cell_state,
        None,
        _ACTIVATION,
    )
    dz = jnp.concatenate(gate_gradients, axis=-1)
    result_gradients: Any = [dz] * len(kernels)
    norm_gradients = None
    if norms is not None:
        adjoints = [
            jax.vjp(_normalise, result.astype(dz.dtype), norm)[1](dz)
            for result, norm in zip(kept.results, norms, strict=True)
        ]
        result_gradients, norm_gradients = zip(*adjoints, strict=True)
    pulled_back = [
        pull_back(kernel, found, t, read, gradient.astype(settings.dtype))
        for kernel, found, read, gradient in zip(
            kernels,
            gathered,
            _reads(kernels, inputs, hidden),
            result_gradients,
            strict=True,
        )
    ]
    gathered, read_gradients = zip(*pulled_back, strict=True)
    inputs_gradient, hidden_gradient = _apart(read_gradients, inputs, axis=-1)
    return gathered, norm_gradients, (cell_gradient, hidden_gradient), inputs_gradient


def _normalise(z: Hidden, norm: Norm) -> Hidden:
    """Layer norm over height, width and channels of each sample."""
    axes = (1, 2, 3)
    centred = z - z.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return (
        centred * lax.rsqrt(variance + _NORM_EPSILON) * norm.scale[None]
        + (norm.offset[None])
    )


def _hold(settings: Any, weights: Any, frame_shape: Any, on_cpu: Any) -> _PerKernel:
    """All kernels as `HeldKernel`s."""

    def hold(*kernels: Array) -> Any:
        kernel = jnp.concatenate(kernels, axis=2).astype(settings.dtype)
        return hold_kernel(kernel, frame_shape, on_cpu=on_cpu)

    layers = []
    for layer in weights.layers:
        both = (layer.input_kernel, layer.recurrent_kernel)
        one_size = both[0].shape[:2] == both[1].shape[:2]
        together = one_size and layer.norms is None
        layers.append((hold(*both),) if together else tuple(map(hold, both)))
    return _PerKernel(tuple(layers), hold(weights.output_kernel))


def _reads(kernels: tuple[HeldKernel, ...], inputs: Array, hidden: Array) -> Any:
    """What a layer's kernels read: both side by side, or each its own."""
    if len(kernels) == 1:
        return [jnp.concatenate([inputs, hidden], axis=-1)]
    return [inputs, hidden]


def _apart(gradients: Sequence[Array], inputs: Array, axis: int) -> tuple[Array, Array]:
    """Splits what `_reads` joined into the parts of inputs and hidden state."""
    if len(gradients) == 1:
        gradients = jnp.split(gradients[0], [inputs.shape[-1]], axis=axis)
    of_inputs, of_hidden = gradients
    return of_inputs, of_hidden


def _swap_time(sequence: Array) -> Array:
    """`[B, S, …]` to `[S, B, …]` and back."""
    return jnp.swapaxes(sequence, 0, 1)
