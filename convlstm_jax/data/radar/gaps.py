"""Composites that are missing for a short time, made from those before and after."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from convlstm_jax.data.cache import FrameCache, FrameWriter
from convlstm_jax.data.radar.composites import Composite, missing_between
from convlstm_jax.errors import UserError
from convlstm_jax.quiet import quiet
from convlstm_jax.rain import RainScale

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig


def fill_gaps(
    composites: Sequence[Composite], config: "RadarConfig", cache: FrameCache
) -> tuple[list[Composite], int]:
    """Fills gaps of at most `max_filled_gap` time steps; also returns how many."""
    found = list(composites[:1])
    for before, after in pairwise(composites):
        count = missing_between(before, after, config.time_step_minutes) or 0
        if 0 < count <= config.max_filled_gap:
            found += _between(before, after, count, config, cache)
        found.append(after)
    return found, len(found) - len(composites)


def _between(
    before: Composite,
    after: Composite,
    count: int,
    config: "RadarConfig",
    cache: FrameCache,
) -> list[Composite]:
    def produce(writer: FrameWriter) -> dict[str, Any]:
        pictures = before.read(), after.read()
        for one in advected(*pictures, count, config.rain_scale):
            writer.add(*one[..., np.newaxis])
        return {}

    sides = [[one.frames.folder.name, one.index] for one in (before, after)]
    frames = cache.cached({"kind": "radar_gap", "of": sides, "count": count}, produce)
    step = (after.time - before.time) / (count + 1)
    return [
        replace(
            before, name=f"after {before.name}", time=before.time + (index + 1) * step,
            frames=frames, index=index, beyond=0,
        )
        for index in range(count)
    ]  # fmt: skip


def advected(
    before: np.ndarray, after: np.ndarray, count: int, scale: RainScale
) -> np.ndarray:
    """Pictures between two, uint8 `[count, 2, H, W]`: pixels and mask, as they are.

    Rain moves with the flow of Lucas and Kanade between the two, forwards from the one
    and backwards from the other, of which the nearer weighs more. There is data where
    both have some.
    """
    missing = [one for one in ("pysteps", "cv2") if not importlib.util.find_spec(one)]
    if missing:
        raise UserError(
            f"max_filled_gap needs {' and '.join(missing)}: run `pip install -r "
            "requirements-radar.txt`, or leave gaps by data.max_filled_gap=0"
        )
    with quiet():  # Of few features it warns; the motion is still found.
        from pysteps import extrapolation, motion

        both = np.stack([before, after])
        valid = both[:, 1].all(0)
        pixels = np.where(valid, both[:, 0], 0).astype(np.float64)
        flow = np.zeros((2, *valid.shape))
        if pixels.any(axis=(1, 2)).all():
            tracked = np.ma.masked_array(pixels, np.stack([~valid, ~valid]))
            flow = motion.get_method("LK")(tracked, verbose=False) / (count + 1)
        move = extrapolation.get_method("semilagrangian")
        forwards = move(pixels[0], flow, count, outval=0.0)
        backwards = move(pixels[1], -flow, count, outval=0.0)[::-1]
    share = (np.arange(count) + 1)[:, np.newaxis, np.newaxis] / (count + 1)
    rain = [scale.rain_mm_per_h(one / 255) for one in (forwards, backwards)]
    found = 255 * scale.pixels_of_rain((1 - share) * rain[0] + share * rain[1]) * valid
    return np.stack([np.rint(found), np.broadcast_to(valid, found.shape)], 1).astype(
        np.uint8
    )
