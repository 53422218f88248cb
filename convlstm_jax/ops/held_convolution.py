"""A convolution in a loop over time whose kernel is the same at every step.

Its kernel's gradient comes about in three parts: `start_gathering` before the loop
back, `pull_back` at every step, `gathered_kernel_gradient` after it. On a CPU the
gradient itself is summed up, which takes less memory; elsewhere the gradients of all
steps' results are gathered, as one convolution over them all is faster there.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from convlstm_jax.ops.convolution import (
    kernel_gradient,
    kernel_gradient_in_loop,
    same_convolution,
    transposed_kernel,
)
from convlstm_jax.ops.step import state_dtype
from convlstm_jax.ops.winograd import (
    TileKernels,
    Winograd,
    convolve,
    convolve_gradients,
    transform_kernel,
    transform_kernel_adjoint,
    winograd_for,
)
from convlstm_jax.types import Frame


@dataclass(frozen=True)
class HeldKernel:
    """A kernel in the forms that loops need; XLA leaves out what is not used.

    Attributes:
      kernel: `[K, K, C, D]`.
      adjoint: its `transposed_kernel`.
      frame_shape: `(B, H, W, …)` of what it reads.
      on_cpu: whether the loop runs on a CPU.
      by_tiles: the algorithm and its `transform_kernel`, on a CPU where there is one.
    """

    kernel: Float[Array, "K K C D"]
    adjoint: Float[Array, "K K D C"]
    frame_shape: tuple[int, ...]
    on_cpu: bool
    by_tiles: tuple[Winograd, TileKernels] | None


def hold_kernel(
    kernel: Float[Array, "K K C D"], frame_shape: tuple[int, ...], *, on_cpu: bool
) -> HeldKernel:
    """Makes a kernel ready, before a loop."""
    by_tiles = None
    algorithm = winograd_for(kernel.shape, frame_shape, kernel.dtype)
    if on_cpu and algorithm is not None:
        by_tiles = algorithm, transform_kernel(algorithm, kernel)
    adjoint = transposed_kernel(kernel)
    return HeldKernel(kernel, adjoint, frame_shape, on_cpu, by_tiles)


def held_convolution(inputs: Frame, held: HeldKernel) -> Frame:
    """`same_convolution` of `[B, H, W, C]`."""
    if held.by_tiles is not None:
        algorithm, tiles = held.by_tiles
        return convolve(algorithm, inputs, tiles)
    return same_convolution(inputs, held.kernel)


def start_gathering(held: HeldKernel, num_steps: int) -> Array:
    """What `pull_back` starts from."""
    if held.by_tiles is not None:
        _, tiles = held.by_tiles
        return jnp.zeros_like(tiles)
    if held.on_cpu:
        # A long sum in bfloat16 would stop growing.
        return jnp.zeros(held.kernel.shape, state_dtype(held.kernel.dtype))
    batch, height, width, *_ = held.frame_shape
    shape = (batch, num_steps, height, width, held.kernel.shape[-1])
    return jnp.zeros(shape, held.kernel.dtype)


def pull_back(
    held: HeldKernel, gathered: Array, step: Array, inputs: Frame, gradient: Frame
) -> tuple[Array, Frame]:
    """The adjoint of `held_convolution` at a step, given the gradient of its result.

    Returns:
      What is gathered now, and the gradient of the inputs.
    """
    if held.by_tiles is not None:
        algorithm, tiles = held.by_tiles
        return convolve_gradients(algorithm, gathered, inputs, tiles, gradient)
    if held.on_cpu:
        gathered += kernel_gradient_in_loop(inputs, gradient, held.kernel)
    else:
        gathered = lax.dynamic_update_index_in_dim(gathered, gradient, step, axis=1)
    return gathered, same_convolution(gradient, held.adjoint)


def gathered_kernel_gradient(
    held: HeldKernel, gathered: Array, inputs: Float[Array, "S B H W C"]
) -> Float[Array, "K K C D"]:
    """The kernel's gradient after all steps, given what they read."""
    if held.by_tiles is not None:
        algorithm, _ = held.by_tiles
        return transform_kernel_adjoint(algorithm, gathered)
    if held.on_cpu:
        return gathered
    # Batch-major before B and S merge: a sharded batch then stays where it is.
    return kernel_gradient(jnp.swapaxes(inputs, 0, 1), gathered, held.kernel)
