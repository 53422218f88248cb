import pytest

from convlstm_jax.cli.rules import (
    Boolean,
    Choice,
    Integer,
    Integers,
    Number,
    Text,
    Texts,
)


@pytest.mark.parametrize(
    ("rule", "text", "value"),
    [
        (Integer(0), "12", 12),
        (Integer(0), "100_000", 100_000),
        (Integer(0), "1e5", 100_000),
        (Integer(0), "-3", -3),
        (Number(), "1", 1.0),
        (Number(), "1e-3", 0.001),
        (Text(), "", ""),
        (Text(), "a b", "a b"),
        (Choice(("a", "b")), "a", "a"),
        (Boolean(), "true", True),
        (Boolean(), "False", False),
        (Integers(1), "(64,32)", (64, 32)),
        (Integers(1), "(64, 32,)", (64, 32)),
        (Integers(1), "[64,32]", (64, 32)),
        (Integers(1), "64,32", (64, 32)),
        (Integers(1), "(64,)", (64,)),
        (Integers(1), "64", (64,)),
        (Integers(1), "()", ()),
        (Integers(1), "", ()),
        (Texts(), "a", ("a",)),
        (Texts(), "a b, c,", ("a b", "c")),
        (Texts(), "", ()),
    ],
)
def test_values_are_read_from_text(rule, text, value):
    assert rule.parse(text) == value
    assert type(rule.parse(text)) is type(value)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Integer(0), "1.5"),
        (Integer(0), "many"),
        (Integer(0), ""),
        (Integer(0), "inf"),
        (Number(), "fast"),
        (Number(), ""),
        (Integers(1), "a,b"),
        (Integers(1), "1.5,2"),
        (Integers(1), "64 32"),
        (Integers(1), "64,,32"),
        (Boolean(), "1"),
        (Boolean(), "yes"),
        (Boolean(), ""),
    ],
)
def test_other_text_is_refused(rule, text):
    refusal = r"invalid literal|could not convert|neither true nor false"
    with pytest.raises(ValueError, match=refusal):
        rule.parse(text)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (Integer(1), [1, 7], [0, -1, 1.0, "1", True, None]),
        (Integer(0, maximum=3), [0, 3], [4]),
        (Integer(1, maximum=63, odd=True), [1, 3, 63], [2, 64, 65, 0]),
        (Number(), [0, -1.5], [float("nan"), float("inf"), "1", True, None]),
        (Number(above=0), [1e-9, 1], [0, -1]),
        (Number(minimum=0, below=1), [0, 0.999], [1, -0.1]),
        (Number(minimum=0, maximum=1), [0, 1], [1.1]),
        (Choice(("a", "b")), ["a", "b"], ["c", "", None, 1]),
        (Boolean(), [True, False], [0, 1, "true", None]),
        (Text(), ["", "a"], [None, 1]),
        (Integers(2), [(2,), (3, 5)], [(), (1,), [2], 2, (2, 2.0), "2", None]),
        (Integers(1, maximum=5, odd=True), [(1, 5)], [(2,), (7,), (1, 0)]),
        (Texts(), [("a",), ("a", "b c")], [(), ("",), "a", ["a"], (1,), None]),
        (Texts(may_be_empty=True), [(), ("a",)], [("a", ""), "", None]),
    ],
)
def test_what_a_rule_accepts(rule, right, wrong):
    assert all(rule.accepts(value) for value in right)
    assert not any(rule.accepts(value) for value in wrong)


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (Integer(1), "an integer of at least 1"),
        (Integer(1, maximum=63, odd=True), "an odd integer from 1 to 63"),
        (Number(above=0), "a finite number above 0"),
        (
            Number(minimum=0, below=1),
            "a finite number of at least 0 and below 1",
        ),
        (Number(), "a finite number"),
        (Choice(("a", "b")), "one of 'a', 'b'"),
        (Choice(("a",)), "'a'"),
        (Text(), "a text"),
        (Boolean(), "true or false"),
        (Texts(), "a tuple of one or more texts, such as theft,robbery"),
        (
            Texts(may_be_empty=True, example="a,b"),
            "a tuple of any number of texts, such as a,b",
        ),
        (
            Integers(1),
            "a tuple of one or more integers of at least 1, such as (128,64,64)",
        ),
    ],
)
def test_what_is_allowed_ends_a_sentence(rule, allowed):
    assert rule.allowed == allowed


def test_a_choice_hints_at_the_nearest_name():
    assert Choice(("adam", "rmsprop")).hint("rmspop") == " (did you mean rmsprop?)"
    assert Integer(1).hint(0) == ""
