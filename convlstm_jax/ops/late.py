"""Arrays that are not made long before they are needed.

XLA:CPU makes what depends on nothing as early as it can: the zeros that all layers'
backward passes add to, say, before the first layer's forward pass. They then take
memory all the while.
"""

from jax import Array


def late(array: Array, *gradients: Array) -> Array:
    """The array itself, which can be made only when the gradients are known.

    Where the first element of a gradient is not finite, all of it is NaN.
    """
    for gradient in gradients:
        # XLA keeps this product, which is NaN for some values.
        array = array + (0 * gradient[(0,) * gradient.ndim]).astype(array.dtype)
    return array
