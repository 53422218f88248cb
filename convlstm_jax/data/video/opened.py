"""What a decoder of any kind of film gives."""

from collections.abc import Iterator
from dataclasses import dataclass

from convlstm_jax.data.video.fit import Raw
from convlstm_jax.errors import UserError


class SetupError(UserError):
    """No fault of the film: a package is missing, or the config asks for too much."""


@dataclass(frozen=True)
class Bad:
    """A frame that cannot be had.

    Attributes:
        why: a clause on why so.
    """

    why: str


@dataclass(frozen=True, eq=False)
class Opened:
    """A film that is open, decoded as its frames are taken.

    Attributes:
        size: (height, width) of its frames as they are shown, pixels.
        frames: the frames in order.
        total: frames it should have; None: it does not tell.
        rate: frames per second; None: it does not tell.
        cut: why the file ends early; "" for a whole one.
    """

    size: tuple[int, int]
    frames: Iterator[Raw | Bad]
    total: int | None = None
    rate: float | None = None
    cut: str = ""
