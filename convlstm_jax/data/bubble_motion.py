"""How bubbles rise, wobble, merge and vanish in a flat column of water.

A model for pictures, not a solution of the flow: each bubble is an ellipse with a path
and a shape of its own, after what is known of single bubbles in a thin gap between two
plates (Roig et al. 2012, J. Fluid Mech. 707:444–466).
"""

import math
from dataclasses import dataclass

import numpy as np

from convlstm_jax.data.moving_mnist import uniform_draws

FRAMES_PER_SECOND = 100
COLUMN_HEIGHT_M = 0.15
"""What a frame shows from its lower to its upper edge, metres."""
SURFACE_M = 0.136
"""Where the water ends, metres above the lower edge."""
NEEDLE_TIP_M = 0.011
"""Where the bubbles form, metres above the lower edge."""
NEEDLE_PLACES = (0.2, 0.32, 0.44, 0.56, 0.68, 0.8)
"""The needles that the gas comes through, in column widths from the left."""
WALL_SHARE = 0.03
"""Width of a side wall, in column widths."""

_GRAVITY = 9.81  # m/s²
_TENSION_OVER_DENSITY = 0.072 / 998  # Of water, m³/s².
_GAP_M = 0.022  # Between the plates: a flow in m³/s over it is an area in m²/s.
_LITRES_PER_MINUTE = 1e-3 / 60  # m³/s
# The slowest bubble has crossed the column by then.
_WARM_UP_STEPS = 30
_WARM_UP_STEP_S = 1.6 / _WARM_UP_STEPS
_LONGEST_GROWTH_S = 0.12
_SWING_DECAY_S = 0.1
_MOST_STRETCH = 0.6
_DRAWS_PER_CLIP = 2
_DRAWS_PER_BUBBLE = 5

# Rows of the array of bubbles. A bubble that has not merged has swung for ever, by 0.
_RELEASE, _RADIUS, _X, _Y, _PHASE, _DRIFT, _MERGED, _SWING_RE, _SWING_IM = range(9)


@dataclass(frozen=True)
class BubbleTracks:
    """The bubbles of all frames, an entry for each bubble in each frame; in metres.

    Attributes:
      frame: number of the frame, ascending.
      x: centre, from the left edge.
      y: centre, from the lower edge.
      radius: of the circle of the same area.
      shape: complex; the ellipse has the half axes radius·s and radius/s with
        s² = (1 + |shape|)/(1 − |shape|), the long one at half the angle of `shape` to
        the horizontal.
    """

    frame: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    shape: np.ndarray


def mean_diameter_m(flow_l_per_min: float) -> float:
    """Diameter of a bubble as it leaves its needle; grows with the flow."""
    return 0.0068 * flow_l_per_min**0.13


def bubbles_per_second(flow_l_per_min: float) -> float:
    """How many bubbles of the mean diameter carry the flow, all needles together."""
    area_rate = flow_l_per_min * _LITRES_PER_MINUTE / _GAP_M
    return area_rate / (math.pi / 4 * mean_diameter_m(flow_l_per_min) ** 2)


def rise_speed_m_per_s(diameter_m: np.ndarray) -> np.ndarray:
    """Speed in still water: large bubbles in a thin gap rise at about ½·√(g·d)."""
    return 0.5 * np.sqrt(_GRAVITY * diameter_m)


def follow_bubbles(
    flow_l_per_min: float, num_frames: int, width_m: float, seed: int, index: int
) -> BubbleTracks:
    """Follows the bubbles of one clip, in a column that has been running for a while.

    Bubbles form at the needles in turn and grow there until they are released. Each
    rises by its size, zigzags, and drifts with the water, which rises in the middle,
    sinks along the walls and sways. Two that touch become one of their joint area,
    whose shape swings for a while. At the surface they vanish.

    Args:
      flow_l_per_min: gas flow, litres per minute.
      num_frames: frames to follow them for, T.
      width_m: width of the column, walls included, metres.
      seed: names the stream, 0 <= seed < 2**64.
      index: names the clip in the stream.

    Returns:
      The bubbles of each frame; those of fewer frames are the first of those of more.
    """
    per_second = bubbles_per_second(flow_l_per_min)
    growth_s = min(_LONGEST_GROWTH_S, 0.5 * len(NEEDLE_PLACES) / per_second)
    frame_s = 1 / FRAMES_PER_SECOND
    end_s = _WARM_UP_STEPS * _WARM_UP_STEP_S + num_frames * frame_s
    count = math.ceil((end_s + growth_s) * per_second) + 1
    draws = np.array(
        uniform_draws(seed, index, _DRAWS_PER_CLIP + _DRAWS_PER_BUBBLE * count)
    )
    sway_phase, first = draws[:_DRAWS_PER_CLIP]
    all_bubbles = _bubbles_to_come(
        draws[_DRAWS_PER_CLIP:].reshape(count, _DRAWS_PER_BUBBLE).T,
        mean_diameter_m(flow_l_per_min) / 2,
        width_m,
    )
    all_bubbles[_RELEASE] = (all_bubbles[_RELEASE] + first) / per_second
    born_s = all_bubbles[_RELEASE] - growth_s

    bubbles, born, now = all_bubbles[:, :0], 0, 0.0
    shown: list[np.ndarray] = []
    velocities: list[np.ndarray] = []
    times: list[float] = []
    for step_number in range(_WARM_UP_STEPS + num_frames):
        warm_up = step_number < _WARM_UP_STEPS
        step_s = _WARM_UP_STEP_S if warm_up else frame_s
        now += step_s
        newest = int(np.searchsorted(born_s, now))
        bubbles = np.concatenate([bubbles, all_bubbles[:, born:newest]], axis=1)
        born = newest
        velocity = _velocity(bubbles, now, flow_l_per_min, width_m, sway_phase)
        _move(bubbles, velocity, step_s, width_m)
        bubbles, velocity = _merge(bubbles, velocity, now)
        stays = bubbles[_Y] < SURFACE_M - 0.2 * bubbles[_RADIUS]
        bubbles, velocity = bubbles[:, stays], velocity[stays]
        if not warm_up:
            # Moving happens in place: what is shown has to be a copy.
            shown.append(bubbles.copy())
            velocities.append(velocity)
            times.append(now)
    counts = [len(velocity) for velocity in velocities]
    return _tracks(
        np.repeat(np.arange(num_frames), counts),
        np.concatenate(shown, axis=1),
        np.concatenate(velocities),
        np.repeat(times, counts),
        growth_s,
    )


def _bubbles_to_come(
    draws: np.ndarray, mean_radius: float, width_m: float
) -> np.ndarray:
    """All bubbles of a clip as they leave their needles.

    Their times of release are in units of the mean time between two, ascending.
    """
    jitter, size, place, phase, drift = draws
    numbers = np.arange(len(size))
    # The needles take turns, in an order in which neighbours do not follow each other.
    needles = np.array(NEEDLE_PLACES)[(numbers * 5 // 2) % len(NEEDLE_PLACES)]
    bubbles = np.zeros((9, len(numbers)))
    bubbles[_RELEASE] = numbers + 0.9 * jitter
    # From 0.6 to 1.5 times the mean, smaller ones more often; so that the mean area is
    # that of the mean radius to within 1 %.
    bubbles[_RADIUS] = mean_radius * (0.6 + 0.9 * size**1.5)
    bubbles[_X] = needles * width_m + 0.001 * (place - 0.5)
    bubbles[_Y] = NEEDLE_TIP_M + bubbles[_RADIUS]
    bubbles[_PHASE] = 2 * math.pi * phase
    bubbles[_DRIFT] = 0.05 * (drift - 0.5)  # m/s
    bubbles[_MERGED] = -1e3
    return bubbles


def _velocity(
    bubbles: np.ndarray,
    now: float,
    flow_l_per_min: float,
    width_m: float,
    sway_phase: float,
) -> np.ndarray:
    """Velocities as complex numbers, right and up, m/s; 0 for those at a needle."""
    radius = bubbles[_RADIUS]
    rise = rise_speed_m_per_s(2 * radius)
    # The water goes up in the middle, down along the walls, and sways as a whole.
    stirring = math.sqrt(flow_l_per_min)
    across = np.cos(2 * math.pi * (bubbles[_X] / width_m - 0.5))
    rise += 0.022 * stirring * (across + 0.35)
    height = bubbles[_Y]
    sway = np.sin(2 * math.pi * (height / 0.11 - now / 1.1 + sway_phase))
    sway *= 0.018 * stirring * np.minimum(height / 0.05, 1)
    zigzag = 0.35 * rise * np.cos(_zigzag_angle(bubbles, now))
    released = bubbles[_RELEASE] <= now
    return released * (zigzag + sway + bubbles[_DRIFT] + 1j * rise)


def _zigzag_angle(bubbles: np.ndarray, now: float | np.ndarray) -> np.ndarray:
    """Where in its zigzag each bubble is; about 4 to 6 turns a second, by its size."""
    per_second = 4.5 * np.sqrt(0.004 / bubbles[_RADIUS])
    return 2 * math.pi * per_second * now + bubbles[_PHASE]


def _move(
    bubbles: np.ndarray, velocity: np.ndarray, step_s: float, width_m: float
) -> None:
    """Moves the bubbles on, in place; walls hold them."""
    bubbles[_Y] += step_s * velocity.imag
    nearest = WALL_SHARE * width_m + bubbles[_RADIUS]
    bubbles[_X] = np.clip(
        bubbles[_X] + step_s * velocity.real,
        np.minimum(nearest, width_m / 2),
        np.maximum(width_m - nearest, width_m / 2),
    )


def _merge(
    bubbles: np.ndarray, velocity: np.ndarray, now: float
) -> tuple[np.ndarray, np.ndarray]:
    """Joins bubbles that touch, pair by pair; area and centre of area are kept."""
    x, y, radius = bubbles[_X], bubbles[_Y], bubbles[_RADIUS]
    apart_x, apart_y = x[:, None] - x, y[:, None] - y
    reach = 0.88 * (radius[:, None] + radius)
    released = bubbles[_RELEASE] <= now
    touch = apart_x**2 + apart_y**2 < reach**2
    touch &= released[:, None] & released
    if np.count_nonzero(touch) == np.count_nonzero(released):  # each itself alone
        return bubbles, velocity
    kept = np.ones(len(x), bool)
    for one, other in np.argwhere(np.triu(touch, 1)):
        if not (kept[one] and kept[other]):
            continue
        large, small = (one, other) if radius[one] >= radius[other] else (other, one)
        share = radius[small] ** 2 / (radius[small] ** 2 + radius[large] ** 2)
        axis = complex(apart_x[small, large], apart_y[small, large])
        # Long in the direction in which they lay, the more the more alike they were.
        swing = (axis / abs(axis)) ** 2 * (0.1 + 0.5 * share) if axis else 0j
        bubbles[[_X, _Y], large] += share * np.array([axis.real, axis.imag])
        bubbles[_RADIUS, large] = math.hypot(radius[small], radius[large])
        bubbles[[_MERGED, _SWING_RE, _SWING_IM], large] = now, swing.real, swing.imag
        kept[small] = False
    return bubbles[:, kept], velocity[kept]


def _tracks(
    frame: np.ndarray,
    bubbles: np.ndarray,
    velocity: np.ndarray,
    now: np.ndarray,
    growth_s: float,
) -> BubbleTracks:
    """Sizes and shapes of the bubbles of all frames, each at its time `now`."""
    radius = bubbles[_RADIUS]
    # Flat across their way, large ones more, in time with the zigzag.
    way = np.where(velocity == 0, 1j, velocity)
    direction = (1j * way / np.abs(way)) ** 2
    angle = _zigzag_angle(bubbles, now)
    flat = np.clip(60 * (radius - 0.002), 0, 0.28) * (1 + 0.3 * np.sin(2 * angle))
    # The lowest swing of a bubble in two dimensions, damped (Lamb 1932, art. 275).
    frequency = np.sqrt(6 * _TENSION_OVER_DENSITY / radius**3)
    since = now - bubbles[_MERGED]
    swing = (bubbles[_SWING_RE] + 1j * bubbles[_SWING_IM]) * np.exp(
        -since / _SWING_DECAY_S
    )
    shape = flat * direction + swing * np.cos(frequency * since)
    shape *= np.minimum(1, _MOST_STRETCH / np.maximum(np.abs(shape), 1e-9))
    # At their needles they are round, and their area grows evenly.
    grown = np.clip((now - bubbles[_RELEASE]) / growth_s + 1, 0, 1)
    drawn = radius * np.sqrt(grown)
    return BubbleTracks(
        frame=frame,
        x=bubbles[_X],
        y=bubbles[_Y] - (radius - drawn),
        radius=drawn,
        shape=np.where(grown < 1, 0, shape),
    )
