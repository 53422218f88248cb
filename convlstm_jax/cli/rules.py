"""The kinds of value a config field can hold: how to read one, what is allowed."""

import dataclasses
import itertools
import math
from typing import Any

from convlstm_jax.nearest import did_you_mean


class Rule:
    """What one field of the config allows."""

    @property
    def allowed(self) -> str:
        """What is allowed, as the end of a sentence that begins with `it must be`."""
        raise NotImplementedError

    def accepts(self, value: Any) -> bool:
        """Whether the field may hold `value`."""
        raise NotImplementedError

    def parse(self, text: str) -> Any:
        """Reads a value from the command line.

        Raises:
          ValueError: if the text is no value of this kind.
        """
        raise NotImplementedError

    def hint(self, value: Any) -> str:
        """What the user probably meant with a refused `value`, or ""."""
        del value
        return ""


@dataclasses.dataclass(frozen=True)
class Text(Rule):
    """Any text, the empty one too."""

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        return "a text"

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str)

    def parse(self, text: str) -> str:
        """See `Rule`."""
        return text


@dataclasses.dataclass(frozen=True)
class Choice(Rule):
    """One name out of a few."""

    names: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        listed = ", ".join(repr(name) for name in self.names)
        return listed if len(self.names) == 1 else f"one of {listed}"

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str) and value in self.names

    def parse(self, text: str) -> str:
        """See `Rule`."""
        return text

    def hint(self, value: Any) -> str:
        """See `Rule`."""
        return did_you_mean(str(value), self.names)


@dataclasses.dataclass(frozen=True)
class Boolean(Rule):
    """True or False."""

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        return "true or false"

    def accepts(self, value: Any) -> bool:
        """See `Rule`; 1 and 0 are none."""
        return isinstance(value, bool)

    def parse(self, text: str) -> bool:
        """See `Rule`; upper and lower case are read alike."""
        values = {"true": True, "false": False}
        if text.strip().lower() not in values:
            raise ValueError(f"{text!r} is neither true nor false")
        return values[text.strip().lower()]


@dataclasses.dataclass(frozen=True)
class Integer(Rule):
    """A whole number from `minimum` to `maximum`, odd if asked for."""

    minimum: int
    maximum: int | None = None
    odd: bool = False

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        kind = "an odd integer" if self.odd else "an integer"
        if self.maximum is None:
            return f"{kind} of at least {self.minimum}"
        return f"{kind} from {self.minimum} to {self.maximum}"

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= self.minimum
            and (self.maximum is None or value <= self.maximum)
            and (not self.odd or value % 2 == 1)
        )

    def parse(self, text: str) -> int:
        """See `Rule`; `100_000` and `1e5` are integers too."""
        try:
            return int(text)
        except ValueError:
            number = float(text)
            if not number.is_integer():
                raise
            return int(number)


@dataclasses.dataclass(frozen=True)
class Number(Rule):
    """A finite number from `minimum` (or above `above`) to below `below`."""

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        limits = [
            f"{words} {limit:g}"
            for words, limit in (
                ("of at least", self.minimum),
                ("above", self.above),
                ("of at most", self.maximum),
                ("below", self.below),
            )
            if limit is not None
        ]
        return " ".join(["a finite number", " and ".join(limits)]).strip()

    def accepts(self, value: Any) -> bool:
        """See `Rule`; a whole number is a number too."""
        return (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )

    def parse(self, text: str) -> float:
        """See `Rule`."""
        return float(text)


@dataclasses.dataclass(frozen=True)
class Texts(Rule):
    """A tuple of texts, none of them empty; itself empty only if `may_be_empty`."""

    may_be_empty: bool = False
    example: str = "theft,robbery"

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        number = "any number of" if self.may_be_empty else "one or more"
        return f"a tuple of {number} texts, such as {self.example}"

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        return (
            isinstance(value, tuple)
            and (self.may_be_empty or len(value) > 0)
            and all(isinstance(text, str) and text for text in value)
        )

    def parse(self, text: str) -> tuple[str, ...]:
        """See `Rule`; commas separate, and spaces around a text do not count."""
        inner = text.strip().removesuffix(",")
        return tuple(part.strip() for part in inner.split(",")) if inner else ()


@dataclasses.dataclass(frozen=True)
class Numbers(Rule):
    """A tuple of one or more finite numbers above `above`, each larger than before."""

    above: float
    example: str = "(0.5,2,5)"

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        return (
            f"a tuple of one or more finite numbers above {self.above:g}, in rising "
            f"order, such as {self.example}"
        )

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        entry = Number(above=self.above)
        return (
            isinstance(value, tuple)
            and len(value) > 0
            and all(entry.accepts(number) for number in value)
            and all(first < second for first, second in itertools.pairwise(value))
        )

    def parse(self, text: str) -> tuple[float, ...]:
        """See `Rule`; brackets may be left out, as in `Integers`."""
        inner = text.strip().strip("()[]").strip().removesuffix(",")
        return tuple(float(number) for number in inner.split(",")) if inner else ()


@dataclasses.dataclass(frozen=True)
class Integers(Rule):
    """A tuple of one or more whole numbers, each as `Integer` has it."""

    minimum: int
    maximum: int | None = None
    odd: bool = False
    example: str = "(128,64,64)"

    @property
    def allowed(self) -> str:
        """See `Rule`."""
        kind = "odd integers" if self.odd else "integers"
        limits = f"of at least {self.minimum}"
        if self.maximum is not None:
            limits = f"from {self.minimum} to {self.maximum}"
        return f"a tuple of one or more {kind} {limits}, such as {self.example}"

    def accepts(self, value: Any) -> bool:
        """See `Rule`."""
        entry = Integer(self.minimum, self.maximum, self.odd)
        return (
            isinstance(value, tuple)
            and len(value) > 0
            and all(entry.accepts(number) for number in value)
        )

    def parse(self, text: str) -> tuple[int, ...]:
        """See `Rule`; `(64,32)`, `[64,32]`, `64,32` and `64` are read alike."""
        inner = text.strip().strip("()[]").strip().removesuffix(",")
        return tuple(int(number) for number in inner.split(",")) if inner else ()
