"""Random changes to training clips, bit for bit the same given a generator's state."""

import numpy as np

Clip = dict[str, np.ndarray]


def augment_frames(
    clip: Clip, rng: np.random.Generator, *, flip: bool, crop: float, brightness: float
) -> Clip:
    """Flips, crops and changes the brightness of a clip, all frames alike.

    Args:
        clip: "frames", uint8 `[T, H, W, C]`; the rest is unchanged.
        rng: the generator.
        flip: flip left to right with probability 1/2.
        crop: the share cut off height and width is uniform in [0, crop]; the window
            lies anywhere and is resized to H × W by linear interpolation.
        brightness: contrast, about the clip's mean, is multiplied by 1 + c and then
            255 d added, with c and d uniform in [−brightness, brightness].
    """
    frames = clip["frames"]
    # All are drawn always, so that one change does not depend on another.
    mirrored, size, top, left, contrast, light = rng.random(6)
    if flip and mirrored < 0.5:
        frames = frames[:, :, ::-1]
    if crop > 0:
        factor = 1 / (1 - crop * size)
        rows = _zoom_weights(frames.shape[1], factor, top)
        columns = _zoom_weights(frames.shape[2], factor, left)
        planes = frames.transpose(0, 3, 1, 2).astype(np.float32, order="C")  # Fast.
        values = rows @ planes @ columns.T
        frames = np.rint(values).astype(np.uint8).transpose(0, 2, 3, 1)
    if brightness > 0:
        factor = 1 + brightness * (2 * contrast - 1)
        shift = 255 * brightness * (2 * light - 1)
        # A look-up table takes a tenth of the time of the arithmetic.
        mean = frames.mean(dtype=np.float64)
        table = mean + factor * (np.arange(256) - mean) + shift
        frames = np.clip(np.rint(table), 0, 255).astype(np.uint8)[frames]
    return {**clip, "frames": np.ascontiguousarray(frames)}


def augment_rain(
    clip: Clip, rng: np.random.Generator, *, symmetries: bool, zoom: float
) -> Clip:
    """Rotates, mirrors and resizes a radar clip at random."""
    if symmetries:
        clip = apply_symmetry(clip, rng)
    return apply_zoom(clip, rng, max_factor=zoom) if zoom > 1 else clip


def apply_symmetry(clip: Clip, rng: np.random.Generator) -> Clip:
    """Rotates and mirrors frames and masks `[T, H, W, C]` alike.

    All 8 symmetries, 4 if height and width differ, are equally probable.
    """
    draw = int(rng.integers(8))

    def changed(video: np.ndarray) -> np.ndarray:
        if draw & 1:
            video = video[:, ::-1]
        if draw & 2:
            video = video[:, :, ::-1]
        if draw & 4 and video.shape[1] == video.shape[2]:
            video = video.swapaxes(1, 2)
        return np.ascontiguousarray(video)

    return {
        name: changed(values) if values.ndim == 4 else values
        for name, values in clip.items()
    }


def apply_zoom(clip: Clip, rng: np.random.Generator, *, max_factor: float) -> Clip:
    """Enlarges or shrinks what moves in a clip, which becomes faster or slower.

    The factor is log-uniform in [1 / max_factor, max_factor]. A window anywhere in the
    frame is enlarged, or the shrunk clip lies anywhere with no data around it.
    Interpolation is linear, with means over areas where the clip shrinks; a pixel has
    data if all that it is made of has. "frames" and "mask" are uint8 `[T, H, W, 1]`.
    """
    factor = float(max_factor ** rng.uniform(-1, 1))
    height, width = clip["frames"].shape[1:3]
    rows, columns = (
        _zoom_weights(size, factor, float(rng.uniform())) for size in (height, width)
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


def _zoom_weights(size: int, factor: float, place: float) -> np.ndarray:
    """Weights `[new, old]` of the old pixels of an axis in the new ones.

    `place` from 0 to 1 is where the window begins.
    """
    begin = place * size * (1 - 1 / factor)
    centre = begin + (np.arange(size) + 0.5) / factor - 0.5
    reach = max(1.0, 1 / factor)
    away = np.abs(centre[:, np.newaxis] - np.arange(-1, size + 1))
    weights = np.maximum(0, 1 - away / reach)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-6)
    inside = (centre > -0.5 - 1e-6) & (centre < size - 0.5 + 1e-6)
    weights[~inside] = 0
    # The outermost values extend half a pixel beyond their centres.
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    return weights[:, 1:-1].astype(np.float32)
