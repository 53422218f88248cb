"""Enlarges and shrinks whole clips: rain of any size, at any speed."""

import numpy as np


def zoomed(
    clip: dict[str, np.ndarray], rng: np.random.Generator, *, largest: float
) -> dict[str, np.ndarray]:
    """A clip at another scale: what moves in it is larger and faster, or the reverse.

    Its factor is drawn from [1 / largest, largest], its logarithm uniformly, then the
    place of the window that is enlarged; a clip that shrinks comes to lie anywhere in
    the frame, with no data around it. Values are linear between pixels, and means over
    what they cover where the clip shrinks; they are data where all of that is.

    Args:
      clip: "frames" and "mask", uint8 `[T, H, W, 1]`; the rest stays as it is. No array
        is written to.
      rng: where the draws come from; the same state gives the same clip.
      largest: greatest factor, 1 or more.

    Returns:
      The clip, in arrays of its own.
    """
    factor = float(largest ** rng.uniform(-1, 1))
    height, width = clip["frames"].shape[1:3]
    rows, columns = (
        _weights(size, factor, float(rng.uniform())) for size in (height, width)
    )

    def resized(video: np.ndarray) -> np.ndarray:
        return rows @ video[..., 0].astype(np.float32) @ columns.T

    known = resized(clip["mask"]) > 0.999
    frames = np.rint(resized(clip["frames"] * clip["mask"])) * known
    return {
        **clip,
        "frames": frames.astype(np.uint8)[..., np.newaxis],
        "mask": known.astype(np.uint8)[..., np.newaxis],
    }


def _weights(size: int, factor: float, place: float) -> np.ndarray:
    """What each of the old pixels gives to each new one, `[new, old]`.

    Args:
      size: pixels of the axis.
      factor: how much larger things become.
      place: where the window begins, in parts of what is free.
    """
    begin = place * size * (1 - 1 / factor)
    middle = begin + (np.arange(size) + 0.5) / factor - 0.5
    reach = max(1.0, 1 / factor)
    away = np.abs(middle[:, np.newaxis] - np.arange(-1, size + 1))
    weights = np.maximum(0, 1 - away / reach)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-6)
    inside = (middle > -0.5 - 1e-6) & (middle < size - 0.5 + 1e-6)
    weights[~inside] = 0
    # Up to half a pixel beyond the middle of the outermost ones their value holds.
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    return weights[:, 1:-1].astype(np.float32)
