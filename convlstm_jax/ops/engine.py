"""Runs any recurrent cell over time, with one backward pass for all cells.

A cell is a pure function of one step, `step(convolve, parameters, carry, inputs)`. It
calls `convolve(kernel_name=array, …)` for a sum of convolutions, each kernel once.

* Kernels of one size whose results are added become one kernel, which reads their
  arrays side by side. On CPUs Winograd's algorithm transforms it before the loop.
* Elsewhere the convolutions of the step's inputs are one convolution over all B·T
  frames before the loop.
* The forward pass keeps the carry after each step and the results of `convolve`; from
  these the backward pass repeats a step without its convolutions.
* Gradients of kernels are summed in the loop on a CPU; elsewhere they are one
  convolution over all B·T frames after it.
* A step that is linear in the carry runs over all frames at once, but not on CPUs.
* Sequences stay batch-major, so that a batch sharded over devices never moves.

Outputs and gradients are those of `step` under `lax.scan` with plain autodiff, up to
the order of floating-point sums (1e-9 in float64).
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool

from convlstm_jax.ops.convolution import (
    HeldKernel,
    gathered_kernel_gradient,
    held_convolution,
    hold_kernel,
    kernel_gradient,
    kernel_gradient_in_loop,
    pull_back,
    same_convolution,
    start_gathering,
    transposed_kernel,
)
from convlstm_jax.ops.explicit_mesh import over_batch
from convlstm_jax.ops.linear_recurrence import (
    linear_recurrence,
    linear_recurrence_gradient,
)
from convlstm_jax.types import Array, Frame

Tree = Any
"""A tree of floating-point arrays; those of a carry or a sequence begin with B."""

Kernels = Mapping[str, Array]
ValidFrames = Bool[Array, "B T"]
Convolve = Callable[..., Array]
Step = Callable[[Convolve, Tree, Tree, Tree], tuple[Tree, Array]]

MEMORY = ("default", "checkpoint")


class StepInputs(NamedTuple):
    """The inputs of a step whose convolutions may have been computed before the loop.

    A cell gives it to `convolve` and cannot read it in another way.
    """

    shape: tuple[Any, ...]


CellInputs = Frame | StepInputs | None


class _Settings(NamedTuple):
    step: Step
    num_steps: int
    reverse: bool
    hoist: bool
    in_loop: bool
    dtype: Any


class _Arguments(NamedTuple):
    kernels: dict[str, Array]
    parameters: Tree
    carry: Tree
    inputs: Tree
    valid: ValidFrames | None


class _Call(NamedTuple):
    """A call of `convolve`: its kernels, those that read `StepInputs`, its result."""

    names: tuple[str, ...]
    of_inputs: tuple[str, ...]
    result: jax.ShapeDtypeStruct


class _Convolution(NamedTuple):
    """How a call is run: the kernels in the loop, and the names of those before it.

    With one held kernel for several names, these read their arrays side by side.
    """

    names: tuple[str, ...]
    held: tuple[HeldKernel, ...]
    hoisted: tuple[str, ...]
    result: jax.ShapeDtypeStruct


def convolve_with(kernels: Kernels, dtype: Any) -> Convolve:
    """The `convolve` of a single step outside of the engine: what this must equal."""

    def convolve(**arrays: Array | None) -> Array:
        return _sum(
            same_convolution(array.astype(dtype), kernels[name].astype(dtype))
            for name, array in arrays.items()
            if array is not None
        )

    return convolve


def run(
    step: Step,
    kernels: Kernels,
    parameters: Tree,
    carry: Tree,
    inputs: Tree,
    *,
    num_steps: int,
    valid: ValidFrames | None = None,
    reverse: bool = False,
    memory: str = "default",
    dtype: Any = jnp.float32,
) -> tuple[Tree, Array]:
    """Runs a cell over a sequence.

    Args:
        step: The cell, see above; hashable, so that equal cells compile once. Returns
            the new carry, of the shapes and dtypes of the old, and the output. If it
            has a `coefficients` that is not None, both are the array a∘carry + b, with
            `a, b = coefficients(convolve, parameters, inputs)`, which must also work on
            all frames, where arrays have an axis T after B.
        kernels: `[K, K, C, D]` each, K odd; an array of `None` is left out of a sum.
        parameters: All other weights.
        carry: The carry before the first step.
        inputs: A video `[B, T, H, W, C]` that the cell gives to `convolve` as it is,
            of which a step sees `StepInputs`; or a tuple of sequences `[B, T, …]`, of
            which it sees the frames; or `None`.
        num_steps: T.
        valid: At an invalid frame the carry is kept and the output is zero; its inputs
            reach neither outputs nor gradients. `None`: all frames are valid.
        reverse: Runs from the last frame to the first; outputs stay at their frames.
        memory: What is kept for the backward pass: "default", the carry and the
            convolutions' results of every step; "checkpoint", the inputs and the carry
            of every ⌈√T⌉th step, from which the steps between run a second time (Chen
            et al. 2016, arXiv:1604.06174).
        dtype: Of the convolutions.

    Returns:
        The final carry and the outputs `[B, T, …]`.

    Raises:
        ValueError: `memory` is unknown, or a step reads a kernel twice.
    """
    if memory not in MEMORY:
        raise ValueError(f"memory is {memory!r}: it must be one of {MEMORY}")
    run_all = partial(_run_all, step, num_steps, reverse, memory, dtype)
    return over_batch(run_all, (dict(kernels), parameters), carry, (inputs, valid))


def _run_all(
    step: Step,
    num_steps: int,
    reverse: bool,
    memory: str,
    dtype: Any,
    weights: tuple[dict[str, Array], Tree],
    carry: Tree,
    sequences: tuple[Tree, ValidFrames | None],
) -> tuple[Tree, Array]:
    """`run` with its arrays last."""
    inputs, valid = sequences
    if valid is not None:
        inputs = jax.tree.map(lambda x: where_valid(valid, x, 0), inputs)
    hoist = inputs is not None and not isinstance(inputs, tuple)
    if hoist:
        inputs = inputs.astype(dtype)
    in_loop = memory == "checkpoint"

    def run_part(length: int, weights: Any, carry: Tree, sequences: Any) -> Any:
        settings = _Settings(step, length, reverse, hoist, in_loop, jnp.dtype(dtype))
        (kernels, parameters), (inputs, valid) = weights, sequences
        arguments = _Arguments(kernels, parameters, carry, inputs, valid)
        return _run(settings, arguments)

    sequences = inputs, valid
    if not num_steps:
        shape = jax.eval_shape(partial(run_part, 1), weights, carry, _one(sequences))[1]
        return carry, jnp.zeros((shape.shape[0], 0, *shape.shape[2:]), shape.dtype)
    if in_loop:
        return _in_segments(run_part, weights, carry, sequences, num_steps, reverse)
    return run_part(num_steps, weights, carry, sequences)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(settings: _Settings, arguments: _Arguments) -> Any:
    result, _ = _by_platform(partial(_forward, settings, keep=False), arguments)
    return result


def _run_forward(settings: _Settings, arguments: _Arguments) -> Any:
    result, kept = _by_platform(partial(_forward, settings, keep=True), arguments)
    return result, (arguments, kept)


def _run_backward(settings: _Settings, saved: Any, gradients: Any) -> Any:
    return (_by_platform(partial(_backward, settings), *saved, gradients),)


_run.defvjp(_run_forward, _run_backward)


def _by_platform(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function with whether it runs on a CPU."""
    return lax.platform_dependent(
        *arguments,
        cpu=partial(function, on_cpu=True),
        default=partial(function, on_cpu=False),
    )


def _forward(
    settings: _Settings, arguments: _Arguments, *, keep: bool, on_cpu: bool
) -> Any:
    """The loop over time: the result of `run`, and with `keep` what it kept."""
    kernels, parameters, initial, inputs, valid = arguments
    calls, output, output_index = _trace(settings, arguments)
    convolutions = [_prepare(settings, kernels, call, on_cpu) for call in calls]
    hoisted = [_hoist(settings, kernels, c.hoisted, inputs) for c in convolutions]
    if _in_parallel(settings, on_cpu):
        result, kept = _all_at_once(settings, arguments, hoisted)
        return result, kept if keep else (None, None)

    def body(state: Any, t: Any) -> Any:
        carry, (carries, results, outputs) = state
        now = jax.tree.map(partial(_frame_at, t=t), inputs)
        results_now: list[Array] = []

        def convolve(**arrays: Any) -> Array:
            index = len(results_now)
            convolution, before = convolutions[index], hoisted[index]
            reads = _reads(settings, convolution, arrays, now)
            terms = list(map(held_convolution, reads, convolution.held))
            result = _sum(terms if before is None else [*terms, _frame_at(before, t)])
            results_now.append(result)
            return result

        new, output = _step(settings, arguments, convolve, parameters, carry, now, t)
        if keep:
            results = [
                None if buffer is None else _store(buffer, result, t)
                for buffer, result in zip(results, results_now, strict=True)
            ]
            carries = jax.tree.map(partial(_store, index=t), carries, new)
        if outputs is not None:
            outputs = _store(outputs, output, t)
        return (new, (carries, results, outputs)), None

    buffer_of = partial(_buffer, num_frames=settings.num_steps)
    stored_with_carries = output_index if keep else None
    buffers = (
        jax.tree.map(buffer_of, initial) if keep else None,
        [buffer_of(c.result) if c.held else None for c in convolutions]
        if keep
        else None,
        buffer_of(output) if stored_with_carries is None else None,
    )
    steps = jnp.arange(settings.num_steps)
    (carry, (carries, results, outputs)), _ = lax.scan(
        body, (initial, buffers), steps, reverse=settings.reverse
    )
    if results is not None:
        pairs = zip(results, hoisted, strict=True)
        results = [before if result is None else result for result, before in pairs]
    if stored_with_carries is not None:
        outputs = jax.tree.leaves(carries)[stored_with_carries]
        if valid is not None:
            outputs = where_valid(valid, outputs, 0)
    return (carry, outputs), (carries, results)


def _backward(
    settings: _Settings, arguments: _Arguments, kept: Any, gradients: Any, on_cpu: bool
) -> _Arguments:
    """The gradients of all arguments, from the last step to the first."""
    kernels, parameters, initial, inputs, _ = arguments
    carries, results = kept
    carry_gradient, output_gradients = gradients
    calls, *_ = _trace(settings, arguments)
    convolutions = [_prepare(settings, kernels, call, on_cpu) for call in calls]
    if _in_parallel(settings, on_cpu):
        return _all_at_once_backward(settings, arguments, convolutions, kept, gradients)
    # Inputs whose convolutions were all hoisted are not read in the loop.
    pairs = zip(calls, convolutions, strict=True)
    read = any(set(call.of_inputs) - set(c.hoisted) for call, c in pairs)
    read_inputs = inputs if read or not settings.hoist else None
    # A slot for each call; its gradient is that of the convolutions before the loop.
    slots = [
        jnp.zeros(c.result.shape, c.result.dtype) if c.hoisted else None
        for c in convolutions
    ]

    def body(state: Any, t: Any) -> Any:
        carry_gradient, parameter_total, gathered, sequences = state
        results_now = [_frame_at(result, t) for result in results]

        def repeat(
            carry: Any, parameters: Any, gathered: Any, now: Any, slots: Any
        ) -> Any:
            given = iter(zip(convolutions, results_now, gathered, slots, strict=True))

            def convolve(**arrays: Any) -> Array:
                convolution, result, gathered, slot = next(given)
                reads = _reads(settings, convolution, arrays, now)
                for parts in zip(convolution.held, gathered, reads, strict=True):
                    result = _known_result(t, *parts, result)
                return result if slot is None else result + slot

            return _step(settings, arguments, convolve, parameters, carry, now, t)

        before = jax.tree.map(partial(_before, settings, t), initial, carries)
        now = jax.tree.map(partial(_frame_at, t=t), read_inputs)
        _, pull_back = jax.vjp(repeat, before, parameters, gathered, now, slots)
        carry_gradient, more, gathered, *frames = pull_back(
            (carry_gradient, _frame_at(output_gradients, t))
        )
        parameter_total = jax.tree.map(jnp.add, parameter_total, more)
        sequences = jax.tree.map(partial(_store, index=t), sequences, tuple(frames))
        return (carry_gradient, parameter_total, gathered, sequences), None

    steps, late = jnp.arange(settings.num_steps), partial(_late, output_gradients)
    start = partial(start_gathering, num_steps=settings.num_steps)
    buffer_of = partial(_buffer, num_frames=settings.num_steps)
    state = (
        carry_gradient,
        jax.tree.map(jnp.zeros_like, parameters),
        [late(list(map(start, c.held))) for c in convolutions],
        (
            late(jax.tree.map(jnp.zeros_like, read_inputs)),
            jax.tree.map(buffer_of, slots),
        ),
    )
    (carry_gradient, parameter_gradient, gathered, sequences), _ = lax.scan(
        body, state, steps, reverse=not settings.reverse
    )
    kernel_gradients, input_gradients = _gradients_after_the_loop(
        settings, arguments, convolutions, gathered, *sequences
    )
    return _Arguments(
        kernel_gradients, parameter_gradient, carry_gradient, input_gradients, None
    )


def _in_parallel(settings: _Settings, on_cpu: bool) -> bool:
    """Whether all frames are computed at once, which a linear step allows.

    On two cores the loop takes 0.4 of the time and of the memory for frames of 64×64
    with 64 channels, as its convolutions are among tiles and each frame stays in the
    cache from one to the other; for frames as small as 16×16 with 16, of which 200
    take a tenth of a second, 1.4 times as long.
    """
    return settings.hoist and not on_cpu and _coefficients_of(settings) is not None


def _coefficients_of(settings: _Settings) -> Any:
    return getattr(settings.step, "coefficients", None)


def _all_at_once(settings: _Settings, arguments: _Arguments, results: Any) -> Any:
    """`_forward` of a linear step, given the results of its calls of `convolve`."""
    _, parameters, initial, _, valid = arguments
    a, b = _coefficients(settings, arguments, parameters, results)
    states = linear_recurrence(a, b, initial, reverse=settings.reverse)
    carry = states[:, 0 if settings.reverse else -1]
    outputs = states if valid is None else where_valid(valid, states, 0)
    return (carry, outputs), (states, results)


def _all_at_once_backward(
    settings: _Settings,
    arguments: _Arguments,
    convolutions: list[_Convolution],
    kept: Any,
    gradients: Any,
) -> _Arguments:
    """`_backward` of a linear step."""
    _, parameters, initial, _, valid = arguments
    states, results = kept
    carry_gradient, gradient = gradients
    if valid is not None:
        gradient = where_valid(valid, gradient, 0)
    gradient = gradient.at[:, 0 if settings.reverse else -1].add(carry_gradient)
    (a, _), pull_back = jax.vjp(
        partial(_coefficients, settings, arguments), parameters, results
    )
    *gradients, initial_gradient = linear_recurrence_gradient(
        a, initial, states, gradient, reverse=settings.reverse
    )
    parameter_gradient, result_gradients = pull_back(tuple(gradients))
    kernel_gradients, input_gradients = _gradients_after_the_loop(
        settings, arguments, convolutions, [()] * len(results), None, result_gradients
    )
    return _Arguments(
        kernel_gradients, parameter_gradient, initial_gradient, input_gradients, None
    )


def _coefficients(
    settings: _Settings, arguments: _Arguments, parameters: Tree, results: Any
) -> tuple[Array, Array]:
    """Those of all frames; 1 and 0 at invalid frames, which keep the carry."""
    given, valid = iter(results), arguments.valid
    a, b = _coefficients_of(settings)(
        lambda **_: next(given), parameters, StepInputs(arguments.inputs.shape)
    )
    if valid is None:
        return a, b
    return where_valid(valid, a, 1), where_valid(valid, b, 0)


def _step(
    settings: _Settings,
    arguments: _Arguments,
    convolve: Convolve,
    parameters: Tree,
    carry: Tree,
    now: Tree,
    t: Any,
) -> tuple[Tree, Array]:
    """A step of the cell; at an invalid frame the carry as it was, and zero."""
    inputs, valid = arguments.inputs, arguments.valid
    if settings.hoist:
        now = StepInputs((inputs.shape[0], *inputs.shape[2:]))
    new, output = settings.step(convolve, parameters, carry, now)
    if valid is None:
        return new, output
    keep = _frame_at(valid, t)
    new = jax.tree.map(lambda x, y: where_valid(keep, x, y), new, carry)
    return new, where_valid(keep, output, 0)


def _trace(
    settings: _Settings, arguments: _Arguments
) -> tuple[list[_Call], jax.ShapeDtypeStruct, int | None]:
    """The calls of `convolve` in a step, its output, and which carry leaf this is."""
    kernels = arguments.kernels
    calls: list[_Call] = []
    index = None

    def convolve(**arrays: Any) -> Array:
        given = {name: array for name, array in arrays.items() if array is not None}
        for name in given:
            if any(name in call.names for call in calls):
                raise ValueError(
                    f"kernel {name!r} is read twice: it must be once a step"
                )
        of_inputs = tuple(n for n, x in given.items() if isinstance(x, StepInputs))
        name, array = next(iter(given.items()))
        shape = (*array.shape[:-1], kernels[name].shape[-1])
        result = jax.ShapeDtypeStruct(shape, settings.dtype)
        calls.append(_Call(tuple(given), of_inputs, result))
        return jnp.zeros(shape, settings.dtype)

    def trace(arguments: _Arguments) -> Array:
        nonlocal index
        _, parameters, carry, inputs, _ = arguments
        arguments = arguments._replace(valid=None)
        now = jax.tree.map(partial(_frame_at, t=0), inputs)
        new, output = _step(settings, arguments, convolve, parameters, carry, now, 0)
        leaves = jax.tree.leaves(new)
        index = next((n for n, leaf in enumerate(leaves) if leaf is output), None)
        return output

    output = jax.eval_shape(trace, arguments)
    return calls, output, index


def _prepare(
    settings: _Settings, kernels: Kernels, call: _Call, on_cpu: bool
) -> _Convolution:
    """Decides how a call is run, and prepares its kernels."""

    def hold(*names: str) -> HeldKernel:
        together = [kernels[name].astype(settings.dtype) for name in names]
        kernel = jnp.concatenate(together, axis=2)
        return hold_kernel(kernel, call.result.shape, on_cpu=on_cpu)

    def in_loop(names: tuple[str, ...]) -> tuple[HeldKernel, ...]:
        one_size = len({kernels[name].shape[:2] for name in names}) == 1
        return (hold(*names),) if one_size else tuple(map(hold, names))

    held = in_loop(call.names)
    held_by = held if len(held) > 1 else held * len(call.names)
    pairs = zip(call.names, held_by, strict=True)
    if all(h.by_tiles is not None for name, h in pairs if name in call.of_inputs):
        return _Convolution(call.names, held, (), call.result)
    names = tuple(name for name in call.names if name not in call.of_inputs)
    return _Convolution(names, in_loop(names), call.of_inputs, call.result)


def _hoist(
    settings: _Settings, kernels: Kernels, names: tuple[str, ...], inputs: Any
) -> Array | None:
    """The results of a call that do not depend on the carry."""
    convolve = convolve_with(kernels, settings.dtype)
    return convolve(**dict.fromkeys(names, inputs)) if names else None


def _reads(
    settings: _Settings, convolution: _Convolution, arrays: dict[str, Any], now: Any
) -> list[Array]:
    """What each held kernel of a call reads."""
    given = [arrays[name] for name in convolution.names]
    found = [
        (now if isinstance(x, StepInputs) else x).astype(settings.dtype) for x in given
    ]
    if len(convolution.held) == 1:
        return [jnp.concatenate(found, axis=-1)]
    return found


def _gradients_after_the_loop(
    settings: _Settings,
    arguments: _Arguments,
    convolutions: list[_Convolution],
    gathered: Any,
    input_gradients: Tree,
    hoisted_gradients: Any,
) -> tuple[dict[str, Array], Tree]:
    """The gradients of kernels and inputs, from what the backward loop found."""
    kernels, inputs = arguments.kernels, arguments.inputs
    gradient_of = kernel_gradient_in_loop if settings.in_loop else kernel_gradient
    found: dict[str, Array] = {}
    for convolution, totals in zip(convolutions, gathered, strict=True):
        held = [
            gathered_kernel_gradient(kernel, total, in_loop=settings.in_loop)
            for kernel, total in zip(convolution.held, totals, strict=True)
        ]
        if len(held) == 1:
            channels = [kernels[name].shape[2] for name in convolution.names]
            held = jnp.split(held[0], list(accumulate(channels))[:-1], axis=2)
        found |= zip(convolution.names, held, strict=True)
    for convolution, gradient in zip(convolutions, hoisted_gradients, strict=True):
        for name in convolution.hoisted:
            kernel = kernels[name].astype(settings.dtype)
            found[name] = gradient_of(inputs, gradient, kernel)
            more = same_convolution(gradient, transposed_kernel(kernel))
            input_gradients = (
                more if input_gradients is None else input_gradients + more
            )
    found = {
        name: found.get(name, jnp.zeros_like(kernel)).astype(kernel.dtype)
        for name, kernel in kernels.items()
    }
    if input_gradients is None and inputs is not None:
        input_gradients = jnp.zeros_like(inputs)
    return found, input_gradients


def _known_result(
    t: Array, held: HeldKernel, gathered: Any, inputs: Array, result: Array
) -> Array:
    """The known result of a convolution, or of a sum of them.

    The gradient of `gathered` is what `pull_back` makes of it: this is how the backward
    pass of one step hands the kernels' gradients on to the next.
    """

    @jax.custom_vjp
    def known(gathered: Any, inputs: Array, result: Array) -> Array:
        return result

    def forward(gathered: Any, inputs: Array, result: Array) -> Any:
        return result, (gathered, inputs)

    def backward(saved: Any, gradient: Array) -> Any:
        gathered, inputs = saved
        return *pull_back(held, gathered, t, inputs, gradient), gradient

    known.defvjp(forward, backward)
    return known(gathered, inputs, result)


def _before(settings: _Settings, t: Any, first: Array, after: Array) -> Array:
    """The state that step t starts from, given those after each step."""
    previous, start = (
        (t + 1, settings.num_steps - 1) if settings.reverse else (t - 1, 0)
    )
    # Before the first step there is none, and whatever is read is not used.
    return jnp.where(t == start, first, _frame_at(after, previous))


def _late(gradient: Array, tree: Tree) -> Tree:
    """The tree, computed only once a gradient is known.

    XLA:CPU computes what depends on nothing as early as it can, such as zeros that the
    backward passes of all layers add to, which then take memory from the start. It
    keeps the product below, which is NaN for some values.
    """
    zero = 0 * gradient[(0,) * gradient.ndim]
    return jax.tree.map(lambda array: array + zero.astype(array.dtype), tree)


def _in_segments(
    run_part: Callable[..., Any],
    weights: Any,
    carry: Tree,
    sequences: Tree,
    num_steps: int,
    reverse: bool,
) -> tuple[Tree, Array]:
    """Runs over sequences `[B, T, …]` with a checkpoint every ⌈√T⌉ steps."""
    length = math.isqrt(max(num_steps - 1, 0)) + 1
    num_segments, rest = divmod(num_steps, length)
    cut = num_segments * length

    def segment(length: int, carry: Tree, part: Tree) -> Any:
        # Nothing is shared in a scan.
        checkpointed = jax.checkpoint(partial(run_part, length), prevent_cse=False)
        return checkpointed(weights, carry, part)

    def split(sequence: Array) -> Array:
        whole = sequence[:, :cut]
        segments = whole.reshape(whole.shape[0], num_segments, length, *whole.shape[2:])
        return jnp.moveaxis(segments, 1, 0)

    last, parts = jax.tree.map(lambda x: x[:, cut:], sequences), []
    if rest and reverse:
        carry, outputs = segment(rest, carry, last)
        parts.append(outputs)
    carry, outputs = lax.scan(
        partial(segment, length),
        carry,
        jax.tree.map(split, sequences),
        length=num_segments,
        reverse=reverse,
    )
    outputs = jnp.moveaxis(outputs, 0, 1)
    parts.insert(0, outputs.reshape(outputs.shape[0], cut, *outputs.shape[3:]))
    if rest and not reverse:
        carry, outputs = segment(rest, carry, last)
        parts.append(outputs)
    return carry, jnp.concatenate(parts, axis=1)


def _one(sequences: Tree) -> Tree:
    """One frame in place of none."""
    return jax.tree.map(
        lambda x: jnp.zeros((x.shape[0], 1, *x.shape[2:]), x.dtype), sequences
    )


def _sum(terms: Iterable[Array]) -> Array:
    """Σ of at least one term."""
    return reduce(operator.add, terms)


def where_valid(keep: Array, array: Array, otherwise: Any) -> Array:
    """`jnp.where` with a mask of the leading axes."""
    mask = keep.reshape(*keep.shape, *[1] * (array.ndim - keep.ndim))
    return jnp.where(mask, array, otherwise)


def _buffer(frame: Array | jax.ShapeDtypeStruct, num_frames: int) -> Array:
    return jnp.zeros((frame.shape[0], num_frames, *frame.shape[1:]), frame.dtype)


def _frame_at(sequence: Array, t: Any) -> Array:
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def _store(sequence: Array, frame: Array, index: Any) -> Array:
    return lax.dynamic_update_index_in_dim(
        sequence, frame.astype(sequence.dtype), index, axis=1
    )


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def per_channel(parameter: Array, shape: tuple[Any, ...]) -> Array:
    """A parameter `[D]` for every pixel of `[B, H, W, D]`.

    `jnp.broadcast_to` with a gradient that is fast in a loop: a product, not a sum.
    """
    return jnp.broadcast_to(parameter, shape)


def _per_channel_forward(parameter: Array, shape: tuple[Any, ...]) -> Any:
    return jnp.broadcast_to(parameter, shape), None


def _per_channel_backward(shape: tuple[Any, ...], _: None, gradient: Array) -> Any:
    flat = gradient.reshape(-1, shape[-1])
    return ((jnp.ones((1, flat.shape[0]), flat.dtype) @ flat)[0],)


per_channel.defvjp(_per_channel_forward, _per_channel_backward)
