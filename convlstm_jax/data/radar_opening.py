"""Tells the composites of a folder that can be used from those that cannot."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from convlstm_jax.data.composites import CompositeReader
from convlstm_jax.data.radar_events import Composite
from convlstm_jax.errors import UserError

UNREADABLE = "unreadable"
OTHER_SIZE = "of another size"


def readable_composites(
    composites: Sequence[Composite],
    reader: CompositeReader,
    left_out: dict[str, list[str]],
) -> list[Composite]:
    """Those that can be read and have the size of most; adds the others to left_out."""

    def shape(composite: Composite) -> tuple[int, ...] | str:
        try:
            return reader.read(composite.path).shape
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shapes = list(pool.map(shape, composites))
    usual = usual_shape(one for one in shapes if not isinstance(one, str))
    good = []
    for composite, one in zip(composites, shapes, strict=True):
        if isinstance(one, str):
            left_out.setdefault(UNREADABLE, []).append(one.rstrip("."))
        elif one != usual:
            told = told_other_size(composite.path, one, usual)
            left_out.setdefault(OTHER_SIZE, []).append(told)
        else:
            good.append(composite)
    return good


def usual_shape(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of most frames, `[2, H, W]`; () where there are none."""
    return next((shape for shape, _ in Counter(shapes).most_common(1)), ())


def told_other_size(path: Path, found: Sequence[int], usual: Sequence[int]) -> str:
    """A sentence on a composite whose frame has not the shape of most."""
    return (
        f"'{path}' has {found[1]}×{found[2]} pixels after averaging, but most "
        f"composites have {usual[1]}×{usual[2]}"
    )


def refused_composite(sentence: str) -> UserError:
    """The error for a composite that is not to be left out."""
    return UserError(
        f"{sentence}; with data.bad_files='skip' such files are left out and counted."
    )


def refuse_left_out(left_out: Mapping[str, Sequence[str]], bad_files: str) -> None:
    """Raises a `UserError` on the first file left out, where they are refused."""
    if left_out and bad_files == "refuse":
        raise refused_composite(next(iter(left_out.values()))[0])


def told_left_out(left_out: Mapping[str, Sequence[str]]) -> str:
    """What was left out by its reason, counted, with the first of each."""
    told = [
        f"{len(sentences)} {why} (first: {sentences[0]})"
        for why, sentences in left_out.items()
    ]
    return f": {'; '.join(told)}" if told else ""
