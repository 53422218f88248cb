"""What every metric asks of the two clips it compares."""

import jax.numpy as jnp
from jax import Array

from convlstm_jax.types import Video


def matched_frames(
    prediction: Video, target: Video, name: str = "prediction"
) -> tuple[Array, Array]:
    """Checks that two clips can be compared and brings them to one float type.

    The common type is float32, or float64 where either clip has it: bfloat16 keeps
    only eight bits of a sum over a frame, so metrics are never computed in it.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]`, floating point.
        target: True frames of the same shape, floating point.
        name: What error messages call the first clip.

    Returns:
        Both clips in the common type.

    Raises:
        ValueError: The shapes differ, are not `[B, T, H, W, C]`, or a clip holds
            integers (which would be read as pixels far outside [0, 1]).
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name} has shape {prediction.shape} and target {target.shape}; "
            "a metric needs two clips of one shape [B, T, H, W, C]"
        )
    if prediction.ndim != 5:
        raise ValueError(
            f"{name} and target have {prediction.ndim} dimensions; "
            "a metric needs the 5 of [B, T, H, W, C]"
        )
    for clip_name, clip in ((name, prediction), ("target", target)):
        if not jnp.issubdtype(clip.dtype, jnp.floating):
            raise ValueError(
                f"{clip_name} has dtype {clip.dtype}; "
                "a metric needs floating-point pixels in [0, 1]"
            )
    common = jnp.promote_types(
        jnp.promote_types(prediction.dtype, target.dtype), jnp.float32
    )
    return jnp.asarray(prediction, common), jnp.asarray(target, common)
