"""Config classes: frozen, typed fields with bounds, units and a meaning.

Pydantic checks types; the bounds, the text of what is allowed and the parser of the
command line all follow from one declaration, `field`.
"""

import dataclasses
import itertools
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self, TypeVar

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from convlstm_jax.errors import did_you_mean

_KINDS = {int: "integer", float: "finite number", str: "text"}
_ConfigT = TypeVar("_ConfigT", bound="Config")


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a field allows beside its type; bounds hold for each entry of a tuple."""

    unit: str = ""
    example: str = ""
    # The values of other fields of the class with which this field exists.
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    # What a value must do, in words that follow "it must ", and the predicate.
    must: tuple[str, Callable[[Any], bool]] | None = None
    may_change: bool = False  # Whether a resumed run may have another value.
    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf
    odd: bool = False
    min_length: int = 0  # Of a tuple or a text.
    increasing: bool = False  # Whether the entries of a tuple must increase.

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
        """Whether a value of the right type is allowed."""
        if isinstance(value, tuple | str) and len(value) < self.min_length:
            return False
        if self.must and not self.must[1](value):
            return False
        entries = value if isinstance(value, tuple) else (value,)
        if self.increasing and any(a >= b for a, b in itertools.pairwise(entries)):
            return False
        return all(
            self.ge <= entry <= self.le
            and self.gt < entry < self.lt
            and (not self.odd or entry % 2 == 1)
            for entry in entries
            if isinstance(entry, int | float)
        )

    def limits(self) -> str:
        """The bounds in words, such as ` from 1 to 63`."""
        if math.isfinite(self.ge) and math.isfinite(self.le):
            return f" from {self.ge:.12g} to {self.le:.12g}"
        bounds = {
            "of at least": self.ge, "above": self.gt,
            "of at most": self.le, "below": self.lt,
        }  # fmt: skip
        finite = {text: bound for text, bound in bounds.items() if math.isfinite(bound)}
        return " and".join(f" {text} {bound:.12g}" for text, bound in finite.items())


def field(default: Any, meaning: str, **rule: Any) -> Any:
    """Declares one field of a config class.

    `--help` shows `meaning`, what the field does. `rule` is its unit, its bounds and
    when it exists: the fields of `_Rule`.
    """
    info = pydantic.Field(default, description=meaning)
    info.metadata.append(_Rule(**rule))
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
        """What a field allows beside its type."""
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
    return _unmet(cls, name, values) is None


def _unmet(
    cls: type[Config], name: str, values: Mapping[str, Any]
) -> tuple[str, Any, tuple[Any, ...]] | None:
    """Another field, its value, and those values with which the field `name` exists."""
    for other, choices in cls.rule(name).when.items():
        value = values.get(other, cls.model_fields[other].default)
        if value not in choices:
            return other, value, choices
        if unmet := _unmet(cls, other, values):
            return unmet
    return None


def allowed(cls: type[Config], name: str) -> str:
    """What a field allows, as the end of a sentence that begins with `it must `."""
    return _allowed(cls.model_fields[name].annotation, cls.rule(name))


def _allowed(annotation: Any, rule: _Rule) -> str:
    if rule.must:
        return rule.must[0]
    example = f", such as {rule.example}" if rule.example else ""
    if choices := _choices(annotation):
        listed = ", ".join(map(repr, choices))
        return f"be {listed}" if len(choices) == 1 else f"be one of {listed}"
    if annotation is bool:
        return "be true or false"
    entry = _entry(annotation)
    kind = ("odd " if rule.odd else "") + _KINDS[entry or annotation]
    if entry is not None:
        count = "one or more" if rule.min_length else "any number of"
        order = ", in increasing order" if rule.increasing else ""
        return f"be a tuple of {count} {kind}s{rule.limits()}{order}{example}"
    kind = f"non-empty {kind}" if rule.min_length else kind
    article = "an" if kind[0] in "io" else "a"
    return f"be {article} {kind}{rule.limits()}{example}"


def _choices(annotation: Any) -> tuple[Any, ...]:
    is_literal = typing.get_origin(annotation) is Literal
    return typing.get_args(annotation) if is_literal else ()


def _entry(annotation: Any) -> Any:
    """The type of a tuple's entries, or None for another type than a tuple."""
    is_tuple = typing.get_origin(annotation) is tuple
    return typing.get_args(annotation)[0] if is_tuple else None


def parse(cls: type[Config], name: str, text: str) -> Any:
    """Reads the value of a field from text, as the command line gives it.

    Integers may be written `100_000` or `1e5`; tuples `(64,32)`, `64,32` or `64`.
    """
    annotation = cls.model_fields[name].annotation
    entry = _entry(annotation)
    if entry is None:
        return _parse_one(annotation, text)
    inner = text.strip()
    if entry is not str:
        inner = inner.strip("()[]").strip()
    parts = inner.removesuffix(",").split(",") if inner else []
    return tuple(_parse_one(entry, part.strip()) for part in parts)


def _parse_one(annotation: Any, text: str) -> Any:
    if annotation is bool:
        if text.strip().lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.strip().lower() == "true"
    if annotation is int:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text!r} is no integer")
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
    """An instance made from values, or None, and the problems, a sentence each.

    `prefix` names the section in messages, such as `config.model.`.
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
        errors = {details["loc"]: details for details in error.errors()}
        if checks := errors.pop((), None):
            found = checks["ctx"]["problems"]
            return None, problems + [f"{prefix}{problem}" for problem in found]
        wrong = {loc[0] for loc in errors}
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
    if name in cls.model_fields and (unmet := _unmet(cls, name, values)):
        other, value, choices = unmet
        wanted = " or ".join(map(repr, choices))
        return (
            f"{prefix}{name} does not exist with {prefix}{other}={value!r}: it needs "
            f"{prefix}{other}={wanted}"
        )
    having = f" with {prefix}name={values['name']!r}" if "name" in values else ""
    fields = [other for other in cls.model_fields if applies(cls, other, values)]
    return (
        f"{prefix}{name} is not a field{having}{did_you_mean(name, fields)}: the "
        f"fields are {', '.join(fields)}"
    )
