"""Dimension names, and the shapes that are used throughout the package.

    B  clips in a batch             F  features (hidden channels) of a layer
    T  frames, oldest first         K  kernel size, pixels
    H  height, pixels               G  4·F, the four gates side by side
    W  width, pixels                C  channels

Annotations are read by people and, in the tests, checked at run time; in production
they cost nothing. NumPy arrays are taken wherever JAX's are.
"""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from jax import Array as Array
else:
    Array = jax.Array | np.ndarray

Video = Float[Array, "B T H W C"]
ForecastVideo = Float[Array, "B S H W C"]
Frame = Float[Array, "B H W C"]
OutputFrame = Float[Array, "B H W D"]
Hidden = Float[Array, "B H W F"]
HiddenSequence = Float[Array, "B T H W F"]
Carry = tuple[Hidden, Hidden]
PerFrame = Float[Array, "B T"]
PerExample = Float[Array, " B"]
