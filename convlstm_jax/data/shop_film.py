"""Plays short surveillance films of a shop, in some of which something is stolen.

People walk past shelves. In every film one of them, the actor, does one of these:

- "theft": stops, takes a thing from the lower board and walks away with it;
- "restock": brings a thing, puts it into a gap of the board and walks away;
- "touch": stops, touches a thing, lets go of it and walks away;
- "pass": walks past, perhaps stopping for a while.

Restocking is a theft played backwards, and films of all kinds have gaps in the
shelves, bags and others who pass by: one frame does not tell, the movement does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np

from convlstm_jax.data.cvat import Shape, Track
from convlstm_jax.data.moving_mnist import uniform_draws
from convlstm_jax.data.shop_drawing import (
    BOARDS,
    THING_SIZE,
    Colour,
    Person,
    Point,
    Thing,
    draw_shop,
    held_close,
)

Deed = Literal["theft", "restock", "touch", "pass"]

EVENT_LABEL = "theft"

FEWEST_FRAMES = 60
_REACH_FRAMES = 8  # An empty hand to the shelf, or back.
_MOVE_FRAMES = 12  # The same with a thing in it.
_HOLD_FRAMES = 2
_AFTER_THEFT_FRAMES = 2  # First steps that still count as the theft.

_SLOT = 0.15  # Distance of things on a board, in frame heights.
_OFF = 0.2  # So far from the picture's edge nobody is to be seen.

_SHIRTS = ((70, 95, 160), (150, 75, 70), (85, 120, 80), (120, 90, 140), (90, 90, 95))
_COLOURS = (
    (235, 60, 50),
    (250, 200, 40),
    (40, 190, 90),
    (40, 170, 230),
    (240, 110, 200),
    (250, 140, 40),
)

_Draw = Callable[[], float]


@dataclass(frozen=True)
class Film:
    """A film and its annotations.

    Attributes:
      frames: uint8 [T, H, W, 3].
      tracks: for everyone "person" with boxes, for the actor's hand, while it is up,
        "hand" with points, and for a theft "theft" with boxes, from the frame in which
        the thing is first moved until it has been held close for two frames.
    """

    frames: np.ndarray
    tracks: tuple[Track, ...]


def make_film(deed: Deed, seed: int, height: int, width: int) -> Film:
    """Makes one film of 60 to 90 frames; the same arguments give the same film.

    Args:
      deed: what the actor does.
      seed: names the film, 0 <= seed < 2**64.
      height: H, pixels.
      width: W, pixels.
    """
    draw = _draws(seed).__next__
    aspect = width / height
    slots = np.arange(_SLOT, aspect - _SLOT / 2, _SLOT).tolist()
    # Not at an edge, so that whoever stands before it is in the picture.
    chosen = _pick(draw, slots[1:-1])
    target = _thing(draw, chosen, BOARDS[1])
    others = [
        thing
        for board in BOARDS
        for x in slots
        if (thing := _thing(draw, x, board)).place != target.place and draw() < 0.7
    ]
    actor = _play(draw, deed, target, aspect)
    people = [actor]
    if draw() < 0.5:
        people.insert(0, _walk_past(draw, len(actor), aspect))
    wall, floor = (_tinted(draw, grey) for grey in (205, 150))
    frames = np.empty((len(actor), height, width, 3), np.uint8)
    was_held = False
    for number, person in enumerate(actor):
        was_held = was_held or person.held is not None
        on_shelf = was_held if deed == "restock" else not was_held
        things = [*others, target] if on_shelf and person.held is None else others
        frames[number] = draw_shop(
            height, width, wall, floor, things, [track[number] for track in people]
        )
    return Film(frames, _tracks(people, deed, height, width))


def _draws(seed: int) -> Iterator[float]:
    """Numbers uniform in [0, 1), without end."""
    for block in count():
        yield from uniform_draws(seed, block, 64)


def _pick(draw: _Draw, choices: Sequence[Any]) -> Any:
    return choices[int(draw() * len(choices))]


def _thing(draw: _Draw, x: float, board: float) -> Thing:
    return Thing((x, board - THING_SIZE / 2), _pick(draw, _COLOURS), draw() < 0.5)


def _tinted(draw: _Draw, grey: int) -> Colour:
    red, green, blue = (grey + round(30 * draw()) for _ in range(3))
    return red, green, blue


def _new_person(draw: _Draw, aspect: float) -> Person:
    """Somebody who comes in from one of the sides."""
    facing = 1 if draw() < 0.5 else -1
    x = -_OFF if facing > 0 else aspect + _OFF
    return Person(x, facing, _pick(draw, _SHIRTS), draw() < 0.5)


def _play(draw: _Draw, deed: Deed, target: Thing, aspect: float) -> list[Person]:
    """The actor in every frame."""
    person = _new_person(draw, aspect)
    if deed == "restock":
        person = _with(person, target)
    frames = [person] * (2 + int(draw() * 6))
    stop = target.place[0] - 0.11 * person.facing
    frames += _walk(person, stop, 18 + int(draw() * 10))
    person = replace(frames[-1], swing=0.0)
    if deed == "pass":
        frames += [person] * int(draw() * 16)
    else:
        frames += _handle(person, deed, target)
        person = frames[-1]
    if draw() < 0.5:
        person = replace(person, facing=-person.facing)
        if deed == "theft":
            person = _with(person, target)
    end = aspect + _OFF if person.facing > 0 else -_OFF
    frames += _walk(person, end, 18 + int(draw() * 10))
    still = max(2 + int(draw() * 6), FEWEST_FRAMES - len(frames))
    return frames + [frames[-1]] * still


def _with(person: Person, thing: Thing) -> Person:
    """The person with a thing held close."""
    return replace(person, hand=held_close(person.x, person.facing), held=thing)


def _walk(person: Person, end: float, num_frames: int) -> list[Person]:
    frames = []
    for number in range(1, num_frames + 1):
        x = person.x + (end - person.x) * number / num_frames
        moved = replace(person, x=x, swing=math.sin(number * math.pi / 4))
        frames.append(moved if person.held is None else _with(moved, person.held))
    return frames


def _handle(person: Person, deed: Deed, target: Thing) -> list[Person]:
    """The hand goes up to the shelf and comes back."""
    close = held_close(person.x, person.facing)
    brought = target if deed == "restock" else None
    taken = target if deed == "theft" else None
    up = _move_hand(person, close, target.place, brought)
    hold = [replace(person, hand=target.place, held=brought)] * _HOLD_FRAMES
    back = _move_hand(person, target.place, close, taken)
    rest = replace(person, hand=None, held=None)
    rest = rest if taken is None else _with(rest, taken)
    return [*up, *hold, *back, rest]


def _move_hand(
    person: Person, start: Point, end: Point, thing: Thing | None
) -> list[Person]:
    num_frames = _REACH_FRAMES if thing is None else _MOVE_FRAMES
    frames = []
    for number in range(1, num_frames + 1):
        part = number / num_frames
        part = part * part * (3 - 2 * part)  # Starts and ends at rest.
        x = start[0] + (end[0] - start[0]) * part
        y = start[1] + (end[1] - start[1]) * part
        frames.append(replace(person, hand=(x, y), held=thing))
    return frames


def _walk_past(draw: _Draw, num_frames: int, aspect: float) -> list[Person]:
    """Somebody else, who crosses the picture within the film."""
    person = _new_person(draw, aspect)
    first = int(draw() * num_frames / 2)
    duration = min(num_frames - first, 30 + int(draw() * 20))
    end = aspect + _OFF if person.facing > 0 else -_OFF
    frames = [person] * first + _walk(person, end, duration)
    return frames + [frames[-1]] * (num_frames - len(frames))


def _tracks(
    people: Sequence[Sequence[Person]], deed: Deed, height: int, width: int
) -> tuple[Track, ...]:
    actor = people[-1]
    boxes = [[_box(person, height, width) for person in track] for track in people]
    hands = [
        (_pixels(person.hand, height),)
        if person.hand is not None and 0 <= person.hand[0] < width / height
        else None
        for person in actor
    ]
    tracks = [_track("person", "box", shapes) for shapes in boxes]
    tracks.append(_track("hand", "points", hands))
    if deed == "theft":
        first = next(n for n, person in enumerate(actor) if person.held is not None)
        end = first + _MOVE_FRAMES + _AFTER_THEFT_FRAMES
        shapes = [
            box if first <= number < end else None
            for number, box in enumerate(boxes[-1])
        ]
        tracks.append(_track(EVENT_LABEL, "box", shapes))
    return tuple(track for track in tracks if track.shapes)


def _pixels(point: Point, height: int) -> Point:
    return round(point[0] * height, 2), round(point[1] * height, 2)


def _box(person: Person, height: int, width: int) -> tuple[Point, Point] | None:
    """The part of a person's box that is in the picture, in pixels."""
    left, top, right, bottom = person.box
    left, right = max(left, 0), min(right, width / height)
    if left >= right:
        return None
    return _pixels((left, top), height), _pixels((right, bottom), height)


def _track(
    label: str, kind: str, outlines: Sequence[tuple[Point, ...] | None]
) -> Track:
    """A track from what is to be seen in each frame; None is outside."""
    shapes: list[Shape] = []
    for frame, points in enumerate(outlines):
        if points is not None:
            shapes.append(Shape(kind, frame, False, points))
        elif shapes and not shapes[-1].outside:
            shapes.append(Shape(kind, frame, True, shapes[-1].points))
    return Track(label, tuple(shapes))
