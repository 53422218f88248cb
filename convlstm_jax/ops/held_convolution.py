"""A convolution in a loop whose kernel is the same at every step.

Nothing is differentiated by the kernel inside the loop, where XLA:CPU has no fast
convolution for that. The caller gathers what the convolutions read and the gradients
of their results, and `gathered_kernel_gradient` makes the kernel's gradient of them.
On a CPU, where `winograd_for` finds an algorithm, all of it goes by tiles.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from convlstm_jax.array_types import Frame
from convlstm_jax.ops.convolution import (
    kernel_gradient,
    same_convolution,
    transposed_kernel,
)
from convlstm_jax.ops.late import late
from convlstm_jax.ops.winograd import (
    TileKernels,
    Winograd,
    add_kernel_gradient,
    convolve,
    convolve_adjoint,
    transform_kernel,
    transform_kernel_adjoint,
    winograd_for,
)


class HeldKernel(NamedTuple):
    """A kernel in the forms that the loop needs; XLA leaves out what is not used.

    Attributes:
      kernel: `[K, K, C, D]`.
      adjoint: its `transposed_kernel`.
      tiles: its `transform_kernel` on a CPU, where there is an algorithm for it.
    """

    kernel: Float[Array, "K K C D"]
    adjoint: Float[Array, "K K D C"]
    tiles: TileKernels | None


def hold_kernel(
    kernel: Float[Array, "K K C D"], frame_shape: tuple[int, ...]
) -> HeldKernel:
    """Makes a kernel ready, before the loop, for frames of shape `(B, H, W, …)`."""
    algorithm = winograd_for(kernel.shape, frame_shape, kernel.dtype)
    tiles = None
    if algorithm is not None:
        tiled = partial(transform_kernel, algorithm)
        unused = partial(_zeros, algorithm)
        tiles = lax.platform_dependent(kernel, cpu=tiled, default=unused)
    return HeldKernel(kernel, transposed_kernel(kernel), tiles)


@jax.custom_vjp
def held_convolution(inputs: Frame, held: HeldKernel) -> Frame:
    """`same_convolution` of `[B, H, W, C]`, not differentiated by the kernel."""
    algorithm = _algorithm(held, inputs)
    if algorithm is None:
        return same_convolution(inputs, held.kernel)

    def tiled(inputs, held):
        return convolve(algorithm, inputs, held.tiles)

    def direct(inputs, held):
        return same_convolution(inputs, held.kernel)

    return lax.platform_dependent(inputs, held, cpu=tiled, default=direct)


def _forward(inputs, held):
    return held_convolution(inputs, held), held


def _backward(held, gradient):
    algorithm = _algorithm(held, gradient)
    if algorithm is None:
        return same_convolution(gradient, held.adjoint), None

    def tiled(gradient, held):
        return convolve_adjoint(algorithm, gradient, held.tiles)

    def direct(gradient, held):
        return same_convolution(gradient, held.adjoint)

    return lax.platform_dependent(gradient, held, cpu=tiled, default=direct), None


held_convolution.defvjp(_forward, _backward)


class Read(NamedTuple):
    """What the convolutions of all S steps read, one of the two or both side by side.

    Attributes:
      inputs: `[S, B, H, W, C]`.
      hiddens: the hidden state `[B, H, W, F]` before the first step and those after
        each one, `[S, B, H, W, F]`; a step reads the one before it.
    """

    inputs: Float[Array, "S B H W C"] | None
    hiddens: tuple[Float[Array, "B H W F"], Float[Array, "S B H W F"]] | None


def gathered_kernel_gradient(
    read: Read, gradient: Float[Array, "S B H W D"], kernel: Float[Array, "K K C D"]
) -> Float[Array, "K K C D"]:
    """The kernel's gradient, from what was read and the gradients of the results.

    Elsewhere than on a CPU it is one convolution over all B·S frames.
    """
    algorithm = winograd_for(kernel.shape, gradient.shape[1:], kernel.dtype)

    def direct(read, gradient, kernel):
        inputs = jnp.concatenate(_sequences(read), axis=-1)
        # Batch-major before B and S merge: a sharded batch then stays where it is.
        inputs, gradient = (jnp.swapaxes(x, 0, 1) for x in (inputs, gradient))
        return kernel_gradient(inputs, gradient, kernel)

    if algorithm is None:
        return direct(read, gradient, kernel)
    tiled = partial(_tiled_kernel_gradient, algorithm)
    return lax.platform_dependent(read, gradient, kernel, cpu=tiled, default=direct)


def _tiled_kernel_gradient(algorithm, read, gradient, kernel):
    if read.hiddens is not None:
        initial, after = read.hiddens
        read = read._replace(hiddens=(late(initial, gradient), after))

    def add(total, step):
        sequences, gradient = step
        frames = jnp.concatenate(sequences, axis=-1)
        return add_kernel_gradient(algorithm, total, frames, gradient), None

    start = late(_zeros(algorithm, kernel), gradient)
    total, _ = lax.scan(add, start, (_sequences(read), gradient))
    return transform_kernel_adjoint(algorithm, total)


def _sequences(read: Read) -> list[Array]:
    sequences = [] if read.inputs is None else [read.inputs]
    if read.hiddens is not None:
        initial, after = read.hiddens
        sequences.append(jnp.concatenate([initial[None], after[:-1]]))
    return sequences


def _zeros(algorithm: Winograd, kernel: Array) -> TileKernels:
    n = algorithm.num_points
    return jnp.zeros((n, n, *kernel.shape[2:]), kernel.dtype)


def _algorithm(held: HeldKernel, frames: Frame) -> Winograd | None:
    return winograd_for(held.kernel.shape, frames.shape, held.kernel.dtype)
