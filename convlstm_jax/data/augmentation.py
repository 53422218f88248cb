"""Random changes to training clips that leave what happens in them as it is."""

import numpy as np


def augment_clip(
    frames: np.ndarray,
    rng: np.random.Generator,
    *,
    flip: bool,
    crop: float,
    brightness: float,
) -> np.ndarray:
    """Mirrors, crops and relights a clip, in the same way in all of its frames.

    Six numbers are drawn whatever the strengths are, so that those of one change do
    not depend on whether another is asked for.

    Args:
      frames: uint8 [T, H, W, C].
      rng: where the draws come from; the same state gives the same clip, bit for bit.
      flip: whether the clip is mirrored, left for right, with probability 1/2.
      crop: greatest share of height and width that is cut off, 0 <= crop < 1. The
        share is drawn uniformly from [0, crop], the same for both, then the place of
        the window that is left; it is resized to H × W by linear interpolation. 0
        leaves frames whole.
      brightness: greatest change of light, 0 <= brightness < 1: contrast, about the
        clip's mean, is multiplied by 1 + c and then 255 d added to every value, with c
        and d uniform in [−brightness, brightness]. 0 leaves the light as it is.

    Returns:
      uint8 [T, H, W, C]; the frames given are not written to.

    Raises:
      ValueError: the frames or a strength are not as above.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}, but must be uint8 "
            "[T, H, W, C]."
        )
    if not 0 <= crop < 1:
        raise ValueError(f"crop is {crop}, but must be in [0, 1).")
    if not 0 <= brightness < 1:
        raise ValueError(f"brightness is {brightness}, but must be in [0, 1).")
    mirrored, size, top, left, contrast, light = rng.random(6)
    if flip and mirrored < 0.5:
        frames = frames[:, :, ::-1]
    if crop > 0:
        frames = _window(frames, 1 - crop * size, top, left)
    if brightness > 0:
        factor = 1 + brightness * (2 * contrast - 1)
        shift = 255 * brightness * (2 * light - 1)
        frames = _relight(frames, factor, shift)
    return np.ascontiguousarray(frames)


def _window(frames: np.ndarray, part: float, top: float, left: float) -> np.ndarray:
    """Enlarges a window of the frames to their size; all in parts of what is free."""
    height, width = frames.shape[1:3]
    row, next_row, row_weight = _interpolation(height, part, top)
    column, next_column, column_weight = _interpolation(width, part, left)
    row_weight = row_weight[:, np.newaxis, np.newaxis]
    column_weight = column_weight[:, np.newaxis]
    out = np.empty(frames.shape, np.uint8)
    for index, frame in enumerate(frames):  # One at a time: it stays in the cache.
        rows = _between(frame[row], frame[next_row], row_weight)
        values = _between(rows[:, column], rows[:, next_column], column_weight)
        out[index] = np.rint(values)
    return out


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    start = first.astype(np.float32)
    return start + weight * (second - start)


def _interpolation(length: int, part: float, place: float) -> tuple[np.ndarray, ...]:
    """The two pixels that each one of an axis is made of, [L], the second's weight.

    The pixels' centres, first to last, lie evenly in a window of part × length.
    """
    span = (length - 1) * part
    position = (length - 1 - span) * place + np.linspace(0, span, length)
    before = np.minimum(position.astype(np.intp), length - 1)
    after = np.minimum(before + 1, length - 1)
    return before, after, (position - before).astype(np.float32)


def _relight(frames: np.ndarray, factor: float, shift: float) -> np.ndarray:
    # All that a byte can become, looked up: a tenth of the time of the arithmetic.
    mean = frames.mean(dtype=np.float64)
    table = mean + factor * (np.arange(256) - mean) + shift
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[frames]
