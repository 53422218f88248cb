"""Draws one frame of a shop: a wall with shelf boards, things on them, people."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Lengths are in frame heights, y downwards.
BOARDS = (0.16, 0.37)
THING_SIZE = 0.11

_GROUND = 0.95
_SKIRTING = 0.8
_HEAD, _SHOULDER, _HIP = 0.45, 0.54, 0.73
_HEAD_RADIUS = 0.055
_TORSO_WIDTH, _LIMB_WIDTH, _STEP = 0.11, 0.035, 0.08
_MARGIN = 0.02

_SKIN, _TROUSERS, _BAG = (230, 185, 155), (50, 50, 65), (95, 65, 40)
_BOARD, _OUTLINE = (110, 90, 75), (30, 30, 30)

_DRAWN_PIXELS = 256  # Frames are drawn at least so high, then shrunk smoothly.


@dataclass(frozen=True)
class Thing:
    """A thing for sale.

    Attributes:
      place: its middle on the shelf.
      colour: RGB.
      is_bottle: whether it is narrow.
    """

    place: Point
    colour: Colour
    is_bottle: bool


@dataclass(frozen=True)
class Person:
    """A person in one frame.

    Attributes:
      x: where they stand.
      facing: 1 to the right, −1 to the left.
      shirt: its colour, RGB.
      has_bag: whether a bag hangs behind them.
      swing: how far the legs are apart, in [−1, 1].
      hand: where the hand in front is; None where it hangs down.
      held: the thing in this hand.
    """

    x: float
    facing: int
    shirt: Colour
    has_bag: bool
    swing: float = 0.0
    hand: Point | None = None
    held: Thing | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of all that is drawn of them."""
        left, right = self.x - _STEP - _MARGIN, self.x + _STEP + _MARGIN
        top = _HEAD - _HEAD_RADIUS
        if self.hand is not None:
            reach = _MARGIN if self.held is None else THING_SIZE / 2
            left, right = (
                min(left, self.hand[0] - reach),
                max(right, self.hand[0] + reach),
            )
            top = min(top, self.hand[1] - reach)
        return left, top, right, _GROUND


def held_close(x: float, facing: int) -> Point:
    """Where the hand of a person is who carries a thing."""
    return x + 0.1 * facing, 0.62


def draw_shop(
    height: int,
    width: int,
    wall: Colour,
    floor: Colour,
    things: Iterable[Thing],
    people: Sequence[Person],
) -> np.ndarray:
    """Draws a frame.

    Args:
      height: H, pixels.
      width: W, pixels.
      wall: colour of the wall, RGB.
      floor: colour of the floor, RGB.
      things: what stands on the shelves.
      people: who is there, from back to front.

    Returns:
      uint8 [H, W, 3].
    """
    factor = math.ceil(_DRAWN_PIXELS / height)
    pen = _Pen(height * factor, width * factor, wall)
    aspect = width / height
    pen.box((0, _SKIRTING, aspect, 1), floor)
    for board in BOARDS:
        pen.box((0, board, aspect, board + 0.03), _BOARD)
    for thing in things:
        pen.thing(thing, thing.place)
    for person in people:
        pen.person(person)
    return np.asarray(pen.image.reduce(factor))


class _Pen:
    """Draws in frame heights."""

    def __init__(self, height: int, width: int, colour: Colour) -> None:
        self.image = Image.new("RGB", (width, height), colour)
        self._draw = ImageDraw.Draw(self.image)
        self._scale = height

    def _pixels(self, *numbers: float) -> list[int]:
        return [round(number * self._scale) for number in numbers]

    def box(
        self, box: Sequence[float], colour: Colour, outline: Colour | None = None
    ) -> None:
        width = max(1, *self._pixels(0.012))
        self._draw.rectangle(self._pixels(*box), colour, outline, width)

    def line(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        self._draw.line(self._pixels(*start, *end), colour, round(width * self._scale))

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        x, y = centre
        self._draw.ellipse(
            self._pixels(x - radius, y - radius, x + radius, y + radius), colour
        )

    def thing(self, thing: Thing, place: Point) -> None:
        x, y = place
        half = THING_SIZE / 2
        side = half * (0.6 if thing.is_bottle else 0.9)
        top = y - half * (0.4 if thing.is_bottle else 0.8)
        self.box((x - side, top, x + side, y + half), thing.colour, _OUTLINE)
        if thing.is_bottle:
            neck = side / 2
            self.box((x - neck, y - half, x + neck, top), thing.colour, _OUTLINE)

    def person(self, person: Person) -> None:
        x, side = person.x, person.facing
        for sign in (-1, 1):
            foot = (x + sign * person.swing * _STEP, _GROUND)
            self.line((x, _HIP), foot, _TROUSERS, _LIMB_WIDTH * 1.3)
        half = _TORSO_WIDTH / 2
        if person.has_bag:
            left = x - side * 0.075
            self.box((left - 0.035, 0.66, left + 0.035, 0.78), _BAG, _OUTLINE)
        self.box((x - half, _SHOULDER - 0.03, x + half, _HIP + 0.02), person.shirt)
        self.disc((x, _HEAD), _HEAD_RADIUS, _SKIN)
        # The eye tells which way they look.
        self.disc((x + side * 0.03, _HEAD - 0.01), 0.012, _OUTLINE)
        shoulder = (x + side * 0.02, _SHOULDER)
        hand = person.hand or (x + side * 0.05 * person.swing, 0.72)
        sleeve = tuple(max(0, value - 35) for value in person.shirt)
        self.line(shoulder, hand, sleeve, _LIMB_WIDTH)  # type: ignore[arg-type]
        self.disc(hand, 0.026, _SKIN)
        if person.held is not None:
            self.thing(person.held, hand)
