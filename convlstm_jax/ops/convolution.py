"""Convolutions that keep the frame size, over any number of leading axes."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def same_convolution(
    inputs: Float[Array, "... H W C"], kernel: Float[Array, "K1 K2 C D"]
) -> Float[Array, "... H W D"]:
    """Convolves every frame with zero padding and stride 1.

    Leading axes are merged into one batch, so a whole sequence `[B, T, ...]` is one
    convolution over B·T frames. B stays the major axis, which keeps a batch that is
    sharded over devices where it is. A 1×1 kernel is the matrix product it stands for.

    Args:
      inputs: `[..., H, W, C]`.
      kernel: `[K, K, C, D]` with odd K, of the same dtype as the inputs.

    Returns:
      `[..., H, W, D]`.
    """
    if kernel.shape[:2] == (1, 1):
        return jnp.matmul(inputs, kernel[0, 0])
    *leading, height, width, channels = inputs.shape
    merged = inputs.reshape(-1, height, width, channels)
    outputs = lax.conv_general_dilated(
        merged, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS
    )
    return outputs.reshape(*leading, height, width, kernel.shape[-1])


def transposed_kernel(
    kernel: Float[Array, "K1 K2 C D"],
) -> Float[Array, "K1 K2 D C"]:
    """The kernel whose `same_convolution` is the adjoint of the given kernel's.

    For odd kernels: flipped in space, with input and output channels swapped.
    """
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
    convolution takes a hundred times as long there. Elsewhere it is the convolution.
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

    Left to itself XLA:CPU may sum bfloat16 in bfloat16, which stops growing.
    """
    dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    product = jnp.matmul(inputs.T, gradient, preferred_element_type=dtype)
    return product.astype(inputs.dtype)
