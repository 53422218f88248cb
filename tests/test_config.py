from typing import Literal

import pydantic
import pytest

from convlstm_jax.config import (
    Config,
    allowed,
    field,
    parse,
    validated,
)


class Optics(Config):
    """Fields of every kind."""

    name: Literal["optics"] = "optics"
    mode: Literal["plain", "zoomed"] = field("plain", "How it looks.")
    zoom: float = field(
        2.0, "How much.", ge=1, le=4, when={"mode": ("zoomed",)}, unit="times"
    )
    size: int = field(3, "Side.", ge=1, le=63, odd=True)
    layers: tuple[int, ...] = field(
        (8, 4), "Layers.", ge=1, min_length=1, example="(8,4)"
    )
    rates: tuple[float, ...] = field((1.0,), "Rates.", gt=0, increasing=True)
    labels: tuple[str, ...] = field((), "Labels.", min_length=0)
    share: float = field(0.5, "Share.", gt=0, lt=1)
    flip: bool = field(False, "Whether to flip.")
    path: str = field("", "A path.")
    box: tuple[int, ...] = field(
        (), "A box.", must=("be four integers or ()", lambda box: len(box) in (0, 4))
    )

    def check(self):
        if self.size > 9 and self.flip:
            yield f"size is {self.size}: it must be at most 9 with flip=True"
        if self.size > 9 and self.share > 0.9:
            yield f"share is {self.share}: it must be at most 0.9 with size above 9"


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("mode", "plane", "be one of 'plain', 'zoomed'"),
        ("size", 4, "be an odd integer from 1 to 63"),
        ("size", True, "be an odd integer from 1 to 63"),
        ("size", 3.0, "be an odd integer from 1 to 63"),
        ("layers", (), "be a tuple of one or more integers of at least 1, such as"),
        ("layers", (0,), "be a tuple of one or more integers of at least 1, such as"),
        ("layers", 8, "be a tuple of one or more integers of at least 1, such as"),
        ("rates", (2.0, 1.0), "be a tuple of any number of finite numbers above 0, in"),
        ("rates", (float("inf"),), "be a tuple of any number of finite numbers above"),
        ("labels", "a", "be a tuple of any number of texts"),
        ("share", 1.0, "be a finite number above 0 and below 1"),
        ("share", float("nan"), "be a finite number above 0 and below 1"),
        ("flip", 1, "be true or false"),
        ("path", 3, "be a text"),
        ("box", (1, 2), "be four integers or ()"),
        ("box", (1.0, 2.0, 3.0, 4.0), "be four integers or ()"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name, wrong, words):
    instance, (problem,) = validated(Optics, {name: wrong}, "config.optics.")
    assert instance is None
    assert problem.startswith(f"config.optics.{name} is {wrong!r}: it must {words}")
    assert allowed(Optics, name).startswith(words)
    with pytest.raises(pydantic.ValidationError, match=r"it must|Input should"):
        Optics(**{name: wrong})


def test_a_whole_number_is_a_number_and_defaults_are_valid():
    instance, problems = validated(Optics, {"rates": (1, 2), "mode": "zoomed"})
    assert not problems and instance.rates == (1, 2) and instance.zoom == 2
    assert Optics() == validated(Optics, {})[0]


def test_choices_hint_at_the_nearest():
    _, (problem,) = validated(Optics, {"mode": "zoomd"})
    assert problem.endswith("'plain', 'zoomed' (did you mean zoomed?)")


def test_a_field_that_does_not_apply_does_not_exist():
    assert "zoom" not in Optics().applicable()
    assert Optics(mode="zoomed").applicable()["zoom"] == 2
    _, (problem,) = validated(Optics, {"zoom": 2.0}, "config.optics.")
    assert problem == (
        "config.optics.zoom does not exist with config.optics.mode='plain': it needs "
        "config.optics.mode='zoomed'"
    )


def test_an_unknown_field_is_answered_with_the_fields_and_the_nearest():
    _, (problem,) = validated(Optics, {"name": "optics", "sise": 3}, "config.optics.")
    assert problem == (
        "config.optics.sise is not a field with config.optics.name='optics' (did you "
        "mean size?): the fields are name, mode, size, layers, rates, labels, share, "
        "flip, path, box"
    )


def test_all_problems_are_found_at_once():
    _, problems = validated(Optics, {"size": 0, "shear": 1, "flip": "no"}, "config.")
    assert [problem.split()[0] for problem in problems] == [
        "config.shear", "config.size", "config.flip",
    ]  # fmt: skip
    _, problems = validated(Optics, {"size": 11, "flip": True, "share": 0.95}, "c.")
    assert problems == [
        "c.size is 11: it must be at most 9 with flip=True",
        "c.share is 0.95: it must be at most 0.9 with size above 9",
    ]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "1_1", 11),
        ("size", "1e1", 10),
        ("share", "1e-2", 0.01),
        ("flip", "True", True),
        ("layers", "(8,4)", (8, 4)),
        ("layers", "8, 4,", (8, 4)),
        ("layers", "()", ()),
        ("rates", "1,2.5", (1.0, 2.5)),
        ("labels", "a, b c", ("a", "b c")),
        ("labels", "", ()),
        ("path", " x ", " x "),
        ("mode", "plain", "plain"),
    ],
)
def test_values_are_read_from_text(name, text, value):
    assert parse(Optics, name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("size", "1.5"), ("size", "inf"), ("size", ""), ("flip", "1"), ("layers", "a,b")],
)
def test_text_that_is_no_value_is_refused(name, text):
    with pytest.raises(ValueError):
        parse(Optics, name, text)
