"""The kinds of value that only fields of `config.data` hold; see `rules`."""

import dataclasses
from typing import Any

from convlstm_jax.cli.rules import Integer, Number, Rule


@dataclasses.dataclass(frozen=True)
class Box(Rule):
    """A part of a picture, (top, left, height, width) in pixels, or ()."""

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        return (
            "(top, left, height, width) in pixels, the first two at least 0 and the "
            "last two at least 1, such as (0,40,256,256), or ()"
        )

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        if not isinstance(value, tuple) or len(value) not in (0, 4):
            return False
        least = (0, 0, 1, 1)[: len(value)]
        return all(Integer(m).accepts(v) for m, v in zip(least, value, strict=True))

    def parse(self, text: str) -> tuple[int, ...]:
        """See `Rule`; brackets may be left out."""
        inner = text.strip().strip("()[]").strip().removesuffix(",")
        return tuple(int(number) for number in inner.split(",")) if inner else ()


@dataclasses.dataclass(frozen=True)
class Span(Rule):
    """Two finite numbers, the lower one first, or ()."""

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        return "two finite numbers, the lower one first, such as (-10,60), or ()"

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        if not isinstance(value, tuple) or len(value) not in (0, 2):
            return False
        if not all(Number().accepts(number) for number in value):
            return False
        return not value or value[0] < value[1]

    def parse(self, text: str) -> tuple[float, ...]:
        """See `Rule`; brackets may be left out."""
        inner = text.strip().strip("()[]").strip().removesuffix(",")
        return tuple(float(number) for number in inner.split(",")) if inner else ()
