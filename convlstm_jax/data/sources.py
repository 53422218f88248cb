"""Where clips come from: sources with random access, and splits of a data set."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")

SPLITS = ("train", "validation", "test")


class ClipSource(Protocol):
    """A deterministic source of clips with random access; it can be pickled."""

    def __len__(self) -> int:
        """Returns the number of clips."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns a clip: {"frames": uint8 or float32 `[T, H, W, C]`}.

        Every clip of a source has the same keys, shapes and types. A source may add
        "label" and "condition", int32 indices into the names in `Sources`; "mask",
        uint8 `[T, H, W, 1]`, 1 where there is data; and "targets", noisy frames without
        their noise.
        """


def checked_index(index: int, length: int) -> int:
    """The index of a clip, or an `IndexError` where it is out of range."""
    if not 0 <= index < length:
        raise IndexError(
            f"Clip {index} is out of range: the source holds {length} clips."
        )
    return int(index)


@dataclass(frozen=True, eq=False)
class Sources:
    """The three splits of a data set; the seed changes the training clips alone.

    Attributes:
        description: where the data come from, with any stand-in for the data asked for.
        digits_source: for moving digits "idx", "tfds" or "sklearn", else "".
        conditions: names of the conditions clips were taken under (a flow rate, a
            folder), to which a clip's "condition" is the index.
        classes: names of the classes, to which a clip's "label" is the index.
        class_counts: training clips of each class.
        test_films: name of the film (video, folder, event) of each test clip.
    """

    train: ClipSource
    validation: ClipSource
    test: ClipSource
    description: str
    height: int
    width: int
    channels: int
    digits_source: str = ""
    conditions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    test_films: Sequence[str] = ()


def shares(
    validation_fraction: float, test_fraction: float, *, held_out: bool = False
) -> dict[str, float]:
    """The shares of test and validation; none for test where that is held out."""
    test = {} if held_out else {"test": test_fraction}
    return {**test, "validation": validation_fraction}


def deal(groups: Sequence[T], shares: Mapping[str, float]) -> dict[str, list[T]] | None:
    """Distributes groups over the splits: the last to test, the first to training.

    Returns None if there are fewer groups than splits.
    """
    if len(groups) <= len(shares):
        return None
    parts: dict[str, list[T]] = {split: [] for split in SPLITS}
    end = len(groups)
    for left, (split, share) in enumerate(shares.items()):
        spare = end - (len(shares) - left)  # One for each split still to fill.
        count = min(max(1, round(share * len(groups))), spare)
        parts[split] += groups[end - count : end]
        end -= count
    parts["train"] += groups[:end]
    return parts


def cut_in_time(
    length: int, span: int, shares: Mapping[str, float]
) -> dict[str, tuple[int, int]]:
    """Cuts a film or event into parts (first, end): training first, test last.

    No part but training is shorter than `span`, the frames of a clip.
    """
    parts = {}
    last = length
    for split, share in shares.items():
        first = max(0, last - max(span, round(share * length)))
        parts[split] = first, last
        last = first
    return {"train": (0, last), **parts}


def name_bits(name: str) -> int:
    """A 64-bit hash of a name."""
    encoded = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def mixed(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Shuffles items by a hash of their names, always in the same way."""

    def bits(item: T) -> bytes:
        return hashlib.sha256(name(item).encode("utf-8", "surrogateescape")).digest()

    return sorted(items, key=bits)
