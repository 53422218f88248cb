"""Synthetic films of a bubble column: a stand-in for measured ones.

The flow is not solved: each bubble is an ellipse that moves and deforms as single ones
do between two plates (Roig et al. 2012, J. Fluid Mech. 707:444-466).
"""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import DataConfig, clip_limit
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.synthetic.clips import SyntheticClips, uniform_draws

FLOWS_L_PER_MIN = (1, 2, 4, 8)  # Gas flows that clips are taken under.
CONDITIONS = tuple(f"{flow} L/min" for flow in FLOWS_L_PER_MIN)
MIN_SIZE = 16  # Fewest pixels with which the column can be told from its walls.

FRAMES_PER_SECOND = 100
COLUMN_HEIGHT_M = 0.15  # What a frame shows from its lower to its upper edge.
SURFACE_M = 0.136  # Where the water ends, above the lower edge.
NEEDLE_TIP_M = 0.011  # Where the bubbles form, above the lower edge.
NEEDLE_PLACES = (0.2, 0.32, 0.44, 0.56, 0.68, 0.8)  # In column widths from the left.
WALL_SHARE = 0.03  # Width of a side wall, in column widths.

_GRAVITY = 9.81  # m/s²
_TENSION_OVER_DENSITY = 0.072 / 998  # Of water, m³/s².
_GAP_M = 0.022  # Between the plates: a flow in m³/s over it is an area in m²/s.
_LITRES_PER_MINUTE = 1e-3 / 60  # m³/s
_WARM_UP_STEPS = 30  # The slowest bubble has crossed the column by then.
_WARM_UP_STEP_S = 1.6 / _WARM_UP_STEPS
_LONGEST_GROWTH_S = 0.12
_SWING_DECAY_S = 0.1
_MAX_STRETCH = 0.6

_LAMP = 0.92  # Brightness of the middle of the water.
_RIM = 0.10  # Share of the light that passes the rim of a bubble,
_CORE = 0.97  # and its middle, where the light goes straight through.
_RIM_WIDTH_M = 0.0018

BUBBLE = np.dtype(
    [(name, float) for name in ("release", "radius", "x", "y", "phase", "drift")]
    + [(name, float) for name in ("merged", "time")]
    + [(name, complex) for name in ("velocity", "swing", "shape")]
    + [("frame", int)]
)
"""A bubble at a time, in metres and seconds.

(x, y) is the centre, from the left and lower edge. The ellipse has the half axes
radius·s and radius/s, s² = (1 + |shape|)/(1 − |shape|), the long one at half the angle
of `shape` to the horizontal.
"""


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
) -> np.ndarray:
    """Follows the bubbles of one clip: a `BUBBLE` for each one in each frame.

    Bubbles form at the needles in turn and grow there until they are released. Each
    rises by its size, zigzags, and drifts with the water. Two that touch become one of
    their joint area, whose shape oscillates for a while. At the surface they vanish.
    """
    per_second = bubbles_per_second(flow_l_per_min)
    growth_s = min(_LONGEST_GROWTH_S, 0.5 * len(NEEDLE_PLACES) / per_second)
    frame_s = 1 / FRAMES_PER_SECOND
    end_s = _WARM_UP_STEPS * _WARM_UP_STEP_S + num_frames * frame_s
    count = math.ceil((end_s + growth_s) * per_second) + 1
    sway_phase, first, *draws = uniform_draws(seed, index, 2 + 5 * count)
    by_bubble = np.reshape(draws, (count, 5)).T
    mean_radius = mean_diameter_m(flow_l_per_min) / 2
    all_bubbles = _bubbles_to_come(by_bubble, mean_radius, width_m)
    all_bubbles["release"] = (all_bubbles["release"] + first) / per_second
    born_s = all_bubbles["release"] - growth_s

    bubbles, born, now = all_bubbles[:0], 0, 0.0
    shown = []
    for frame in range(-_WARM_UP_STEPS, num_frames):
        step_s = _WARM_UP_STEP_S if frame < 0 else frame_s
        now += step_s
        newest = int(np.searchsorted(born_s, now))
        bubbles = np.concatenate([bubbles, all_bubbles[born:newest]])
        born = newest
        bubbles["time"], bubbles["frame"] = now, frame
        _move(bubbles, step_s, flow_l_per_min, width_m, sway_phase)
        bubbles = _merge(bubbles)
        bubbles = bubbles[bubbles["y"] < SURFACE_M - 0.2 * bubbles["radius"]]
        if frame >= 0:
            shown.append(bubbles.copy())  # They move in place.
    return _shaped(np.concatenate(shown), growth_s)


def _bubbles_to_come(
    draws: np.ndarray, mean_radius: float, width_m: float
) -> np.ndarray:
    """All bubbles as they leave their needles, with times in mean intervals."""
    jitter, size, place, phase, drift = draws
    numbers = np.arange(len(size))
    # The needles take turns; neighbours do not follow each other.
    needles = np.array(NEEDLE_PLACES)[(numbers * 5 // 2) % len(NEEDLE_PLACES)]
    bubbles = np.zeros(len(numbers), BUBBLE)
    bubbles["release"] = numbers + 0.9 * jitter
    # The mean area is that of the mean radius to within 1 %.
    bubbles["radius"] = mean_radius * (0.6 + 0.9 * size**1.5)
    bubbles["x"] = needles * width_m + 0.001 * (place - 0.5)
    bubbles["y"] = NEEDLE_TIP_M + bubbles["radius"]
    bubbles["phase"] = 2 * math.pi * phase
    bubbles["drift"] = 0.05 * (drift - 0.5)  # m/s
    bubbles["merged"] = -1e3
    return bubbles


def _zigzag_angle(bubbles: np.ndarray) -> np.ndarray:
    """Where in its zigzag each bubble is; about 4 to 6 turns a second, by its size."""
    per_second = 4.5 * np.sqrt(0.004 / bubbles["radius"])
    return 2 * math.pi * per_second * bubbles["time"] + bubbles["phase"]


def _move(
    bubbles: np.ndarray, step_s: float, flow_l_per_min: float, width_m: float,
    sway_phase: float,
) -> None:  # fmt: skip
    """Moves the bubbles that have left their needles, in place; walls hold them."""
    radius, height, now = bubbles["radius"], bubbles["y"], bubbles["time"]
    rise = rise_speed_m_per_s(2 * radius)
    # The water goes up in the middle, down along the walls, and sways as a whole.
    stirring = math.sqrt(flow_l_per_min)
    across = np.cos(2 * math.pi * (bubbles["x"] / width_m - 0.5))
    rise += 0.022 * stirring * (across + 0.35)
    sway = np.sin(2 * math.pi * (height / 0.11 - now / 1.1 + sway_phase))
    sway *= 0.018 * stirring * np.minimum(height / 0.05, 1)
    zigzag = 0.35 * rise * np.cos(_zigzag_angle(bubbles))
    velocity = zigzag + sway + bubbles["drift"] + 1j * rise  # right and up
    bubbles["velocity"] = velocity = (bubbles["release"] <= now) * velocity
    bubbles["y"] += step_s * velocity.imag
    nearest = WALL_SHARE * width_m + radius
    bubbles["x"] = np.clip(
        bubbles["x"] + step_s * velocity.real,
        np.minimum(nearest, width_m / 2),
        np.maximum(width_m - nearest, width_m / 2),
    )


def _merge(bubbles: np.ndarray) -> np.ndarray:
    """Joins bubbles that touch, pair by pair; area and centre of area are kept."""
    x, y, radius = bubbles["x"], bubbles["y"], bubbles["radius"]
    apart_x, apart_y = x[:, None] - x, y[:, None] - y
    touch = apart_x**2 + apart_y**2 < (0.88 * (radius[:, None] + radius)) ** 2
    released = bubbles["release"] <= bubbles["time"]
    touch &= released[:, None] & released
    kept = np.ones(len(x), bool)
    for one, other in np.argwhere(np.triu(touch, 1)):
        if not (kept[one] and kept[other]):
            continue
        large, small = (one, other) if radius[one] >= radius[other] else (other, one)
        share = radius[small] ** 2 / (radius[small] ** 2 + radius[large] ** 2)
        axis = complex(apart_x[small, large], apart_y[small, large])
        # Long in the direction in which they lay, the more the more alike they were.
        swing = (axis / abs(axis)) ** 2 * (0.1 + 0.5 * share) if axis else 0j
        x[large] += share * axis.real
        y[large] += share * axis.imag
        radius[large] = math.hypot(radius[small], radius[large])
        bubbles["merged"][large] = bubbles["time"][large]
        bubbles["swing"][large] = swing
        kept[small] = False
    return bubbles[kept]


def _shaped(bubbles: np.ndarray, growth_s: float) -> np.ndarray:
    """The bubbles with their shapes, and with their sizes at the needles."""
    radius, now, velocity = bubbles["radius"], bubbles["time"], bubbles["velocity"]
    # Flat across their direction, large ones more, in phase with the zigzag.
    way = np.where(velocity == 0, 1j, velocity)
    direction = (1j * way / np.abs(way)) ** 2
    angle = _zigzag_angle(bubbles)
    flat = np.clip(60 * (radius - 0.002), 0, 0.28) * (1 + 0.3 * np.sin(2 * angle))
    # The lowest swing of a bubble in two dimensions, damped (Lamb 1932, art. 275).
    frequency = np.sqrt(6 * _TENSION_OVER_DENSITY / radius**3)
    since = now - bubbles["merged"]
    swing = bubbles["swing"] * np.exp(-since / _SWING_DECAY_S)
    shape = flat * direction + swing * np.cos(frequency * since)
    shape *= np.minimum(1, _MAX_STRETCH / np.maximum(np.abs(shape), 1e-9))
    # At their needles they are round, and their area grows evenly.
    grown = np.clip((now - bubbles["release"]) / growth_s + 1, 0, 1)
    drawn = radius * np.sqrt(grown)
    bubbles["y"] -= radius - drawn
    bubbles["radius"] = drawn
    bubbles["shape"] = np.where(grown < 1, 0, shape)
    return bubbles


def empty_column(height: int, width: int) -> np.ndarray:
    """The column without bubbles, float32 `[H, W]`, brightness in [0, 1]."""
    pixel_m = COLUMN_HEIGHT_M / height
    up = (height - 0.5 - np.arange(height))[:, None] * pixel_m
    across = (np.arange(width) + 0.5)[None, :] / width
    lamp = 1 - 0.18 * (2 * across - 1) ** 2 - 0.10 * (up / COLUMN_HEIGHT_M - 0.5) ** 2
    picture = _LAMP * lamp * np.ones((height, width))
    above = _covered((up - SURFACE_M) / pixel_m)
    picture += above * (0.98 * lamp - picture)
    line = np.exp(-(((up - SURFACE_M) / max(0.0008, 0.6 * pixel_m)) ** 2))
    picture *= 1 - 0.75 * line

    needle_half = max(0.0007, 0.5 * pixel_m) / (width * pixel_m)
    for place in NEEDLE_PLACES:
        inside = (needle_half - np.abs(across - place)) * width
        below = (NEEDLE_TIP_M - up) / pixel_m
        picture *= 1 - 0.85 * _covered(inside) * _covered(below)
    plate = _covered((0.55 * NEEDLE_TIP_M - up) / pixel_m)
    wall = _covered((WALL_SHARE - np.minimum(across, 1 - across)) * width)
    solid = np.maximum(plate * np.ones_like(picture), wall)
    return (picture * (1 - 0.88 * solid)).astype(np.float32)


def _covered(pixels_inside: np.ndarray) -> np.ndarray:
    """Share of a pixel that is covered, by its distance inside an edge in pixels."""
    return np.clip(0.5 + pixels_inside, 0, 1)


def draw_bubbles(column: np.ndarray, tracks: np.ndarray, num_frames: int) -> np.ndarray:
    """Draws the frames of a clip on the empty column: uint8 `[T, H, W, 1]`.

    Light passes a bubble in its middle and is bent away at its rim; bubbles behind each
    other multiply.
    """
    height, width = column.shape
    pixel_m = COLUMN_HEIGHT_M / height
    # A margin for what reaches out of the picture: cheaper than cutting it off.
    bent = np.abs(tracks["shape"])
    longest = tracks["radius"] * np.sqrt((1 + bent) / (1 - bent))
    halves = np.ceil(longest / pixel_m + 1).astype(int)
    margin = int(halves.max(initial=0)) + 1
    frames = np.zeros((num_frames, height + 2 * margin, width + 2 * margin), np.float32)
    frames[:, margin : margin + height, margin : margin + width] = column
    # Bubbles of about one size are drawn together, in windows that hold the largest.
    least = 1
    while (halves >= least).any():
        largest = max(least, int(1.3 * least))
        drawn = np.flatnonzero((halves >= least) & (halves <= largest))
        if drawn.size:
            _draw_alike(frames, tracks[drawn], largest, margin, pixel_m)
        least = largest + 1
    frames = frames[:, margin : margin + height, margin : margin + width]
    first_row = math.ceil(height - SURFACE_M / pixel_m)  # below the surface
    frames[:, :first_row] = column[:first_row]
    frames = (frames * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return frames[..., np.newaxis]


def _draw_alike(
    frames: np.ndarray, bubbles: np.ndarray, half: int, margin: int, pixel_m: float
) -> None:
    """Draws bubbles in windows of 2·half + 1 pixels, in place."""
    bubbles = bubbles[:, None, None]
    _, rows, columns = frames.shape
    x = bubbles["x"] / pixel_m - 0.5 + margin
    y = rows - margin - 0.5 - bubbles["y"] / pixel_m
    left, top = np.rint(x).astype(int) - half, np.rint(y).astype(int) - half
    window = np.arange(2 * half + 1)
    places = (bubbles["frame"] * rows + top + window[:, None]) * columns + left + window
    right = np.float32(window + (left - x))
    up = -np.float32(window[:, None] + (top - y))

    # In the frame of the long axis, at half the angle of the shape.
    shape = bubbles["shape"]
    stretch = np.sqrt((1 + np.abs(shape)) / (1 - np.abs(shape)))
    turn = np.exp(-0.5j * np.angle(shape))
    cosine, sine, radius = turn.real, turn.imag, bubbles["radius"] / pixel_m
    along = np.float32(cosine / stretch) * right - np.float32(sine / stretch) * up
    across = np.float32(sine * stretch) * right + np.float32(cosine * stretch) * up
    # Distance inside the rim, in pixels, as if the ellipse were its circle.
    inside = np.float32(radius) - np.sqrt(along * along + across * across)
    rim = np.clip(_RIM_WIDTH_M / pixel_m, 0.32 * radius, 0.62 * radius)
    soft = np.maximum(0.6 * rim, 0.5)
    core = np.clip((inside - np.float32(rim)) / np.float32(soft) + 0.5, 0, 1)
    passes = np.float32(_RIM) + np.float32(_CORE - _RIM) * core
    covered = np.clip(inside + np.float32(0.5), 0, 1)
    light = 1 - covered * (1 - passes)
    np.multiply.at(frames.reshape(-1), places.reshape(-1), light.reshape(-1))


class BubbleColumn(SyntheticClips["BubblesConfig"]):
    """A random-access source of bubble-column films, see `SyntheticClips`.

    A wider frame shows a wider column. Clips take the conditions `given`, indices into
    `CONDITIONS`, in turn.
    """

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        condition = self.given[index % len(self.given)]
        height, width, _ = self.config.frame_shape
        flow, width_m = FLOWS_L_PER_MIN[condition], COLUMN_HEIGHT_M * width / height
        tracks = follow_bubbles(flow, self.num_frames, width_m, self.seed, index)
        frames = draw_bubbles(empty_column(height, width), tracks, self.num_frames)
        return {"frames": frames, "condition": np.asarray(condition, np.int32)}


class BubblesConfig(DataConfig):
    """A synthetic bubble column under four gas flows."""

    own_data: ClassVar[str] = "video"

    name: Literal["bubbles"] = "bubbles"
    height: int = field(128, "Height of a frame.", unit="pixels", ge=MIN_SIZE)
    width: int = field(128, "Width of a frame.", unit="pixels", ge=MIN_SIZE)
    num_validation_sequences: int = clip_limit(100, "validation")
    num_test_sequences: int = clip_limit(1000, "test", may_change=True)
    test_conditions: tuple[str, ...] = field(
        (),
        "Gas flows that test clips are taken under and no others; empty: all splits "
        "are taken under all.",
        example="'8 L/min'",
    )

    def check(self) -> Iterator[str]:
        """Yields what is wrong with the conditions held out."""
        if not set(self.test_conditions) < set(CONDITIONS):
            yield (
                f"test_conditions is {self.test_conditions}: it must hold some of "
                f"{', '.join(map(repr, CONDITIONS))}, and leave one to learn from"
            )

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits, see `DataConfig.sources`."""
        every = tuple(range(len(CONDITIONS)))
        held_out = tuple(i for i in every if CONDITIONS[i] in self.test_conditions)
        learned = tuple(i for i in every if i not in held_out)
        held = ", ".join(CONDITIONS[i] for i in held_out)
        return BubbleColumn.splits(
            self,
            num_frames,
            seed,
            f"Bubble column on {self.height}x{self.width}, all sequences generated. "
            f"Gas flows: {', '.join(CONDITIONS)}"
            + (f"; held out for the test: {held}." if held else "."),
            given=(learned, learned, held_out or every),
            conditions=CONDITIONS,
        )
