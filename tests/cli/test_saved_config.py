from pathlib import Path

import pytest

from configs import base
from convlstm_jax.cli.saved_config import (
    FREE_WHEN_RESUMING,
    check_resumes,
    check_same_model,
)
from convlstm_jax.cli.validate import leaves
from convlstm_jax.errors import UserError

WORKDIR = Path("runs/a")


def changed(path, value):
    config = base.get_config()
    config.update_from_flattened_dict({path: value})
    return config


def another(value):
    if isinstance(value, tuple):
        return (*value, 1)
    if isinstance(value, bool):
        return not value
    return value + type(value)(1) if isinstance(value, (int, float)) else value + "x"


@pytest.mark.parametrize("path", leaves(base.get_config()))
def test_resuming_may_change_the_free_fields_alone(path):
    saved = base.get_config()
    before = leaves(saved)[path]
    config = changed(path, another(before))
    if path in FREE_WHEN_RESUMING:
        check_resumes(saved, config, WORKDIR)
        return
    with pytest.raises(UserError) as caught:
        check_resumes(saved, config, WORKDIR)
    assert str(caught.value) == (
        "--workdir=runs/a holds a run with another config, so choose another folder or "
        f"give the same config: config.{path} is {before!r} there and "
        f"{another(before)!r} here"
    )


def test_every_free_field_exists():
    assert set(leaves(base.get_config())) >= FREE_WHEN_RESUMING


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_number_of_steps_shapes_some_schedules(schedule):
    saved = changed("optimizer.schedule", schedule)
    config = changed("optimizer.schedule", schedule)
    config.train.num_steps = 7
    message = (
        r"config\.train\.num_steps is 100000 there and 7 here; the schedule "
        rf"'{schedule}' is laid out over all steps"
    )
    with pytest.raises(UserError, match=message):
        check_resumes(saved, config, WORKDIR)


def test_data_may_lie_elsewhere_but_be_no_others():
    saved, config = changed("data.path", "films"), changed("data.path", "prepared")
    check_resumes(saved, config, WORKDIR)
    with pytest.raises(UserError, match=r"config\.data\.path is 'films' there and ''"):
        check_resumes(saved, base.get_config(), WORKDIR)


def test_all_differing_fields_are_listed():
    config = base.get_config()
    config.model.features = (8,)
    config.seed = 4
    with pytest.raises(UserError) as caught:
        check_resumes(base.get_config(), config, WORKDIR)
    assert "config.seed is 0 there and 4 here" in str(caught.value)
    assert "config.model.features is (128, 64, 64) there and (8,) here" in str(
        caught.value
    )


def test_the_model_of_trained_weights_stays():
    saved = base.get_config()
    with pytest.raises(UserError, match=r"cannot be changed: config\.model\.peephole"):
        check_same_model(saved, changed("model.peephole", "none"), WORKDIR)
    with pytest.raises(UserError, match=r"config\.task\.name is 'forecast' there"):
        check_same_model(saved, changed("task.name", "predict"), WORKDIR)
    for path, value in (
        ("model.dtype", "bfloat16"),
        ("model.implementation", "scan"),
        ("model.memory", "checkpoint"),
        ("eval.num_sequences", 10),
        ("task.num_output_frames", 20),
    ):
        check_same_model(saved, changed(path, value), WORKDIR)
