"""Config classes: frozen, typed fields with bounds, units and a meaning.

Each network, objective, data set and optimizer has a class of its own fields beside its
code. Pydantic checks types; the bounds, the text of what is allowed and the parser of
the command line all follow from one declaration, `field`.
"""

import dataclasses
import itertools
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self, TypeVar

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from convlstm_jax.errors import UserError
from convlstm_jax.nearest import did_you_mean

_NUMBERS = {
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
}
_ConfigT = TypeVar("_ConfigT", bound="Config")


class Bounds(typing.TypedDict, total=False):
    """What the value of a field must keep to; of a tuple, each entry but for two.

    Attributes:
        ge: Smallest value.
        gt: The value must be above this.
        le: Largest value.
        lt: The value must be below this.
        odd: Whether the value must be odd.
        min_length: Fewest entries of a tuple; with text, 1 forbids empty text.
        increasing: Whether the entries of a tuple must rise.
    """

    ge: float
    gt: float
    le: float
    lt: float
    odd: bool
    min_length: int
    increasing: bool


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a field allows beside its type; see `field` and `Bounds`."""

    unit: str = ""
    example: str = ""
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    must: tuple[str, Callable[[Any], bool]] | None = None
    may_change: bool = False
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    odd: bool = False
    min_length: int = 0
    increasing: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        """Appends the bounds to the schema of the field's type."""

        def validate(value: Any) -> Any:
            if not self.accepts(value):
                raise ValueError(f"it must {_allowed(source, self)}")
            return value

        return core_schema.no_info_after_validator_function(validate, handler(source))

    def accepts(self, value: Any) -> bool:
        """Whether the bounds allow a value of the right type."""
        entries = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) and len(value) < self.min_length:
            return False
        if self.increasing and any(a >= b for a, b in itertools.pairwise(entries)):
            return False
        return all(map(self._in_bounds, entries)) and (
            self.must is None or self.must[1](value)
        )

    def _in_bounds(self, value: Any) -> bool:
        if isinstance(value, str):
            return bool(value) or not self.min_length
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (not self.odd or value % 2 == 1)
        )

    def limits(self) -> str:
        """The bounds in words, such as ` from 1 to 63`."""
        if self.ge is not None and self.le is not None:
            return f" from {_words(self.ge)} to {_words(self.le)}"
        words = {"of at least": self.ge, "above": self.gt}
        words |= {"of at most": self.le, "below": self.lt}
        parts = [
            f"{text} {_words(bound)}"
            for text, bound in words.items()
            if bound is not None
        ]
        return f" {' and '.join(parts)}" if parts else ""


def _words(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def field(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    example: str = "",
    when: Mapping[str, tuple[Any, ...]] | None = None,
    must: tuple[str, Callable[[Any], bool]] | None = None,
    may_change: bool = False,
    **bounds: typing.Unpack[Bounds],
) -> Any:
    """Declares one field of a config class.

    Args:
        default: The value where nothing is set.
        meaning: What the field does, in plain sentences; `--help` shows it.
        unit: The unit of its value, such as `pixels`.
        example: A value, shown after what is allowed.
        when: The values of other fields of the class with which this field exists.
        must: What a value must do, in words that follow "it must ", and the predicate.
        may_change: Whether a resumed run may have another value: it does not shape the
            training.
        **bounds: See `Bounds`.
    """
    rule = _Rule(unit, example, when or {}, must, may_change, **bounds)
    info = pydantic.Field(default, description=meaning)
    info.metadata.append(rule)
    return info


class Config(pydantic.BaseModel):
    """Base of all config classes: frozen, strict, without unknown fields."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields of this class, a sentence each."""
        yield from ()

    @pydantic.model_validator(mode="after")
    def _run_checks(self) -> Self:
        problems = list(self.check())
        if problems:
            raise PydanticCustomError(
                "checks", "{text}", {"text": "; ".join(problems), "problems": problems}
            )
        return self

    @classmethod
    def rule(cls, name: str) -> _Rule:
        """The bounds of a field."""
        rules = [m for m in cls.model_fields[name].metadata if isinstance(m, _Rule)]
        return rules[0] if rules else _Rule()

    def applicable(self) -> dict[str, Any]:
        """The values of the fields that exist with the values of the others."""
        return {
            name: getattr(self, name)
            for name in type(self).model_fields
            if applies(type(self), name, vars(self))
        }


def applies(cls: type[Config], name: str, values: Mapping[str, Any]) -> bool:
    """Whether a field exists, given the values of the other fields."""
    return all(
        values.get(other, cls.model_fields[other].default) in allowed
        and applies(cls, other, values)
        for other, allowed in cls.rule(name).when.items()
    )


def allowed(cls: type[Config], name: str) -> str:
    """What a field allows, as the end of a sentence that begins with `it must `."""
    return _allowed(cls.model_fields[name].annotation, cls.rule(name))


def _allowed(annotation: Any, rule: _Rule) -> str:
    if rule.must:
        return rule.must[0]
    example = f", such as {rule.example}" if rule.example else ""
    choices = _choices(annotation)
    if choices:
        listed = ", ".join(map(repr, choices))
        return f"be {listed}" if len(choices) == 1 else f"be one of {listed}"
    if annotation is bool:
        return "be true or false"
    if annotation is str:
        return f"be {'a non-empty' if rule.min_length else 'a'} text{example}"
    entry = _entry(annotation)
    if entry is None:
        article, _ = _NUMBERS[typing.cast(type, annotation)]
        article = (
            article.replace("an integer", "an odd integer") if rule.odd else article
        )
        return f"be {article}{rule.limits()}{example}"
    kind = "texts" if entry is str else _NUMBERS[entry][1]
    kind = f"odd {kind}" if rule.odd else kind
    number = "one or more " if rule.min_length else "any number of "
    order = ", in increasing order" if rule.increasing else ""
    return f"be a tuple of {number}{kind}{rule.limits()}{order}{example}"


def _choices(annotation: Any) -> tuple[Any, ...]:
    is_literal = typing.get_origin(annotation) is Literal
    return typing.get_args(annotation) if is_literal else ()


def _entry(annotation: Any) -> Any:
    """The type of a tuple's entries, or None for another type than a tuple."""
    if typing.get_origin(annotation) is not tuple:
        return None
    return typing.get_args(annotation)[0]


def parse(cls: type[Config], name: str, text: str) -> Any:
    """Reads the value of a field from text, as the command line gives it.

    Integers may be written `100_000` or `1e5`; tuples `(64,32)`, `64,32` or `64`.

    Raises:
        ValueError: the text is no value of the field's type.
    """
    annotation = cls.model_fields[name].annotation
    entry = _entry(annotation)
    if entry is None:
        return _parse_one(annotation, text)
    inner = text.strip()
    if entry is not str:
        inner = inner.strip("()[]").strip()
    inner = inner.removesuffix(",")
    parts = inner.split(",") if inner else []
    return tuple(_parse_one(entry, part.strip()) for part in parts)


def _parse_one(annotation: Any, text: str) -> Any:
    if annotation is bool:
        values = {"true": True, "false": False}
        if text.strip().lower() not in values:
            raise ValueError(f"{text!r} is neither true nor false")
        return values[text.strip().lower()]
    if annotation is int:
        try:
            return int(text)
        except ValueError:
            number = float(text)
            if not math.isfinite(number) or not number.is_integer():
                raise ValueError(f"{text!r} is no integer") from None
            return int(number)
    return float(text) if annotation is float else text


def refusal(cls: type[Config], name: str, value: Any, prefix: str = "") -> str:
    """The sentence that refuses a value of a field."""
    choices = _choices(cls.model_fields[name].annotation)
    hint = did_you_mean(str(value), map(str, choices)) if choices else ""
    return f"{prefix}{name} is {value!r}: it must {allowed(cls, name)}{hint}"


def validated(
    cls: type[_ConfigT], values: Mapping[str, Any], prefix: str = ""
) -> tuple[_ConfigT | None, list[str]]:
    """Makes an instance from values, or tells all that is wrong with them.

    Args:
        cls: The config class.
        values: Values by field; what is missing takes its default.
        prefix: What names the section in messages, such as `config.model.`.

    Returns:
        The instance, or None, and the problems, a sentence each.
    """
    problems = [
        unknown_field(cls, name, values, prefix)
        for name in values
        if name not in cls.model_fields or not applies(cls, name, values)
    ]
    known = {name: values[name] for name in values if name in cls.model_fields}
    try:
        instance = cls.model_validate(known)
    except pydantic.ValidationError as error:
        wrong: set[str] = set()
        for details in error.errors():
            if details["type"] == "checks":
                problems += [f"{prefix}{text}" for text in details["ctx"]["problems"]]
            else:
                wrong.add(str(details["loc"][0]))
        problems += [
            refusal(cls, name, known[name], prefix)
            for name in cls.model_fields
            if name in wrong
        ]
        return None, problems
    return (None if problems else instance), problems


def unknown_field(
    cls: type[Config], name: str, values: Mapping[str, Any], prefix: str = ""
) -> str:
    """The sentence about a field that a class, or the values of others, do not have."""
    own_name = values.get("name")
    having = f" with {prefix}name={own_name!r}" if own_name is not None else ""
    for other, choices in (
        cls.rule(name).when.items() if name in cls.model_fields else ()
    ):
        if not applies(cls, name, values):
            wanted = " or ".join(map(repr, choices))
            value = values.get(other, cls.model_fields[other].default)
            return (
                f"{prefix}{name} does not exist with {prefix}{other}={value!r}: it "
                f"needs {prefix}{other}={wanted}"
            )
    there = [field for field in cls.model_fields if applies(cls, field, values)]
    hint = did_you_mean(name, there)
    return (
        f"{prefix}{name} is not a field{having}{hint}: the fields are "
        f"{', '.join(there)}"
    )


def raise_problems(problems: list[str], header: str) -> None:
    """Raises all problems as one error: a sentence, or a header and a line for each.

    Raises:
        UserError: there is any problem.
    """
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} {header}:", *problems]))
