"""Convolutions that keep the frame size, and convolutions inside a loop over time.

Inside a loop the kernel is held: it is the same at every step. Its gradient takes three
functions: `start_gathering` before the backward loop, `pull_back` at every step and
`gathered_kernel_gradient` after it. On a CPU the gradient itself is summed up, which
takes less memory; elsewhere, and for very large kernels, what was read and the
gradients of the results are gathered, as one convolution over them all is faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from convlstm_jax.ops.winograd import (
    TileKernels,
    Winograd,
    convolve,
    convolve_gradients,
    transform_kernel,
    transform_kernel_adjoint,
    winograd_for,
)
from convlstm_jax.types import Array, Frame, OutputFrame

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def same_convolution(
    inputs: Float[Array, "... H W C"], kernel: Float[Array, "K1 K2 C D"]
) -> Float[Array, "... H W D"]:
    """Convolves every frame with zero padding and stride 1.

    Leading axes are merged into one batch, so a whole sequence `[B, T, ...]` is one
    convolution over B·T frames. B stays the major axis, which keeps a batch that is
    sharded over devices where it is. A 1×1 kernel is the matrix product it stands for.
    K must be odd, and both arguments of one dtype.
    """
    if kernel.shape[:2] == (1, 1):
        return jnp.matmul(inputs, kernel[0, 0])
    *leading, height, width, channels = inputs.shape
    merged = inputs.reshape(-1, height, width, channels)
    outputs = lax.conv_general_dilated(
        merged, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS
    )
    return outputs.reshape(*leading, height, width, kernel.shape[-1])


def transposed_kernel(kernel: Float[Array, "K1 K2 C D"]) -> Float[Array, "K1 K2 D C"]:
    """The kernel whose `same_convolution` is the adjoint of the given odd kernel's."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def kernel_gradient(
    inputs: Float[Array, "... H W C"],
    output_gradient: Float[Array, "... H W D"],
    kernel: Float[Array, "K1 K2 C D"],
) -> Float[Array, "K1 K2 C D"]:
    """The gradient of `same_convolution` with respect to its kernel.

    One convolution (or matrix product) over all leading axes at once.
    """
    if kernel.shape[:2] == (1, 1):
        *_, channels, outputs = kernel.shape
        product = _product_over_pixels(
            inputs.reshape(-1, channels), output_gradient.reshape(-1, outputs)
        )
        return product.reshape(kernel.shape)
    transpose = jax.linear_transpose(lambda k: same_convolution(inputs, k), kernel)
    (gradient,) = transpose(output_gradient)
    return gradient


def kernel_gradient_in_loop(
    inputs: Float[Array, "... H W C"],
    output_gradient: Float[Array, "... H W D"],
    kernel: Float[Array, "K1 K2 C D"],
) -> Float[Array, "K1 K2 C D"]:
    """`kernel_gradient` for a loop's body, where XLA:CPU has no fast path for it.

    On a CPU it is a matrix product over all pixels for each row of the kernel, as the
    convolution takes a hundred times as long there.
    """
    return lax.platform_dependent(
        inputs, output_gradient, kernel, cpu=_by_rows, default=kernel_gradient
    )


def _by_rows(inputs: Array, output_gradient: Array, kernel: Array) -> Array:
    *_, height, width, channels = inputs.shape
    rows, columns, _, outputs = kernel.shape
    merged = inputs.reshape(-1, height, width, channels)
    above, left = rows // 2, columns // 2
    padded = jnp.pad(merged, ((0, 0), (above, above), (left, left), (0, 0)))
    # What each pixel of a row sees to its left and right, side by side.
    seen = [padded[:, :, column : column + width] for column in range(columns)]
    beside = jnp.concatenate(seen, axis=-1)
    gradient = output_gradient.reshape(-1, outputs)
    products = [
        _product_over_pixels(
            beside[:, row : row + height].reshape(-1, columns * channels), gradient
        )
        for row in range(rows)
    ]
    return jnp.stack(products).reshape(kernel.shape)


def _product_over_pixels(inputs: Array, gradient: Array) -> Array:
    """`[N, C]` and `[N, D]` to `[C, D]`, summed in float32 at least.

    XLA:CPU may otherwise sum bfloat16 in bfloat16, which stops growing.
    """
    dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    product = jnp.matmul(inputs.T, gradient, preferred_element_type=dtype)
    return product.astype(inputs.dtype)


@dataclass(frozen=True)
class HeldKernel:
    """A kernel `[K, K, C, D]` in the forms that loops need; XLA drops unused ones.

    `adjoint` is its `transposed_kernel`; `frame_shape` that of the frames it convolves;
    `by_tiles` Winograd's algorithm and kernel, on a CPU where they are faster.
    """

    kernel: Float[Array, "K K C D"]
    adjoint: Float[Array, "K K D C"]
    frame_shape: Sequence[Any]
    on_cpu: bool
    by_tiles: tuple[Winograd, TileKernels] | None


def hold_kernel(
    kernel: Float[Array, "K K C D"], frame_shape: Sequence[Any], *, on_cpu: bool
) -> HeldKernel:
    """Prepares a kernel before a loop."""
    by_tiles = None
    algorithm = winograd_for(kernel.shape, frame_shape, kernel.dtype)
    if on_cpu and algorithm is not None:
        by_tiles = algorithm, transform_kernel(algorithm, kernel)
    adjoint = transposed_kernel(kernel)
    return HeldKernel(kernel, adjoint, frame_shape, on_cpu, by_tiles)


def held_convolution(inputs: Frame, held: HeldKernel) -> OutputFrame:
    """`same_convolution` of `[B, H, W, C]`."""
    if held.by_tiles is not None:
        algorithm, tiles = held.by_tiles
        return convolve(algorithm, inputs, tiles)
    return same_convolution(inputs, held.kernel)


def start_gathering(held: HeldKernel, num_steps: int) -> Any:
    """The initial value of what `pull_back` gathers."""
    if held.by_tiles is not None:
        _, tiles = held.by_tiles
        return jnp.zeros_like(tiles)
    batch, height, width, *_ = held.frame_shape
    size, _, *channels = held.kernel.shape
    num_gathered = batch * num_steps * height * width * sum(channels)
    if held.on_cpu and size < 7 and held.kernel.size <= num_gathered:
        # A long sum in bfloat16 would stop growing.
        dtype = jnp.promote_types(held.kernel.dtype, jnp.float32)
        return jnp.zeros(held.kernel.shape, dtype)
    return tuple(
        jnp.zeros((batch, num_steps, height, width, count), held.kernel.dtype)
        for count in channels
    )


def pull_back(
    held: HeldKernel, gathered: Any, step: Array, inputs: Frame, gradient: OutputFrame
) -> tuple[Any, Frame]:
    """The adjoint of `held_convolution` at a step, given the gradient of its result.

    Returns what is gathered so far, and the gradient of the inputs.
    """
    if held.by_tiles is not None:
        algorithm, tiles = held.by_tiles
        return convolve_gradients(algorithm, gathered, inputs, tiles, gradient)
    if isinstance(gathered, tuple):
        gathered = tuple(
            lax.dynamic_update_index_in_dim(sequence, frame, step, axis=1)
            for sequence, frame in zip(gathered, (inputs, gradient), strict=True)
        )
    else:
        gathered += kernel_gradient_in_loop(inputs, gradient, held.kernel)
    return gathered, same_convolution(gradient, held.adjoint)


def gathered_kernel_gradient(
    held: HeldKernel, gathered: Any, *, in_loop: bool
) -> Float[Array, "K K C D"]:
    """The kernel's gradient after all steps; `in_loop` if they are in a loop's body."""
    if held.by_tiles is not None:
        algorithm, _ = held.by_tiles
        return transform_kernel_adjoint(algorithm, gathered)
    if not isinstance(gathered, tuple):
        return gathered
    inputs, gradients = gathered
    gradient_of = kernel_gradient_in_loop if in_loop else kernel_gradient
    return gradient_of(inputs, gradients, held.kernel)
