"""What is said before training begins."""

from types import SimpleNamespace

import numpy as np
import pytest

from convlstm_jax.cli import train


def warnings_of(caplog, value_range, *shown):
    """The warnings where so many of some clips show anything."""
    experiment = SimpleNamespace(data=SimpleNamespace(value_range=value_range))
    clips = [np.full((2, 4, 4, 1), 255, np.uint8) for _ in shown]
    for clip, is_shown in zip(clips, shown, strict=True):
        clip[1, 0, 0] = 0 if is_shown else 255
    sources = SimpleNamespace(train=[{"frames": clip} for clip in clips])
    caplog.clear()
    train._warn_of_blank_clips(experiment, sources)
    return [record.getMessage() for record in caplog.records]


def test_a_range_in_which_nothing_is_to_be_seen(caplog):
    (warning,) = warnings_of(caplog, (0.0, 1.0), False, True, False, False)
    assert "data.value_range, (0.0, 1.0), that of the arrays?" in warning
    assert warnings_of(caplog, (0.0, 1.0), False)


@pytest.mark.parametrize("shown", [(True, False, False), (False, False, False, True)])
def test_a_range_in_which_something_is(caplog, shown):
    assert not warnings_of(caplog, (0.0, 1.0), *shown)


def test_without_a_range_nothing_is_looked_at(caplog):
    assert not warnings_of(caplog, (), False)
