"""Draws a bubble column as a camera sees it against a lamp behind the water."""

import math

import numpy as np

from convlstm_jax.data.bubble_motion import (
    COLUMN_HEIGHT_M,
    NEEDLE_PLACES,
    NEEDLE_TIP_M,
    SURFACE_M,
    WALL_SHARE,
    BubbleTracks,
)

_LAMP = 0.92  # Brightness of the middle of the water.
_RIM = 0.10  # Share of the light that passes the rim of a bubble,
_CORE = 0.97  # and its middle, where the light goes straight through.
_RIM_WIDTH_M = 0.0018


def empty_column(height: int, width: int) -> np.ndarray:
    """The column without bubbles, which is the same in all frames.

    Args:
      height: H, pixels.
      width: W, pixels.

    Returns:
      float32 [H, W], brightness in [0, 1]: the water before the lamp, darker towards
      the edges; brighter air above a dark line, the surface; dark walls at both sides,
      the nozzle plate at the bottom, and its needles.
    """
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


def draw_bubbles(
    column: np.ndarray, tracks: BubbleTracks, num_frames: int
) -> np.ndarray:
    """Draws the frames of a clip.

    Light passes a bubble in its middle and is bent away at its rim; bubbles behind each
    other take away light in turn. What is above the surface is not drawn.

    Args:
      column: float32 [H, W], the empty column.
      tracks: the bubbles.
      num_frames: T.

    Returns:
      uint8 [T, H, W, 1].
    """
    height, width = column.shape
    pixel_m = COLUMN_HEIGHT_M / height
    # A margin takes in what reaches out of the picture; cheaper than cutting it off.
    longest = tracks.radius * np.sqrt(
        (1 + np.abs(tracks.shape)) / (1 - np.abs(tracks.shape))
    )
    halves = np.ceil(longest / pixel_m + 1).astype(int)
    margin = int(halves.max(initial=0)) + 1
    frames = np.zeros((num_frames, height + 2 * margin, width + 2 * margin), np.float32)
    frames[:, margin : margin + height, margin : margin + width] = column
    # Bubbles are drawn together with others of about their size, in windows that hold
    # the largest of them.
    least = 1
    while (halves >= least).any():
        most = max(least, int(1.3 * least))
        drawn = np.flatnonzero((halves >= least) & (halves <= most))
        if drawn.size:
            _draw_alike(frames, tracks, drawn, most, margin, pixel_m)
        least = most + 1
    surface_row = height - SURFACE_M / pixel_m  # in pixels from the upper edge
    frames = frames[:, margin : margin + height, margin : margin + width]
    first_row = math.ceil(surface_row)
    frames[:, :first_row] = column[:first_row]
    return (frames * np.float32(255) + np.float32(0.5)).astype(np.uint8)[
        ..., np.newaxis
    ]


def _draw_alike(
    frames: np.ndarray,
    tracks: BubbleTracks,
    drawn: np.ndarray,
    half: int,
    margin: int,
    pixel_m: float,
) -> None:
    """Draws some bubbles in windows of 2·half + 1 pixels, in place."""
    _, rows, columns = frames.shape
    x = tracks.x[drawn] / pixel_m - 0.5 + margin
    y = rows - margin - 0.5 - tracks.y[drawn] / pixel_m
    left, top = np.rint(x).astype(int) - half, np.rint(y).astype(int) - half
    window = np.arange(2 * half + 1)
    first = (tracks.frame[drawn] * rows + top) * columns + left
    places = first[:, None, None] + window[:, None] * columns + window
    right = (window[None, None, :] + (left - x)[:, None, None]).astype(np.float32)
    up = -(window[None, :, None] + (top - y)[:, None, None]).astype(np.float32)

    # In the frame of the long axis, at half the angle of the shape.
    shape = tracks.shape[drawn]
    stretch = np.sqrt((1 + np.abs(shape)) / (1 - np.abs(shape)))
    turn = np.exp(-0.5j * np.angle(shape))
    radius = tracks.radius[drawn] / pixel_m

    def column_of(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    cosine, sine = turn.real, turn.imag
    along = column_of(cosine / stretch) * right - column_of(sine / stretch) * up
    across = column_of(sine * stretch) * right + column_of(cosine * stretch) * up
    # Distance inside the rim, in pixels, as if the ellipse were its circle.
    inside = column_of(radius) - np.sqrt(along * along + across * across)
    rim = np.clip(_RIM_WIDTH_M / pixel_m, 0.32 * radius, 0.62 * radius)
    soft = np.maximum(0.6 * rim, 0.5)
    core = np.clip((inside - column_of(rim)) / column_of(soft) + 0.5, 0, 1)
    passes = np.float32(_RIM) + np.float32(_CORE - _RIM) * core
    covered = np.clip(inside + np.float32(0.5), 0, 1)
    light = 1 - covered * (1 - passes)
    np.multiply.at(frames.reshape(-1), places.reshape(-1), light.reshape(-1))
