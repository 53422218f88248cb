"""Rules and conditions of the fields that only folders of the user's own know."""

import json

import pytest

from configs import base
from convlstm_jax.cli.data_rules import Box, Span
from convlstm_jax.cli.validate import find_problems, text_problem
from convlstm_jax.data.prepared import (
    ANNOTATED_VIDEOS,
    COMPOSITES,
    MANIFEST_FILE,
    PROGRESS_FILE,
    VIDEOS,
)


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
    assert problem.endswith(
        "it must be an existing folder of videos, arrays or pictures, or one video or "
        "array, or ''"
    )
    path = str(tmp_path / "film.mp4")
    assert any(
        problem.endswith("an existing folder of videos and their annotations, or ''")
        for problem in problems_of(data__path=path, task__name="classify")
    )


@pytest.mark.parametrize("name", [MANIFEST_FILE, PROGRESS_FILE])
@pytest.mark.parametrize("kind", [VIDEOS, ANNOTATED_VIDEOS, COMPOSITES])
def test_a_prepared_folder_suits_its_task_alone(tmp_path, name, kind):
    (tmp_path / name).write_text(json.dumps({"format": kind.format, "version": 2}))
    tasks = {"forecast": VIDEOS, "classify": ANNOTATED_VIDEOS, "nowcast": COMPOSITES}
    for task, wanted in tasks.items():
        problems = problems_of(data__path=str(tmp_path), task__name=task)
        told = [problem for problem in problems if "--mode=prepare wrote" in problem]
        if kind is wanted:
            assert not told
        else:
            assert told == [
                f"config.data.path is {str(tmp_path)!r}, which --mode=prepare wrote of "
                f"{kind.words}: it must be of {wanted.words} with "
                f"config.task.name={task!r}"
            ]


def test_a_folder_that_does_not_tell_of_what_it_is(tmp_path):
    (tmp_path / PROGRESS_FILE).write_text("")  # Opening it tells what is the matter.
    for task in ("forecast", "classify", "nowcast"):
        problems = problems_of(data__path=str(tmp_path), task__name=task)
        assert not any("prepare" in problem for problem in problems)
