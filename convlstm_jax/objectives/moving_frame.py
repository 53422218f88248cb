"""Nowcasting in the moving frame: growth and decay where rain stands still."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from convlstm_jax.objectives.base import Variables
from convlstm_jax.ops.advection import (
    Positions,
    band_correlations,
    band_noise,
    carry,
    filled,
    find_motion,
    to_last_time,
    trajectories,
    wide_noise,
    with_rest,
    within,
)
from convlstm_jax.ops.cascade import continued
from convlstm_jax.ops.tiles import by_tiles
from convlstm_jax.ops.warping import pixel_positions, read_at
from convlstm_jax.rain import RainScale
from convlstm_jax.types import Frame, Video

BAND_DEVIATIONS = (0.8, 1.6, 3.2, 6.4)
"""Of the Gaussians between which bands of length scales lie, in pixels."""

_NUM_BANDS = len(BAND_DEVIATIONS)
_MATCHING_BINS = 2**14  # Of pixel values that count as equal.
_HALF_CHANGE_FRAMES = 3  # After so many, half of what the network puts out is added.
_HALF_SHARE_FRAMES = 2  # After so many, half of the share of the last field.
_MOTION_DEVIATION = 8.0  # Of the Gaussian that smooths errors of the motion, pixels.
_LITTLE_RAIN = 0.02  # Smoothed pixel value at which the spread is halved.
_LARGEST_SPREAD = 0.25  # Of the noise in a band, pixel values.
_SMALL = -2.0  # A training begins with its sigmoid of the largest spread and speed.

Members = Float[Array, "B T H W M"]


class NowcastState(NamedTuple):
    """The last `num_input_frames` frames read, and 1 where they hold data."""

    frames: Video
    mask: Video


class Spread(NamedTuple):
    """How the members of an ensemble differ from its central fields."""

    deviations: Float[Array, "B T H W N"]  # of the noise in each band
    speed: Video  # of the error of the motion, pixels per frame
    upward: Video  # what noise is multiplied by where it adds rain
    correlations: Float[Array, "B N"]  # of the noise in each band, frame to frame


class Change(NamedTuple):
    """What fields of the moving frame become, before they are cut off at 0 and 1."""

    fields: Video
    spread: Spread | None  # of an ensemble


@dataclass(frozen=True)
class MovingFrame:
    """Forecasts rain by a network that predicts its growth and decay.

    The idea is that of L-CNN (Ritvanen et al. 2023, 10.1109/JSTARS.2023.3238016). Here
    the last field p changes by its length scales, as in S-PROG (Seed 2003), and the
    network's outputs a, b and d say by how much more:

        p' = S(p) + k t / (t + 3) (d / 10 − Σₙ aₙ Bₙ(p) + Σₙ bₙ (Bₙ(p) − Bₙ(q)))

    where S is what an autoregression of each length scale expects, see `cascade`, Bₙ
    are bands between Gaussians, q is the field before and t the frames ahead. k is
    `change_share` in single forecasts and 1 in training. For an ensemble, or a network
    that is given two frames, S(p) = p. All outputs begin at zero. Where a single
    forecast comes from beyond the edge, or from where there is no data, it is what is
    nearby, smoothed. The members of an ensemble are moved and changed by noise, as in
    STEPS (Bowler et al. 2006, 10.1256/qj.04.100):

        p'ₘ(x) = p'(x − t v V(x)) + u Σₙ sₙ Nₙ(x),    Nₙ ← ρₙ Nₙ + (1 − ρₙ²)^½ ε,

    where V is smooth noise, an error of the motion, and Nₙ is noise in band n, which
    begins at zero; ρₙ is the correlation of the band between the last two given fields.
    The network also puts out v, sₙ and u, for each place and time; u is 1 where the
    noise takes rain away. The same frames give the same members.
    """

    model: Any
    scale: RainScale
    num_input_frames: int
    num_members: int = 1
    probability_matching: float = 0.0
    change_share: float = 1.0
    last_frame_share: float = 0.0

    @staticmethod
    def num_outputs(num_members: int) -> int:
        """The channels of the network: a, b and d, and the spread of an ensemble."""
        return 2 * _NUM_BANDS + 1 + (_NUM_BANDS + 3) * (num_members > 1)

    def read(self, video: Video, known: Array, state: NowcastState | None) -> Any:
        """The state after further frames, where they are known."""
        mask = known.astype(video.dtype)
        if state is None:
            nothing = jnp.zeros_like(video[:, :1])
            before = jnp.repeat(nothing, self.num_input_frames, axis=1)
            state = NowcastState(before, before)
        kept = (
            jnp.concatenate(parts, axis=1)[:, -self.num_input_frames :]
            for parts in ((state.frames, video), (state.mask, mask))
        )
        return NowcastState(*kept)

    def forecast(
        self, variables: Variables, state: NowcastState, num_frames: int
    ) -> Members:
        """The frames that follow."""
        motion = find_motion(state.frames, state.mask)
        moved, known = to_last_time(state.frames, state.mask, motion)
        last, there = moved[:, -1:], known[:, -1:]
        positions = trajectories(motion, num_frames)

        def matched(fields: Video, order: Video) -> Video:
            share = self.probability_matching
            if not share:
                return fields
            found = probability_matched(order * there, last[:, 0])
            return fields + share * (found - fields)

        fields, spread = self.change(variables, moved, known, num_frames)
        if spread is None:
            # Fields are too smooth to show where heavy rain is; the last one is not.
            halves = _frames_ahead(num_frames) / _HALF_SHARE_FRAMES
            share = self.last_frame_share * 0.5**halves
            order = _to_pixels(fields + share * (last - fields))
            fields = matched(_to_pixels(fields), order)
            fields = jnp.where(there > 0, fields, filled(last, there))
            everywhere, inside = jnp.ones_like(there), within(positions, last[:, 0])
            return self.carried_on(fields, everywhere, inside)

        def member(key: Array) -> Video:
            one = perturbed(fields, spread, key)
            return self.carried_on(matched(one, one), there, positions)

        keys = _keys_of(state.frames, self.num_members)
        # One after the other: noise takes several times the memory of a forecast.
        return jnp.moveaxis(lax.map(member, keys)[..., 0], 0, -1)

    def carried_on(self, frames: Video, known: Video, positions: Positions) -> Video:
        """Frames of the moving frame where they are to be at their own times.

        Rain rates are interpolated, so that there is as much rain as before.
        """
        mask = jnp.broadcast_to(known, frames.shape)
        rain, _ = carry(self.scale.rain_mm_per_h(frames), mask, positions)
        return self.scale.pixels_of_rain(rain)

    def advected(self, state: NowcastState, num_frames: int) -> Video:
        """The last frame carried on: the forecast of a network that changes nothing."""
        motion = find_motion(state.frames, state.mask)
        last = jnp.repeat(state.frames[:, -1:], num_frames, axis=1)
        positions = trajectories(motion, num_frames)
        return self.carried_on(last, state.mask[:, -1:], positions)

    def training_pair(
        self,
        variables: Variables,
        frames: Video,
        mask: Video,
        key: Array,
        margin: int,
    ) -> tuple[Members, Video, Video]:
        """Forecast fields of a clip, its later fields carried back, and their mask."""
        first = self.num_input_frames
        motion = find_motion(frames[:, :first], mask[:, :first])
        given = frames[:, :first], mask[:, :first]
        moved, known = to_last_time(*given, motion, margin=margin)
        num_outputs = frames.shape[1] - first
        positions = trajectories(-motion, num_outputs, margin=margin)
        rain = self.scale.rain_mm_per_h(frames[:, first:])
        rain, there = carry(rain, mask[:, first:], positions)
        target = self.scale.pixels_of_rain(rain)
        fields, spread = self.change(
            variables, moved, known, num_outputs, training=True
        )
        if spread is None:
            return _to_pixels(fields), target, there
        keys = jax.random.split(key, (self.num_members, len(frames)))
        members = jax.vmap(lambda keys: perturbed(fields, spread, keys))(keys)
        return jnp.moveaxis(members[..., 0], 0, -1), target, there

    def change(
        self,
        variables: Variables,
        moved: Video,
        known: Video,
        num_frames: int,
        *,
        training: bool = False,
    ) -> Change:
        """What the fields of the moving frame become, see the class.

        The network takes most of the memory, so it forecasts large areas by tiles; in
        training it runs at once, and its whole change counts.
        """
        now = with_rest(moved[:, -1], known[:, -1], BAND_DEVIATIONS)
        before, both = now, jnp.zeros_like(known[:, -1])  # Of a single frame.
        if moved.shape[1] > 1:
            before = with_rest(moved[:, -2], known[:, -2], BAND_DEVIATIONS)
            both = known[:, -1] * known[:, -2]
        steps = (now - before) * both
        begun = moved[:, -1:]
        # A network for ensembles was trained without, however many members are drawn.
        for_ensembles = self.model.output_channels > self.num_outputs(1)
        if not for_ensembles and moved.shape[1] > 2:
            begun = continued(moved, num_frames)
        share = 1.0 if training or for_ensembles else self.change_share
        reach = self.model.reach(moved.shape[1] + num_frames)
        fields, *spread = by_tiles(
            functools.partial(self._changed, variables, num_frames, share),
            begun, moved, known, now[:, None], steps[:, None],
            overlap=None if training else reach,
            multiple=self.model.patch_size,
        )  # fmt: skip
        if not spread:
            return Change(fields, None)
        deviations, speed, upward = spread
        correlations = band_correlations(before, now, both)
        return Change(fields, Spread(deviations, speed, upward, correlations))

    def _changed(
        self,
        variables: Variables,
        num_frames: int,
        share: float,
        begun: Video,
        moved: Video,
        known: Video,
        now: Array,
        steps: Array,
    ) -> tuple[Array, ...]:
        """The fields, and of an ensemble the fields of `Spread` that have locations.

        `now` are the bands of the last field, `steps` their difference from those of
        the field before, `[B, 1, H, W, N]`.
        """
        inputs = jnp.concatenate([moved, known], axis=-1)
        outputs = self.model.forecast(variables, inputs, num_frames).logits
        assert outputs is not None
        parts = _NUM_BANDS, 2 * _NUM_BANDS, 2 * _NUM_BANDS + 1
        damped, trend, more, spread = jnp.split(outputs, parts, axis=-1)
        change = trend * steps[..., :-1] - damped * now[..., :-1]
        change = 0.1 * more + change.sum(-1, keepdims=True)
        ahead = _frames_ahead(num_frames)
        fields = begun + share * ahead / (ahead + _HALF_CHANGE_FRAMES) * change
        if not spread.shape[-1]:
            return (fields,)
        # Far from all rain there is none in any member.
        nearby = jnp.maximum(now[..., -1:], 0.0)
        near = nearby / (nearby + _LITTLE_RAIN)
        deviations = _LARGEST_SPREAD * jax.nn.sigmoid(spread[..., 2:] + _SMALL) * near
        speed = jax.nn.sigmoid(spread[..., 1:2] + _SMALL)
        return fields, deviations, speed, 2 * jax.nn.sigmoid(spread[..., :1])


def _frames_ahead(num_frames: int) -> Array:
    """1, 2, … along the time of `[B, T, H, W, C]`."""
    return jnp.arange(1, num_frames + 1, dtype=jnp.float32).reshape(1, -1, 1, 1, 1)


def perturbed(fields: Video, spread: Spread, keys: Array) -> Video:
    """One member, from a key for each clip."""
    num_frames, height, width = fields.shape[1:4]

    def noise(key: Array, correlations: Array) -> tuple[Array, Array]:
        key, of_motion = jax.random.split(key)
        size = num_frames, height, width
        winds = wide_noise(of_motion, (1, height, width, 2), _MOTION_DEVIATION)
        return band_noise(key, size, correlations, BAND_DEVIATIONS), winds

    added, winds = jax.vmap(noise)(keys, spread.correlations)
    added = (spread.deviations * added).sum(-1, keepdims=True)
    added = jnp.where(added > 0, spread.upward * added, added)
    ahead = _frames_ahead(num_frames)
    positions = pixel_positions(winds[:, 0])[:, None] - ahead * spread.speed * winds
    flat = (x.reshape(-1, *x.shape[2:]) for x in (fields, positions))
    return _to_pixels(read_at(*flat).reshape(fields.shape) + added)


def _keys_of(frames: Video, num_members: int) -> Array:
    """Keys `[M, B]` that depend on the frames of a clip alone, not on its batch."""
    key = jax.random.key(0)
    sums = jnp.rint(255 * frames).astype(jnp.uint32).sum((1, 2, 3, 4))
    of_clips = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, sums)
    of_members = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jax.vmap(of_members, in_axes=(None, 0))(of_clips, jnp.arange(num_members))


def probability_matched(frames: Video, last: Frame) -> Video:
    """Frames with the values of another, the largest where theirs are largest.

    Frames `[B, T, H, W, 1]` each get the values of `last` `[B, H, W, 1]`, in the order
    of their own; of equal ones those come first where `last` is larger, so that what is
    dry in both stays dry.

    Ebert 2001, 10.1175/1520-0493(2001)129<2461:AOAPMS>2.0.CO;2.
    """
    values = last.reshape(last.shape[0], 1, -1)
    order = (frames.reshape(*frames.shape[:2], -1) + 1e-3 * values) / 1.001
    of_clip = jax.vmap(_in_order, in_axes=(0, None))
    return jax.vmap(of_clip)(order, jnp.sort(values)[:, 0]).reshape(frames.shape)


def matched_mean(members: Members, scale: RainScale) -> Video:
    """The probability-matched mean of pixels, `[B, T, H, W, 1]`, of Ebert 2001.

    The places are those of the mean rain, the values every M-th of all members'.
    """
    count = members.shape[-1]
    if count == 1:
        return members
    mean = scale.rain_mm_per_h(members).mean(-1, keepdims=True)
    order = scale.pixels_of_rain(mean).reshape(*members.shape[:2], -1)
    values = jnp.sort(members.reshape(*members.shape[:2], -1))[..., count // 2 :: count]
    return jax.vmap(jax.vmap(_in_order))(order, values).reshape(mean.shape)


def _in_order(order: Array, values: Array) -> Array:
    """Ascending values, the largest where the order, in [0, 1], is largest."""
    # By a histogram: XLA sorts indices ten times as slowly on a CPU.
    bins = jnp.minimum(order * _MATCHING_BINS, _MATCHING_BINS - 1).astype(int)
    counts = jnp.zeros(_MATCHING_BINS, int).at[bins].add(1)
    ranks = jnp.cumsum(counts) - (counts + 1) // 2  # In the middle of a bin.
    return values[jnp.clip(ranks, 0)][bins]


@jax.custom_jvp
def _to_pixels(values: Video) -> Video:
    """Values cut off at 0 and 1; a small gradient leads back from beyond."""
    return jnp.clip(values, 0, 1)


@_to_pixels.defjvp
def _to_pixels_jvp(primals: Any, tangents: Any) -> Any:
    (values,), (change,) = primals, tangents
    inside = (values >= 0) & (values <= 1)
    return _to_pixels(values), jnp.where(inside, change, 0.01 * change)
