"""Deals films, events and their parts out to training, validation and test."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

SPLITS = ("train", "validation", "test")


def shares(
    validation_fraction: float, test_fraction: float, *, held_out: bool = False
) -> dict[str, float]:
    """The share of each split but training; none for test where that is held out."""
    wanted = {"test": test_fraction, "validation": validation_fraction}
    return {name: wanted[name] for name in wanted if not (held_out and name == "test")}


def deal(groups: Sequence[T], shares: Mapping[str, float]) -> dict[str, list[T]] | None:
    """Deals groups out, each whole: those at the end first, the rest to training.

    Args:
        groups: what stays together, in an order that does not depend on chance.
        shares: see `shares`.

    Returns:
        The groups of each split, at least one in each of training and `shares`; None if
        there are fewer groups than that.
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
    """Cuts a film or event into parts: the beginning is for training, the end for test.

    Args:
        length: frames it has.
        span: frames from the first to the last of a clip; a part gets no fewer.
        shares: see `shares`.

    Returns:
        (first, end) of each part, which may be empty.
    """
    parts = {}
    last = length
    for split, share in shares.items():
        first = max(0, last - max(span, round(share * length)))
        parts[split] = first, last
        last = first
    return {"train": (0, last), **parts}


def name_bits(name: str) -> int:
    """64 bits that depend on a name alone, on any machine."""
    encoded = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def mixed(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Sorts by a hash of the items' names: as good as random, always the same."""
    return sorted(
        items,
        key=lambda item: hashlib.sha256(
            name(item).encode("utf-8", "surrogateescape")
        ).digest(),
    )
