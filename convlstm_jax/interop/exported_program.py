"""A trained model as one file that runs without this package, by `jax.export`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

# The platforms of an exported program, wherever it was written.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(
    predict: Callable[[Array], Any],
    num_frames: int,
    frame_shape: tuple[int, int, int],
    *,
    sizes_in_steps_of: int | None = None,
) -> bytes:
    """Lowers a function of clips, with all weights it closes over, to StableHLO.

    Args:
        predict: a function of clips `[B, T, H, W, C]`, float32, that returns a tree of
            arrays, each with B first; the program takes any B.
        num_frames: T.
        frame_shape: (H, W, C).
        sizes_in_steps_of: if given, H and W may be any multiples of this number; the
            convolutions are then direct.

    Returns:
        Bytes for `jax.export.deserialize`.
    """
    height, width, channels = frame_shape
    sizes = f"{height}, {width}"
    if sizes_in_steps_of is not None:
        sizes = f"{sizes_in_steps_of}*height, {sizes_in_steps_of}*width"
    shape = export.symbolic_shape(f"batch, {num_frames}, {sizes}, {channels}")
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    return bytes(exported.serialize())
