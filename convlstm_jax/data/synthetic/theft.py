"""Synthetic clips of a shop, in some of which something is stolen.

Someone takes a thing from the shelf ("theft"), puts one into a gap ("restock"), touches
one ("touch"), or passes by ("pass"): the movement tells the class, one frame does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import LabelledDataConfig, clip_limit
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.synthetic.clips import SyntheticClips

Colour = Sequence[float] | np.ndarray

CLASSES = ("normal", "theft")
MIN_SIZE = 32  # Fewest pixels with which a hand can be made out.

# Half of the clips are thefts, and every other kind is as frequent as the next.
_DEEDS = ("theft", "restock", "theft", "touch", "theft", "pass")

# Lengths are in frame heights, y downwards.
_BOARDS = (0.16, 0.37)
_SLOT = 0.15  # From one thing on a board to the next.
_THING = 0.1
_SHOULDER, _HIP, _GROUND = 0.52, 0.73, 0.95
_SHIRTS = ((70, 95, 160), (150, 75, 70), (85, 120, 80), (120, 90, 140), (90, 90, 95))
_COLOURS = ((235, 60, 50), (250, 200, 40), (40, 190, 90), (40, 170, 230))
_SKIN, _TROUSERS, _BOARD = (230, 185, 155), (50, 50, 65), (110, 90, 75)
_GREY = np.array([0.299, 0.587, 0.114])  # Luma of ITU-R BT.601.


@dataclass(frozen=True)
class _Canvas:
    """A frame on which boxes are drawn, soft at their edges, in frame heights."""

    pixels: np.ndarray

    def box(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        """Draws a box by its centre and size."""
        height, width, _ = self.pixels.shape
        parts, covers = [], []
        for middle, size, length in ((y, high, height), (x, wide, width)):
            low, high_end = (middle - size / 2) * height, (middle + size / 2) * height
            first = min(max(int(np.floor(low)), 0), length)
            last = min(max(int(np.ceil(high_end)), first), length)
            pixel = np.arange(first, last)
            cover = np.minimum(pixel + 1, high_end) - np.maximum(pixel, low)
            parts.append(slice(first, last))
            covers.append(cover.astype(np.float32))
        cover = covers[0][:, None, None] * covers[1][:, None]
        seen = self.pixels[parts[0], parts[1]]
        seen += cover * (np.asarray(colour, np.float32) - seen)

    def thing(self, x: float, y: float, colour: Colour) -> None:
        """Draws a thing for sale, with a dark rim."""
        self.box(x, y, _THING, _THING, (30, 30, 30))
        self.box(x, y, 0.75 * _THING, 0.75 * _THING, colour)

    def person(self, x: float, step: float, shirt: Colour, hand: np.ndarray) -> None:
        """Draws a person; `step` in [−1, 1] says how far the legs are apart."""
        leg = (_HIP + _GROUND) / 2
        for side in (-1, 1):
            self.box(x + 0.04 * side * step, leg, 0.045, _GROUND - _HIP, _TROUSERS)
        self.box(x, (_SHOULDER + _HIP) / 2, 0.11, _HIP - _SHOULDER, shirt)
        self.box(x, _SHOULDER - 0.06, 0.09, 0.1, _SKIN)
        for part in np.linspace(0, 1, 6):
            arm_x = x + part * (hand[0] - x)
            arm_y = _SHOULDER + 0.02 + part * (hand[1] - _SHOULDER - 0.02)
            colour = _SKIN if part == 1 else np.subtract(shirt, 35)
            self.box(arm_x, arm_y, 0.045, 0.045, colour)


class TheftClips(SyntheticClips["TheftConfig"]):
    """A random-access source of clips with a "label", see `SyntheticClips`."""

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        deed = _DEEDS[index % len(_DEEDS)]
        rng = np.random.default_rng((self.seed, index))
        height, width, channels = self.config.frame_shape
        aspect = width / height
        slots = np.arange(_SLOT, aspect - _SLOT / 2, _SLOT)
        goal = np.array([rng.choice(slots[1:-1]), _BOARDS[1] - _THING / 2])
        goods = [
            (x, board - _THING / 2, _COLOURS[rng.integers(len(_COLOURS))])
            for board in _BOARDS
            for x in slots
            if (x, board) != (goal[0], _BOARDS[1]) and rng.random() < 0.7
        ]
        colour, shirt, other_shirt = (
            of[rng.integers(len(of))] for of in (_COLOURS, _SHIRTS, _SHIRTS)
        )
        wall, floor = (grey + 30 * rng.random(3) for grey in (205, 150))
        facing = rng.choice((-1, 1))
        time = np.arange(self.num_frames) / max(1, self.num_frames - 1)
        reach, carries = _movement(deed, time, rng)
        # Who passes by walks on; who reaches for the shelf stands before it.
        walk = rng.uniform(0, 0.9 * aspect if deed == "pass" else 0.15)
        centre = 0.5 * aspect if deed == "pass" else goal[0] - 0.11 * facing
        stop = 0.5 if deed == "pass" else 0
        x = centre + facing * walk * np.minimum(time - 0.5, stop)
        passer_by = rng.random() < 0.5
        speed = rng.choice((-1, 1)) * rng.uniform(0.2, 1)
        other_x = rng.uniform(0, aspect) + speed * (time - 0.5)
        shop = _Canvas(np.full((height, width, 3), wall, np.float32))
        shop.box(aspect / 2, 0.9, aspect, 0.2, floor)
        for board in _BOARDS:
            shop.box(aspect / 2, board + 0.015, aspect, 0.03, _BOARD)
        for thing in goods:
            shop.thing(*thing)
        frames = np.repeat(shop.pixels[np.newaxis], self.num_frames, axis=0)
        for number, frame in enumerate(frames):
            canvas = _Canvas(frame)
            step = np.sin(8 * np.pi * time[number])
            if passer_by:
                down = np.array([other_x[number] + 0.03 * step, 0.7])
                canvas.person(other_x[number], step, other_shirt, down)
            close = np.array([x[number] + 0.1 * facing, 0.62])
            hand = close + reach[number] * (goal - close)
            moves = number and x[number] != x[number - 1]
            canvas.person(x[number], step if moves else 0.3, shirt, hand)
            if carries[number]:
                canvas.thing(hand[0], hand[1], colour)
            elif deed != "pass":
                canvas.thing(goal[0], goal[1], colour)
        if channels == 1:
            frames = (frames @ _GREY)[..., np.newaxis]
        return {
            "frames": np.clip(np.rint(frames), 0, 255).astype(np.uint8),
            "label": np.asarray(deed == "theft", np.int32),
        }


def _movement(
    deed: str, time: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How far the hand is towards the shelf, 0 to 1, and whether it holds a thing."""
    if deed == "pass":
        return np.zeros_like(time), np.full(time.shape, rng.random() < 0.8)
    start, duration, hold = rng.uniform((0, 0.25, 0.05), (0.2, 0.35, 0.15))
    up = (time - start) / duration
    down = (time - start - duration - hold) / duration
    reach = np.clip(up, 0, 1) - np.clip(down, 0, 1)
    reach = reach * reach * (3 - 2 * reach)  # Starts and ends at rest.
    if deed == "touch":
        return reach, np.zeros(time.shape, bool)
    half = time >= start + duration + hold / 2
    return reach, half if deed == "theft" else ~half


class TheftConfig(LabelledDataConfig):
    """Synthetic clips of a shop, for telling thefts from other clips."""

    own_data: ClassVar[str] = "annotated_video"

    name: Literal["theft_videos"] = "theft_videos"
    height: int = field(64, "Height of a frame.", unit="pixels", ge=MIN_SIZE)
    width: int = field(64, "Width of a frame.", unit="pixels", ge=MIN_SIZE)
    channels: Literal[1, 3] = field(3, "Channels of a frame: 1 (grey) or 3 (colour).")
    num_validation_sequences: int = clip_limit(300, "validation")
    num_test_sequences: int = clip_limit(600, "test", may_change=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of clips, in the order of their labels."""
        return CLASSES

    def check(self) -> Iterator[str]:
        """Yields where the shelves would have too few things."""
        if 3 * self.width < 2 * self.height:
            yield (
                f"width is {self.width}: it must be at least 2/3 of height, which is "
                f"{self.height}"
            )

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits, see `DataConfig.sources`."""
        thefts = (self.num_train_sequences + 1) // 2
        return TheftClips.splits(
            self,
            num_frames,
            seed,
            f"Clips of a shop on {self.height}x{self.width}, all generated by the "
            "program: in half of them something is stolen.",
            classes=CLASSES,
            class_counts=(self.num_train_sequences - thefts, thefts),
        )
