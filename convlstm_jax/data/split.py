"""How what a data set holds is dealt out to training, validation and test."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(groups: Sequence[T], shares: Mapping[str, float]) -> dict[str, list[T]] | None:
    """Deals whole groups out, the last ones first: tests lie after what was learned.

    Args:
        groups: what is dealt out, in the order of time where there is one.
        shares: the share of each split but training, in the order training, …, test.

    Returns:
        The groups of each split, training first; None: there are fewer than splits.
    """
    if len(groups) <= len(shares):
        return None
    parts: dict[str, list[T]] = {}
    end = len(groups)
    for left, (split, share) in enumerate(reversed(shares.items())):
        spare = end - (len(shares) - left)
        count = min(max(1, round(share * len(groups))), spare)
        parts[split] = list(groups[end - count : end])
        end -= count
    parts["train"] = list(groups[:end])
    return {split: parts[split] for split in ("train", *shares)}


def cut_in_time(
    length: int, span: int, shares: Mapping[str, float]
) -> dict[str, tuple[int, int]]:
    """Cuts one series in time: the beginning to learn from, the end to test on.

    Args:
        length: of the series.
        span: fewest that a clip needs.
        shares: as those of `deal`.

    Returns:
        For each split the first and the end of its part; both are equal where nothing
        is left for it.
    """
    parts: dict[str, tuple[int, int]] = {}
    end = length
    for split, share in reversed(shares.items()):
        first = max(0, end - max(span, round(share * length)))
        parts[split] = first, end
        end = first
    parts["train"] = 0, end
    return {split: parts[split] for split in ("train", *shares)}
