"""Where clips come from: sources with random access, and the three splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class ClipSource(Protocol):
    """A source of clips with random access; what the input pipeline reads.

    A source is deterministic (the same index gives the same clip, in any process) and
    can be pickled, since worker processes receive a copy of it.
    """

    def __len__(self) -> int:
        """Returns the number of clips."""
        ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns clip `index` of `len(self)`.

        Returns:
            {"frames": uint8 or float32 `[T, H, W, C]`}; every clip of a source has the
            same keys, shapes and types. A source may add "label" and "condition",
            int32 indices into the names in `Sources`; "mask", uint8 `[T, H, W, 1]`, 1
            where there is data; and, where its frames are noisy, "targets", the same
            frames without noise.
        """
        ...


def checked_index(index: int, length: int) -> int:
    """The index of a clip, or an `IndexError` where it is out of range."""
    if not 0 <= index < length:
        raise IndexError(
            f"Clip {index} is out of range: the source holds {length} clips."
        )
    return int(index)


@dataclass(frozen=True, eq=False)
class Sources:
    """The three splits of a data set.

    Attributes:
        train: training clips.
        validation: validation clips, the same ones whatever the seed.
        test: test clips, the same ones whatever the seed.
        description: a sentence or two that tell where the data come from, with any
            stand-in for the data asked for.
        height: frame height H, pixels.
        width: frame width W, pixels.
        channels: C.
        digits_source: for moving digits, which digits: "idx", "tfds" or "sklearn"; ""
            for other data sets.
        conditions: names of the conditions clips were taken under (a flow rate, a
            folder), to which a clip's "condition" is the index; empty where clips have
            none.
        classes: names of the classes, to which a clip's "label" is the index; empty
            where clips have none.
        class_counts: training clips of each class.
        test_films: name of the film (video, folder, event) that each test clip is cut
            from; () where clips come from no film.
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
