"""Rules and conditions of the fields that only folders of the user's own know."""

import pytest

from configs import base
from convlstm_jax.cli.data_rules import Box, Span
from convlstm_jax.cli.validate import find_problems, text_problem
from convlstm_jax.data.prepared import PROGRESS_FILE


def problems_of(**fields):
    config = base.get_config().unlock()
    for name, value in fields.items():
        section, field = name.split("__")
        with config.ignore_type():
            config[section][field] = value
    return find_problems(config)


@pytest.mark.parametrize(
    ("text", "value"),
    [("(0,40,256,300)", (0, 40, 256, 300)), ("1, 2, 3, 4", (1, 2, 3, 4)), ("()", ())],
)
def test_a_box_is_read(text, value):
    assert Box().parse(text) == value and Box().accepts(value)
    assert text_problem("data.crop_box", text) is None


@pytest.mark.parametrize(
    "value", [(1, 2, 3), (-1, 0, 4, 4), (0, 0, 0, 4), (0, 0, 4, 4.0), 3]
)
def test_a_box_is_refused(value):
    assert not Box().accepts(value)
    (problem,) = problems_of(data__path=".", data__crop_box=value)
    assert problem.startswith(
        f"config.data.crop_box is {value!r}: it must be (top, left, height, width) in"
    )


@pytest.mark.parametrize(
    ("text", "value"), [("-10,60.5", (-10.0, 60.5)), ("[0, 1]", (0.0, 1.0)), ("", ())]
)
def test_a_span_is_read(text, value):
    assert Span().parse(text) == value and Span().accepts(value)


@pytest.mark.parametrize(
    "value", [(1.0,), (1, 1), (2, 1), (0, float("inf")), (0, 1, 2), ("0", "1"), 3]
)
def test_a_span_is_refused(value):
    assert not Span().accepts(value)
    (problem,) = problems_of(data__path=".", data__value_range=value)
    assert problem.startswith(
        f"config.data.value_range is {value!r}: it must be two finite numbers, the low"
    )


@pytest.mark.parametrize("text", ["(1,2", "a,b", "1,2,3"])
def test_text_that_is_neither(text):
    assert "it must be two finite" in text_problem("data.value_range", f"{text},x")
    assert "it must be (top, left" in text_problem("data.crop_box", text)


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [
        ("crop_box", (0, 0, 4, 4), "()"),
        ("value_range", (0.0, 9.0), "()"),
        ("variable", "rain", "''"),
        ("split_by", "time", "'file'"),
    ],
)
def test_fields_of_own_folders(field, value, default):
    (problem,) = problems_of(**{f"data__{field}": value})
    assert problem.startswith(
        f"config.data.{field} is {value!r}: it must be {default} without config.data.pa"
    )
    assert problems_of(**{f"data__{field}": value, "data__path": "."}) == []


def test_splitting_by_conditions_needs_some():
    (problem,) = problems_of(data__path=".", data__split_by="condition")
    assert problem.startswith("config.data.split_by is 'condition': it must not be wit")
    fields = {"data__split_by": "condition", "data__condition": "folder"}
    assert problems_of(data__path=".", **fields) == []


def test_path_may_be_one_file(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"")
    assert problems_of(data__path=str(tmp_path / "film.mp4")) == []
    (problem,) = problems_of(data__path=str(tmp_path / "other.mp4"))
    assert "it must be an existing folder" in problem


def test_prepared_folders_are_of_videos(tmp_path):
    (tmp_path / PROGRESS_FILE).write_text("")
    assert problems_of(data__path=str(tmp_path)) == []
    problems = problems_of(data__path=str(tmp_path), task__name="nowcast")
    assert any(
        problem.endswith(
            "which --mode=prepare wrote: it must be the folder itself with "
            "config.task.name='nowcast'"
        )
        for problem in problems
    )
