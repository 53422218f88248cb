"""Cross-entropy of pixels read as probabilities, in nats per frame.

Shi et al. 2015 (arXiv:1506.04214, section 4.1) and Srivastava et al. 2015
(arXiv:1502.04681, section 3.2): −Σ t log p + (1 − t) log(1 − p), over the pixels of
a frame. Targets are grey values in [0, 1] and need not be 0 or 1; then the least
possible value is the target's own entropy, not 0.
"""

import jax.numpy as jnp

from convlstm_jax.metrics.frames import matched_frames
from convlstm_jax.types import PerFrame, Video

_FRAME_AXES = (2, 3, 4)


def cross_entropy_from_logits(logits: Video, target: Video) -> PerFrame:
    """Cross-entropy of each frame from logits, exact at any magnitude.

    With p = sigmoid(l), the term of a pixel is max(l, 0) − l t + log(1 + exp(−|l|)),
    which neither overflows nor takes the logarithm of a rounded 0.

    Args:
        logits: Logits of the predicted pixels `[B, T, H, W, C]`, any real value.
        target: True frames `[B, T, H, W, C]` in [0, 1].

    Returns:
        `[B, T]`, nats per frame: summed over the frame's pixels and channels.

    Raises:
        ValueError: The two clips cannot be compared (see `matched_frames`).
    """
    logits, target = matched_frames(logits, target, name="logits")
    nats = (
        jnp.maximum(logits, 0.0)
        - logits * target
        + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    )
    return jnp.sum(nats, axis=_FRAME_AXES)


def cross_entropy_from_probabilities(
    prediction: Video, target: Video, epsilon: float = 1e-6
) -> PerFrame:
    """Cross-entropy of each frame from pixels, for predictions without logits.

    The prediction is clipped to [epsilon, 1 − epsilon] first: a baseline such as the
    copied last frame holds exact zeros and ones, whose cross-entropy would be
    infinite. The figure therefore depends on epsilon: a pixel that is wrong for certain
    costs −log(epsilon), 13.8 nats at 1e-6.

    Args:
        prediction: Predicted frames `[B, T, H, W, C]` in [0, 1].
        target: True frames `[B, T, H, W, C]` in [0, 1].
        epsilon: Distance kept from 0 and 1; below 0.5, and large enough that
            1 − epsilon is not 1 in the precision of the computation.

    Returns:
        `[B, T]`, nats per frame: summed over the frame's pixels and channels.

    Raises:
        ValueError: epsilon is out of its range, or the two clips cannot be compared
            (see `matched_frames`).
    """
    prediction, target = matched_frames(prediction, target)
    least = float(jnp.finfo(prediction.dtype).eps)
    if not least <= epsilon < 0.5:
        raise ValueError(
            f"epsilon is {epsilon}; for {prediction.dtype} it must be at least "
            f"{least:.1e} and below 0.5"
        )
    probability = jnp.clip(prediction, epsilon, 1.0 - epsilon)
    nats = -target * jnp.log(probability) - (1.0 - target) * jnp.log1p(-probability)
    return jnp.sum(nats, axis=_FRAME_AXES)
