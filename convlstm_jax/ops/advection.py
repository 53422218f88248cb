"""The motion of what frames show, and frames carried along it.

Motion is in pixels per frame, (u, v) to the right and down. With it, frames of several
times are carried to one time, where what only moves stands still: the moving frame.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from convlstm_jax.ops.warping import pixel_positions, read_at
from convlstm_jax.types import Array, Frame, Video

Motion = Float[Array, "B H W 2"]
Positions = Float[Array, "B T R S 2"]
Carried = Float[Array, "B T R S 1"]

_KNOWN = 0.999  # Of what a pixel is interpolated from, the least share with data.
_NEARBY_WEIGHTS = {2.0: 1.0, 6.0: 0.1, 18.0: 0.01}  # By deviations in pixels.


class _Scale(NamedTuple):
    """Standard deviations of Gaussians in pixels: of the window, and of the frames."""

    window: float
    blur: float


# From one motion of all pixels to that of single cells.
_SCALES = (_Scale(np.inf, 4.0), _Scale(20.0, 3.0), _Scale(8.0, 2.0), _Scale(4.0, 1.0))
_PAIR_WEIGHTS = (0.5, 0.3, 0.2)  # Of pairs of frames, the latest first.
_MAX_STEP = 2.0  # Pixels by which one scale changes the motion at most.
_LEAST_GRADIENT = 1e-4  # Squared, pixel values: weaker ones tell no motion.


def find_motion(frames: Video, mask: Video) -> Motion:
    """The motion in a film, by Lucas and Kanade 1981, from coarse to fine scales.

    At each scale the frames are carried to the last one's time along the motion so far;
    what still moves is the least-squares solution of the optical-flow equation over a
    Gaussian window about each pixel, in all pairs of the last four frames, the latest
    counting most. Where there is nothing to follow, the motion is that of coarser
    scales. A film of one frame has none.

    Args:
        frames: Pixels `[B, T, H, W, 1]` in [0, 1].
        mask: 1 where there is data, `[B, T, H, W, 1]`.

    Returns:
        Pixels per frame `[B, H, W, 2]`.
    """
    num_pairs = min(frames.shape[1] - 1, len(_PAIR_WEIGHTS))
    mask = mask.astype(frames.dtype)[:, -num_pairs - 1 :]
    frames = frames[:, -num_pairs - 1 :] * mask
    motion = jnp.zeros((frames.shape[0], *frames.shape[2:4], 2), frames.dtype)
    for scale in _SCALES if num_pairs else ():
        blurred = gaussian(frames, scale.blur)
        still, known = to_last_time(blurred, mask, motion)
        tensor = _structure(still, known)
        if np.isinf(scale.window):
            tensor = tensor.mean((1, 2), keepdims=True)
        else:
            tensor = gaussian(tensor[:, None], scale.window)[:, 0]
        step = _least_squares(tensor)
        length = jnp.linalg.norm(step, axis=-1, keepdims=True)
        motion += step * jnp.minimum(1, _MAX_STEP / jnp.maximum(length, 1e-6))
    return lax.stop_gradient(motion)


def _structure(frames: Video, mask: Video) -> Float[Array, "B H W 5"]:
    """Products of x-, y- and time derivatives: xx, xy, yy, xt, yt, over all pairs."""
    total = jnp.zeros((frames.shape[0], *frames.shape[2:4], 5), frames.dtype)
    for pair in range(frames.shape[1] - 1):
        last = frames.shape[1] - 1 - pair
        before, after = frames[:, last - 1, ..., 0], frames[:, last, ..., 0]
        known = (mask[:, last - 1] * mask[:, last])[..., 0]
        # `jnp.gradient` would not take symbolic sizes.
        padded = jnp.pad((before + after) / 2, ((0, 0), (1, 1), (1, 1)))
        y = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
        x = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
        # Derivatives need the pixels beside; beyond the edge is none.
        known = -lax.reduce_window(
            jnp.pad(-known, ((0, 0), (1, 1), (1, 1))),
            -jnp.inf, lax.max, (1, 3, 3), (1, 1, 1), "VALID",
        )  # fmt: skip
        t = after - before
        products = jnp.stack([x * x, x * y, y * y, x * t, y * t], axis=-1)
        total += _PAIR_WEIGHTS[pair] * known[..., None] * products
    return total


def _least_squares(tensor: Float[Array, "B H W 5"]) -> Motion:
    """The (u, v) that minimize the sum of (u x + v y + t)², slightly damped."""
    xx, xy, yy, xt, yt = jnp.moveaxis(tensor, -1, 0)
    damping = _LEAST_GRADIENT + 0.01 * (xx + yy)
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - xy * xy
    u, v = xy * yt - yy * xt, xy * xt - xx * yt
    return jnp.stack([u, v], axis=-1) / determinant[..., None]


def gaussian(frames: Video, deviation: float) -> Video:
    """Frames blurred by a Gaussian; beyond the edge all is zero."""
    height, width = frames.shape[2:4]
    rows, columns = (_weights(size, deviation) for size in (height, width))
    # One after the other: sizes may be symbolic, which no order could be found for.
    along = jnp.einsum("yh,bthwc->btywc", rows, frames)
    return jnp.einsum("xw,btywc->btyxc", columns, along)


def _weights(size: Any, deviation: float) -> Float[Array, "N N"]:
    index = jnp.arange(size, dtype=jnp.float32)
    away = (index[:, None] - index[None]) / deviation
    return jnp.exp(-(away**2) / 2) / (deviation * np.sqrt(2 * np.pi))


def trajectories(motion: Motion, num_steps: int, *, margin: int = 0) -> Positions:
    """Where what arrives at each pixel after 1, 2, … steps comes from.

    The semi-Lagrangian scheme of pysteps (Germann and Zawadzki 2002; the midpoint rule,
    one iteration), with a motion that is constant in time and goes on beyond the edge.
    Give −motion to go back in time.

    Args:
        motion: `[B, H, W, 2]`, pixels per step.
        num_steps: T.
        margin: Pixels at every edge for which positions are not computed.

    Returns:
        Positions (x, y), `[B, T, H − 2 margin, W − 2 margin, 2]`.
    """
    here = inner(pixel_positions(motion)[:, None], margin)[:, 0]

    def velocity(positions: Array) -> Array:
        return read_at(motion, within(positions, motion))

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        positions, moved = state
        positions = positions - velocity(positions - moved / 2)
        return (positions, velocity(positions)), positions

    start = here, inner(motion[:, None], margin)[:, 0]
    return jnp.moveaxis(lax.scan(step, start, length=num_steps)[1], 0, 1)


def carry(frames: Video, mask: Video, positions: Positions) -> tuple[Carried, Carried]:
    """Frames and masks `[B, T, H, W, 1]` read at positions, one field for each frame.

    What comes from beyond the edge, or from where there is no data, is 0 in both.
    """
    known = mask.astype(frames.dtype)
    both = jnp.concatenate([frames * known, known], axis=-1)
    flat = (x.reshape(-1, *x.shape[2:]) for x in (both, positions))
    read = read_at(*flat).reshape(*positions.shape[:-1], 2)
    edge = _last_pixel(frames[:, 0], positions)
    inside = ((positions >= 0) & (positions <= edge)).all(-1, keepdims=True)
    there = inside & (read[..., 1:] > _KNOWN)
    return jnp.where(there, read[..., :1], 0.0), there.astype(frames.dtype)


def _last_pixel(frame: Array, positions: Array) -> Array:
    """The position (x, y) of the last pixel, of the rank of positions."""
    height, width = frame.shape[1:3]
    last = jnp.array([width - 1, height - 1], positions.dtype)
    return last.reshape((1,) * (positions.ndim - 1) + (2,))


def filled(frames: Video, mask: Video) -> Video:
    """Frames `[B, T, H, W, 1]`, where there is no data what is nearby.

    That is the mean of the pixels with data, by Gaussians of three sizes, of which the
    smaller ones count more.
    """
    known = mask.astype(frames.dtype)
    both = jnp.concatenate([frames * known, known], axis=-1)
    sums = jnp.zeros_like(both)
    for deviation, weight in _NEARBY_WEIGHTS.items():
        sums += weight * gaussian(both, deviation)
    nearby = sums[..., :1] / jnp.maximum(sums[..., 1:], 1e-6)
    return jnp.where(known > 0, frames, nearby)


def within(
    positions: Float[Array, "B *T R S 2"], frame: Frame
) -> Float[Array, "B *T R S 2"]:
    """Positions, those beyond the edge of a frame at it."""
    return jnp.clip(positions, 0, _last_pixel(frame, positions))


def to_last_time(
    frames: Video, mask: Video, motion: Motion, *, margin: int = 0
) -> tuple[Carried, Carried]:
    """Frames and masks `[B, T, H, W, 1]` carried to the time of the last one."""
    parts = [inner(frames[:, -1:], margin)], [inner(mask[:, -1:], margin)]
    if frames.shape[1] > 1:
        positions = trajectories(motion, frames.shape[1] - 1, margin=margin)
        earlier = carry(frames[:, :-1], mask[:, :-1], positions[:, ::-1])
        parts = [earlier[0], *parts[0]], [earlier[1], *parts[1]]
    carried, known = (jnp.concatenate(part, axis=1) for part in parts)
    return carried, known.astype(frames.dtype)


def inner(frames: Any, margin: int) -> Any:
    """Frames `[B, T, H, W, C]` without the margin around them."""
    height, width = frames.shape[2:4]
    return frames[:, :, margin : height - margin, margin : width - margin]


def bands(
    frame: Frame, mask: Frame, deviations: Sequence[float]
) -> Float[Array, "B H W N"]:
    """The parts of a frame `[B, H, W, 1]` between Gaussians of growing deviations.

    Band n holds what the n-th Gaussian removes from what the one before has left, where
    only pixels with data count. The bands and the frame after the last Gaussian add up
    to the frame.
    """
    known = mask.astype(frame.dtype)
    left, found = frame, []
    for deviation in deviations:
        sums, weight = (
            gaussian(x[:, None], deviation)[:, 0] for x in (frame * known, known)
        )
        smooth = sums / jnp.maximum(weight, 0.05)
        found.append(left - smooth)
        left = smooth
    return jnp.concatenate(found, axis=-1)


def with_rest(
    frame: Frame, mask: Frame, deviations: Sequence[float]
) -> Float[Array, "B H W M"]:
    """The `bands` of a frame, and as the last what the last Gaussian leaves of it."""
    parts = bands(frame, mask, deviations)
    return jnp.concatenate([parts, frame - parts.sum(-1, keepdims=True)], axis=-1)


def band_correlations(
    before: Float[Array, "B H W M"], now: Float[Array, "B H W M"], mask: Frame
) -> Float[Array, "B M"]:
    """The correlation of each band of two frames, from 0 to 0.99, where the mask is 1.

    Without any rain there, it is 0.
    """
    before, now = before * mask, now * mask
    product, *squares = (
        (a * b).sum((1, 2)) for a, b in ((before, now), (before, before), (now, now))
    )
    both = jnp.sqrt(squares[0] * squares[1])
    return jnp.clip(product / jnp.maximum(both, 1e-6), 0.0, 0.99)


def band_noise(
    key: Array,
    size: tuple[Any, Any, Any],
    correlations: Float[Array, " M"],
    deviations: Sequence[float],
) -> Float[Array, "T H W M"]:
    """Gaussian noise in the bands of length scales of `with_rest`.

    Each band is an autoregression of order 1 over time with its own correlation. It
    begins at 0, and its variance grows to 1.
    """
    white = jax.random.normal(key, (*size, 1))
    left, found = white[:, None], []
    for deviation in deviations:
        smooth = gaussian(left, deviation)
        found.append(left - smooth)
        left = smooth
    kept = correlations.reshape(1, 1, -1)
    unit = jnp.sqrt(1 - kept**2) / _deviations_of(deviations).reshape(1, 1, -1)
    drive = jnp.concatenate([*found, left], axis=-1)[:, 0] * unit[None]

    def step(noise: Array, driven: Array) -> tuple[Array, Array]:
        noise = kept * noise + driven
        return noise, noise

    return lax.scan(step, jnp.zeros_like(drive[0]), drive)[1]


def wide_noise(
    key: Array, shape: tuple[Any, Any, Any, int], deviation: float
) -> Float[Array, "T H W C"]:
    """White noise smoothed by a Gaussian of this deviation, scaled to variance 1."""
    smooth = gaussian(jax.random.normal(key, shape)[None], deviation)[0]
    return smooth * (2 * np.sqrt(np.pi) * deviation)


def _deviations_of(deviations: Sequence[float]) -> np.ndarray:
    """The standard deviations of the bands of white noise of variance 1."""

    def product(first: float, second: float) -> float:
        """Of two Gaussians with these variances, summed over all pixels."""
        total = first + second
        return 1 / (2 * np.pi * total) if total else 1.0

    variances = [0.0, *np.cumsum(np.square(deviations))]
    found = [
        product(a, a) - 2 * product(a, b) + product(b, b)
        for a, b in itertools.pairwise(variances)
    ]
    return np.sqrt([*found, product(variances[-1], variances[-1])]).astype(np.float32)
